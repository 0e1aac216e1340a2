#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# dracut module: vmcoredd in the initramfs of a capture kernel. It is there only when asked for (--add vmcoredd), and
# works when that kernel's command line has rd.systemd.unit=vmcoredd-capture.target. Variables, in a dracut.conf.d file:
#
# vmcoredd_mount="SOURCE TYPE [OPTIONS]"   file system of the target, as in fstab; or use dracut's own --mount
# vmcoredd_finish=reboot                   what comes then: a verb of systemctl (reboot, poweroff, halt), or none
# vmcoredd_dbus=yes                        no: without a message bus
# vmcoredd_program=PATH                    vmcoredd-daemon, where it is not in PATH
# vmcoredd_root=DIRECTORY                  DESTDIR of the other files, where they are not installed

# Variables of dracut's own:
# shellcheck disable=SC2154

: "${vmcoredd_root:=}" "${vmcoredd_finish:=reboot}" "${vmcoredd_dbus:=yes}" "${vmcoredd_mount:=}"

# called by dracut
check() {
    [[ -x $(_vmcoredd_program) ]] || {
        # dracut asks every module that it has, but says why it refuses one only where it was asked for.
        [[ " $dracutmodules $add_dracutmodules $force_add_dracutmodules " != *" vmcoredd "* ]] ||
            derror "vmcoredd: ${vmcoredd_program:-vmcoredd-daemon} is not installed; vmcoredd_program= says where it is"
        return 1
    }
    # Not in an initramfs that is not for a capture kernel.
    return 255
}

# called by dracut
depends() {
    echo base systemd-initrd systemd-journald fs-lib
    [[ $vmcoredd_dbus == no ]] || echo dbus
}

# called by dracut
installkernel() {
    local _type
    read -r _ _type _ <<< "$vmcoredd_mount"
    # It need not be mounted on this machine now.
    [[ ! $_type ]] || hostonly='' instmods "=fs/$_type" "$_type"
}

# called by dracut
install() {
    local _program _name
    _program=$(_vmcoredd_program)
    _vmcoredd_loaded_files "$_program" || return 1
    for _name in vmcoredd-daemon vmcoredd; do
        inst_script "${_program%/*}/$_name"
        # Where systemd and shells look for programs.
        [[ -e $initdir/usr/bin/$_name ]] || ln -s "${_program%/*}/$_name" "$initdir/usr/bin/$_name"
    done
    _vmcoredd_file /usr/bin/vmcoredd-core-collector || return 1

    for _name in vmcoredd.service vmcoredd-plain.service vmcoredd-finish@.service vmcoredd-capture.target \
        vmcoredd-collect@.service; do
        _vmcoredd_file "/usr/lib/systemd/system/$_name" || return 1
    done
    _vmcoredd_file /usr/lib/vmcoredd/save-plain || return 1
    if [[ $vmcoredd_dbus != no ]]; then
        _vmcoredd_file /usr/share/dbus-1/system.d/org.vmcoredd1.conf || return 1
        _vmcoredd_file /usr/share/dbus-1/system-services/org.vmcoredd1.service || return 1
    fi
    for _name in "$vmcoredd_root"/etc/vmcoredd/vmcoredd.conf{,.d/*.conf} \
        "$vmcoredd_root"/etc/systemd/system/vmcoredd{,-plain}.service.d/*.conf; do
        [[ ! -e $_name ]] || inst_simple "$_name" "${_name#"$vmcoredd_root"}"
    done
    # What the service and the scripts run; and modprobe for a file system, what its mount runs.
    inst_multiple cat cp date mkdir mount mv rm sh sleep sync systemctl
    inst_multiple -o journalctl makedumpfile
    type -P makedumpfile > /dev/null ||
        dwarn "vmcoredd: makedumpfile is missing: the vmcore will have all of the memory, uncompressed"
    _vmcoredd_collectors "$_program" || return 1
    _vmcoredd_target
    _vmcoredd_finish
}

# Before version 108, dracut leaves /usr/local out of its PATH.
_vmcoredd_program() {
    echo "${vmcoredd_program:-$(PATH=$PATH:/usr/local/sbin:/usr/local/bin type -P vmcoredd-daemon)}"
}

# The interpreter of a program: its first line may have a space before it.
_vmcoredd_python() {
    sed -n '1s/^#! *//p' "$1"
}

_vmcoredd_file() {
    inst_simple "$vmcoredd_root$1" "$1" || {
        dfatal "vmcoredd: $vmcoredd_root$1 cannot be installed"
        return 1
    }
}

# All that the interpreter loads for the programs; the list is its own.
_vmcoredd_loaded_files() {
    local _python _staging _list _file _path
    _python=$(_vmcoredd_python "$1")
    _staging=$(mktemp -d --tmpdir="${DRACUT_TMPDIR:-/var/tmp}" vmcoredd.XXXXXX)
    _list=$("$_python" "$vmcoredd_root/usr/lib/vmcoredd/loaded-files" "$_staging") || {
        dfatal "vmcoredd: $_python does not tell what it loads for $1"
        return 1
    }
    while IFS=$'\t' read -r _file _path; do
        inst "$_file" "$_path" || return 1
    done <<< "$_list"
}

# Files of registered collectors, and the programs that they run.
_vmcoredd_collectors() {
    local _python _list _file _path
    _python=$(_vmcoredd_python "$1")
    _list=$("$_python" "$vmcoredd_root/usr/lib/vmcoredd/collector-files" "$vmcoredd_root") || {
        dfatal "vmcoredd: the collectors cannot be listed"
        return 1
    }
    while IFS=$'\t' read -r _file _path; do
        [[ ! $_file ]] || inst "$_file" "$_path" || dwarn "vmcoredd: $_file cannot be installed"
    done <<< "$_list"
}

_vmcoredd_target() {
    local _source _type _options
    read -r _source _type _options <<< "$vmcoredd_mount"
    if [[ $_source ]]; then
        # A disk that does not come must not be waited for until the default of 90 seconds has passed.
        echo "$_source /var/crash $_type ${_options:-rw},x-systemd.device-timeout=30s 0 0" >> "$initdir/etc/fstab"
    elif [[ ! ${IN_KDUMP:-} && " ${fstab_lines[*]} " != *" /var/crash "* ]]; then
        # kdump-utils mounts the target, and core-collector needs no other.
        dwarn "vmcoredd: vmcoredd_mount= is not set, and --mount mounts nothing at /var/crash"
    fi
    inst_dir /var/crash
}

_vmcoredd_finish() {
    local _wants=$initdir/usr/lib/systemd/system/vmcoredd-capture.target.wants
    [[ $vmcoredd_finish != none ]] || return 0
    mkdir -p "$_wants"
    ln -s ../vmcoredd-finish@.service "$_wants/vmcoredd-finish@$vmcoredd_finish.service"
}
