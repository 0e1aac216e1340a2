#!/usr/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Writes /proc/vmcore into the capture kernel's target, once for each argument: vmcoredd, or the NAME of a function
# copy_NAME in the file beside this one. It says over the console what that took, and switches the machine off.
set -Eeuo pipefail
export LC_ALL=C

target=/var/crash
readonly SEGFAULT=139 ATTEMPTS=10

say() { echo "vmcoredd rig: $*" > /dev/kmsg; }
off() { systemctl --force --force poweroff; }
trap 'say "FAILED: $BASH_COMMAND: status $?"' ERR
# However it ends: the machine would run until the host stops it.
trap off EXIT

# kib FILE NAME: sets REPLY
kib() {
    local name
    while read -r name REPLY _; do
        [[ $name != "$2:" ]] || return 0
    done < "$1"
    return 1
}

# Prints the least memory there was, when a line is written to it; no process is started for a sample.
sample() {
    local lowest=
    while true; do
        kib /proc/meminfo MemAvailable
        [[ $lowest ]] && ((lowest <= REPLY)) || lowest=$REPLY
        read -r -t 0.2 && break
    done
    echo "$lowest"
}

write() {
    local path
    # busctl, because the start of a Python program is not what is measured.
    path=$(busctl --timeout=3600 call org.vmcoredd1 /org/vmcoredd1 org.vmcoredd1.Manager WriteVmcore 'a{sv}' 0)
    path=${path#'s "'}
    written=${path%'"'}
}

copy() {
    local status=$SEGFAULT attempt
    for ((attempt = 0; attempt < ATTEMPTS && status == SEGFAULT; attempt++)); do
        status=0
        rm -f "$target/copy"
        began=${EPOCHREALTIME/./}
        "copy_$1" "$target/copy" /proc/vmcore || status=$?
    done
    ((status == 0))
    sync -d "$target/copy"
    written=$target/copy
}

measure_one() {
    local lowest ended answer
    sync
    echo 3 > /proc/sys/vm/drop_caches
    coproc sampler { sample; }
    # Of our own: bash closes its when it sees that the coprocess has ended.
    exec {answer}<&"${sampler[0]}"
    began=${EPOCHREALTIME/./}
    if [[ $1 == vmcoredd ]]; then write; else copy "$1"; fi
    ended=${EPOCHREALTIME/./}
    echo >&"${sampler[1]}"
    read -r lowest <&"$answer"
    exec {answer}<&-
    wait
    say "bench: $1: $((ended - began)) us, $lowest kB, $(stat -c %s "$written") bytes"
    rm "$written"
}

# shellcheck source=/dev/null
. "${0%/*}/copies"
status=/proc/$(systemctl show --property MainPID --value vmcoredd.service)/status
say "bench: source: $(stat -c %s /proc/vmcore) bytes"
for name; do
    measure_one "$name"
done
kib "$status" VmHWM
say "bench: VmHWM: $REPLY kB"
