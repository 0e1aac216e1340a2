# SPDX-License-Identifier: LGPL-2.1-or-later
"""`make demo`: three device dumps from three kinds of helper into a real vmcore, and what crash makes of it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.lib.bus import private_bus
from tests.lib.sample import unpack
from tests.lib.service import Service

DIRECTORY = Path("build/demo")
FIRMWARE_LOG = "".join(f"[{i:6}] firmware: queue {i % 8} stalled, retrying\n" for i in range(2000))


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n\033[1m# {text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)


def run(*command: str, data: str | None = None) -> str:
    """Show a command, run it, and return what it prints."""
    print("$", shlex.join(command), flush=True)
    return subprocess.run(
        command, input=data, check=True, stdout=subprocess.PIPE, text=True, errors="replace"
    ).stdout


def add_three(address: str, directory: Path) -> None:
    """Add device dumps in the three ways there are."""
    say("A helper in its own process is called back, and fills its buffer through mmap")
    print(run("python3", "-m", "tests.lib.helper_process", address, "nic_0000:02:00.4", "262144"), end="")
    say("A firmware log comes through a pipe")
    print(run("vmcoredd", "add", "--size", "1M", "hba_0000:03:00.0", "-", data=FIRMWARE_LOG), end="")
    say("A file is as large as it is")
    registers = directory / "registers.bin"
    registers.write_bytes(bytes(range(256)) * 1024)
    print(run("vmcoredd", "add", "gpu_0000:01:00.0", str(registers)), end="")
    print(run("vmcoredd", "list"), end="")


def show(vmcore: Path, directory: Path) -> None:
    """Show what is in the vmcore, in our words and in crash's."""
    say("What vmcoredd finds in it")
    print(run("vmcoredd", "inspect", str(vmcore)), end="")
    log = directory / "firmware.log"
    print(run("vmcoredd", "extract", str(vmcore), "hba_0000:03:00.0", "-o", str(log)), end="")
    if log.read_text() != FIRMWARE_LOG:
        raise SystemExit("the extracted firmware log is not what was added")
    say("What crash finds in it")
    output = run("crash", "-d", "8", "--osrelease", str(vmcore))
    found = re.findall(r'\(NT_VMCOREDD\)\s+name: "[^"]*"\s+size: \d+', output)
    print("\n".join(re.sub(r"\s+", " ", line) for line in found))
    print("osrelease:", output.strip().splitlines()[-1])
    if len(found) != 4:
        raise SystemExit("crash does not list the four device dumps")


def main() -> int:
    """Run the demo in build/demo."""
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir(parents=True)
    directory = DIRECTORY.resolve()
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    say("A real vmcore, a private bus with the rules of the system bus, the daemon")
    source = unpack(directory / "proc-vmcore")
    print(f"{source}: {source.stat().st_size} bytes, from a panic of a stock kernel in QEMU")
    with private_bus(directory) as address, Service(address, source, directory, dev_mode=False) as service:
        service.start()
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = address
        add_three(address, directory)
        say("SIGTERM: the service stops, and writes the vmcore")
        status = service.stop()
        print(service.log(), end="")
    if status:
        raise SystemExit(f"the daemon ended with status {status}")
    vmcore = service.vmcore()
    show(vmcore, directory)
    say(f"The vmcore lies in {vmcore}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
