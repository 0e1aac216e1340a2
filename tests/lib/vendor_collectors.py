# SPDX-License-Identifier: LGPL-2.1-or-later
"""Collectors in Python as vendors write them, good and bad; a test registers them as entry points."""

import subprocess
import time
from collections.abc import Iterator
from typing import BinaryIO


class Good:
    def device_dumps(self) -> Iterator[tuple[str, int]]:
        for number in range(2):
            yield f"python{number}", 1 << 20

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        data.write(dump_name.encode())
        data.write(b"." * 10_000)


class Raises(Good):
    def device_dumps(self) -> Iterator[tuple[str, int]]:
        yield "raises", 100

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        raise RuntimeError("the device is gone")


class Hangs(Good):
    def device_dumps(self) -> Iterator[tuple[str, int]]:
        yield "hangs_in_python", 100

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        data.write(b"so far")
        time.sleep(3600)


class HangsAtOnce(Good):
    def device_dumps(self) -> Iterator[tuple[str, int]]:
        time.sleep(3600)
        yield "never", 100


class Floods(Good):
    def device_dumps(self) -> Iterator[tuple[str, int]]:
        yield "floods_in_python", 100

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        while True:
            data.write(b"0123456789abcdef")


class Exits(Good):
    def device_dumps(self) -> Iterator[tuple[str, int]]:
        raise SystemExit(3)


class Disappears(Good):
    def device_dumps(self) -> Iterator[tuple[str, int]]:
        yield "disappears", 1 << 16

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        # What the kernel answers for a file of something that is no more: of a process here.
        with subprocess.Popen(["sleep", "1000"]) as device, open(f"/proc/{device.pid}/stat", "rb", 0) as file:
            data.write(file.read(4))
            device.kill()
            device.wait()
            file.seek(0)
            data.write(file.read())


class WritesNothing(Good):
    def device_dumps(self) -> Iterator[tuple[str, int]]:
        yield "writes_nothing", 100

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        pass


class LiesAboutItsSize(Good):
    def device_dumps(self) -> Iterator[tuple[str, int]]:
        yield "lies_about_its_size", -1
