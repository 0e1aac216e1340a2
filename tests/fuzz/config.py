# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mutate configuration files: a valid configuration may come of it, or one line that names the file.

``python -m tests.fuzz.config ROUNDS [SEED [FIRST]]``

Each input is a directory as in ``/etc/vmcoredd``: ``vmcoredd.conf`` and a file of ``collectors.d``, with drop-ins.
Its number and the seed make it again: FIRST is the number of the first. What is in ``corpus/config`` is tried
first, and mutated. An input that takes long, or memory, is a finding, too.
"""

import faulthandler
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from vmcoredd_daemon.collectors import settings
from vmcoredd_daemon.config import ini
from vmcoredd_daemon.config.config import KEYS, Configuration, load
from vmcoredd_daemon.errors import InvalidConfiguration
from vmcoredd_daemon.note import MAX_NOTES_END, check_dump_name
from vmcoredd_daemon.text import printable

CORPUS = Path(__file__).with_name("corpus") / "config"
SHIPPED = Path(__file__).parent.parent.parent / "systemd/vmcoredd.conf"

CPU_SECONDS = 2.0
"""For one input, of processor time; the largest takes a tenth of that."""
WALL_SECONDS = 60
"""For a thousand inputs: beyond that, one waits for something."""
MEMORY = 32 << 20
"""Bytes by which the resident memory may grow in all: an initramfs has no more to spare."""
MAX_MESSAGE = 80 * 10 + 400
"""Characters: 80 of the file, of which escaping makes ten each, with names and reason."""

NUMBERS = [
    *(
        "0",
        "1",
        "00",
        "31",
        "32",
        "64",
        "65535",
        "65536",
        "2147479551",
        "2147479552",
        "4294967296",
        "-1",
        "+1",
        "1e3",
    ),
    *(
        "9" * 15,
        "9" * 16,
        "9" * 20,
        "9" * 21,
        "9" * 5000,
        "0" * 5000 + "1",
        "1_000",
        "0x10",
        "1.5",
        ".5",
        "5.",
        ".",
    ),
    *(
        "\u0663",
        "\xb2",
        "\uff11",
        "nan",
        "inf",
        "infinity",
        "0.00000000000000000001",
        "0.000000000000000000001",
        " ",
    ),
]
UNITS = ["", "K", "M", "G", "T", "k", "KM", " K", "s", "ms", "min", " s", "\u00a0s", "us", "h", "min30s", "%", "B"]
WORDS = [
    *("yes", "NO", "on", "0", "perhaps", "elf", "kdump", "none", "zstd", "lzo", "ELF", "\u0130", "infinity"),
    *(
        "/",
        "/proc/vmcore",
        "/var/crash",
        "relative",
        "~/x",
        "/a/../b",
        "/" + "x" * 5000,
        "/%n",
        "!/proc",
        "!!/",
        "!",
    ),
    *(
        "/dev/nu*l",
        "/dev/[",
        "/[!",
        "/**",
        "/proc/sel[f]",
        "/a*a*a*a*a*a*a*a*b",
        "/{a,b}",
        "/\x1b[31m",
        "/caf\xe9",
    ),
    *(
        "%n",
        "%i",
        "%%",
        "%",
        "%%%",
        "%x",
        "%n%i",
        "%%n",
        "%%i",
        "%\u0130",
        "nic_%i",
        "x" * 43,
        "x" * 44,
        "%n" * 99,
    ),
    *("sh -c 'echo \"%i\"'", "'", '"', "\\", "a\\", "''", "a '' b", "cat #x", "cat\tx", "$(x)", "a;b", "true %%"),
    *("\x1b]0;title\x07", "\u202egro.evil", "\x7f", "\x85", "\u2028", "\ufeff", "\U0001f4a5", "a=b=c", "[x]"),
]
LINES = [
    *(
        "",
        " ",
        "\t",
        "#",
        ";",
        "# comment \\",
        "; x=y",
        "[",
        "]",
        "[]",
        "[ ]",
        "[[Vmcoredd]]",
        "[Vmcoredd] #",
        "=",
    ),
    *(
        "=x",
        "Key",
        "Enabled",
        "\\",
        "Enabled=\\",
        "  yes",
        "\ufeff[Vmcoredd]",
        "[vmcoredd]",
        "[Unit]",
        "\x00",
        "\x0c",
    ),
]
BYTES = [
    *(
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xfe\xff",
        b"\x00",
        b"\x00" * 4096,
        b"\r",
        b"\r\n",
        b"\n\r",
        b"\x1a",
        b"\xff",
    ),
    *(
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x80\xa8",
        b"\x7fELF",
        b"\x1b[2J",
        b"\\\n",
        b"\\\r\n",
    ),
    *(b"%", b"[", b"]", b"=", b"'", b'"', b"\\", b"#", b"[Vmcoredd]", b"[Collector]", b"\n", b" "),
]
NAMES = [
    *(
        "x",
        "x" * 43,
        "x" * 44,
        "x" * 248,
        "a b",
        "%n",
        "%",
        "%%",
        "nic%i",
        "caf\xe9",
        "evil\nname",
        "\x1b[31m",
        "\x7f",
    ),
    *("\udcff\udcfe", "\u202e", "-", "--help", "*", "[", "x.conf", "'", "\\", "pci", "vmcoredd_manifest", "\xa0"),
]


@dataclass(slots=True)
class Input:
    """Files, by their names below the directory."""

    name: str = "x"
    """Of the collector."""
    files: dict[str, bytes] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(f"{name!r}: {len(data)} bytes, {data[:1000]!r}" for name, data in self.files.items())


def originals(section: str) -> list[bytes]:
    """Return the corpus of a section: what was found, and what is valid."""
    shipped = [SHIPPED.read_bytes(), SHIPPED.read_bytes().replace(b"\n#", b"\n")] if section == "Vmcoredd" else []
    return [*shipped, *(file.read_bytes() for file in sorted(CORPUS.glob(f"{section}-*.conf")))]


class Fuzzer:
    """Makes inputs: structured ones, of the corpus, and what neither is."""

    def __init__(self) -> None:
        self._originals = {section: originals(section) for section in ("Vmcoredd", "Collector")}
        self._keys = {"Vmcoredd": list(KEYS), "Collector": list(settings.KEYS)}

    def corpus(self) -> Iterator[Input]:
        """Yield each file of the corpus as it is."""
        for data in self._originals["Vmcoredd"]:
            yield Input(files={"vmcoredd.conf": data})
        for data in self._originals["Collector"]:
            yield Input(files={"vmcoredd.conf": b"", "collectors.d/x.conf": data})

    def input(self, seed: int, number: int) -> Input:
        """Return an input, the same for the same seed and number."""
        chance = random.Random(f"{seed}/{number}")
        made = Input(files={"vmcoredd.conf": b""})
        if chance.random() < 0.5:
            main, section = "vmcoredd.conf", "Vmcoredd"
        else:
            made.name = chance.choice(NAMES) if chance.random() < 0.2 else "x"
            main, section = f"collectors.d/{made.name}.conf", "Collector"
        for name in [main, *(f"{main}.d/{n}.conf" for n in range(chance.choice([0, 0, 0, 1, 2])))]:
            if len(Path(name).parent.name.encode(errors="replace")) < 256:
                made.files[name] = self._file(section, chance)
        return made

    def _file(self, section: str, chance: random.Random) -> bytes:
        kind = chance.random()
        if kind < 0.0002:
            # 10 MB, and what is just read.
            return self._huge(section, chance)[: chance.choice([10_000_000, ini.MAX_SIZE])]
        if kind < 0.2:
            data = chance.choice(self._originals[section])
        elif kind < 0.22:
            data = chance.randbytes(chance.choice([0, 1, 3, 60, 5000]))
        else:
            data = self._text(section, chance).encode(errors="surrogatepass")
        while chance.random() < 0.3:
            data = self._spoil(data, chance)
        return data

    def _text(self, section: str, chance: random.Random) -> str:
        lines = [f"[{section}]"] if chance.random() < 0.95 else []
        for _ in range(chance.choice([0, 1, 1, 1, 2, 2, 3, 5, 12])):
            line = self._assignment(section, chance) if chance.random() < 0.9 else chance.choice(LINES)
            # A key that comes twice, a line that goes on.
            lines += [line] * chance.choice([1, 1, 1, 1, 1, 1, 1, 2])
            if chance.random() < 0.05:
                lines[-1] += "\\"
        return chance.choice(["\n"] * 8 + ["\r\n", "\r"]).join(lines) + "\n" * (chance.random() < 0.9)

    def _assignment(self, section: str, chance: random.Random) -> str:
        key = chance.choice(self._keys[section])
        if chance.random() < 0.03:
            key = chance.choice([key.lower(), f"{key} x", key[:-1], "Colour", "\u0130", "", "[" + key])
        kind = chance.random()
        if kind < 0.45:
            value = chance.choice(NUMBERS[:11]) + chance.choice(UNITS[:4])
        elif kind < 0.6:
            value = chance.choice(NUMBERS) + chance.choice(UNITS)
        elif kind < 0.95:
            value = chance.choice(WORDS)
        else:
            value = "".join(chance.choice([*WORDS, *UNITS]) for _ in range(chance.choice([0, 2, 5])))
        if chance.random() < 0.001:
            value *= 65536 // (len(value) + 1) + chance.choice([-1, 0, 1, 99])
        return key + chance.choice(["="] * 8 + [" = ", "= ", ":"]) + value + chance.choice([""] * 9 + [" "])

    def _spoil(self, data: bytes, chance: random.Random) -> bytes:
        start, end = sorted(chance.randint(0, len(data)) for _ in range(2))
        match chance.randrange(7):
            case 0:
                return data[:start] + chance.choice(BYTES) + data[start:]
            case 1:
                return data[:start] + data[end:]
            case 2:
                return data[:start]
            case 3:
                return chance.choice(BYTES) + data
            case 4:
                return data[:end] + data[start:][:10_000]
            case 5:
                return data[:start] + bytes([chance.randrange(256)]) + data[start + 1 :]
        other = chance.choice(self._originals[chance.choice(sorted(self._originals))])
        return data[:start] + other[chance.randrange(len(other) + 1) :]

    def _huge(self, section: str, chance: random.Random) -> bytes:
        """Return more than 10 MB: lines without end, and without number."""
        piece = chance.choice(
            [
                b"x",
                b"\n",
                b" ",
                b"\x00",
                b"a\n",
                b"[%s]\n" % section.encode(),
                b"Enabled=yes\n",
                b"#\n",
                b"\\\n",
                b"'a",
            ]
        )
        start = chance.choice([b"", b"[%s]\n" % section.encode(), b"[%s]\nName=" % section.encode()])
        start = chance.choice([start, b"[%s]\nExec=" % section.encode()])
        return start + piece * (10_000_000 // len(piece) + 1)


def run(rounds: int, seed: int, first: int = 0) -> int:
    """Try the corpus, then *rounds* inputs; return how many were refused. Raises AssertionError for a finding."""
    fuzzer, refused = Fuzzer(), 0
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as temporary, _deadline():
        directory = Path(temporary)
        for found in fuzzer.corpus():
            _judge(directory, found, "corpus")
        before = _resident()
        for number in range(first, first + rounds):
            made = fuzzer.input(seed, number)
            refused += _judge(directory, made, f"seed {seed}, number {number}")
            assert _resident() - before < MEMORY, (
                f"seed {seed}, number {number}: {_resident() - before} bytes more"
            )
    return refused


def _judge(directory: Path, made: Input, what: str) -> bool:
    """Read an input; return whether it was refused."""
    for name, data in made.files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        return _read(directory, made)
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:1000]}\n{made}") from error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        for name in made.files:
            (directory / name).unlink(missing_ok=True)
            if name.endswith("/0.conf"):
                shutil.rmtree((directory / name).parent, ignore_errors=True)


def _read(directory: Path, made: Input) -> bool:
    refused = False
    try:
        _check_configuration(load(directory / "vmcoredd.conf"))
    except InvalidConfiguration as error:
        _check_message(directory / "vmcoredd.conf", str(error), made)
        refused = True
    for name, loaded in settings.load([directory / "collectors.d", directory / "none"]).items():
        if isinstance(loaded, InvalidConfiguration):
            _check_message(directory / f"collectors.d/{name}.conf", str(loaded), made)
            refused = True
        elif loaded is not None:
            assert isinstance(loaded, settings.Settings), loaded
            _check_settings(loaded, name)
    return refused


def _check_message(file: Path, message: str, made: Input) -> None:
    assert message.isprintable(), f"not one printable line: {message!r}"
    assert len(message) < MAX_MESSAGE, f"a message of {len(message)} characters: {message[:200]}"
    names = [
        file.parent.parent / name for name in made.files if name.startswith(f"{file.parent.name}/{file.name}")
    ]
    names += [file, *(file.parent / name for name in made.files if name.startswith(f"{file.name}.d/"))]
    shown = [printable(str(name)) for name in names]
    place = next((name for name in shown if message.startswith((f"{name}: ", f"{name}:"))), None)
    assert place is not None, f"names no file: {message}"
    line, _, rest = message.removeprefix(place).removeprefix(":").partition(":")
    assert rest or line.startswith(" "), f"says nothing: {message}"
    if not line.startswith(" "):
        assert line.isdecimal(), f"names no line: {message}"
        assert 1 <= int(line) <= 1 + max(data.count(b"\n") + data.count(b"\r") for data in made.files.values()), (
            f"line {message}"
        )


def _check_configuration(found: Configuration) -> None:
    """Assert the ranges that systemd/vmcoredd.conf and vmcoredd.conf(5) give."""
    for path in (found.source, found.target, found.spool_directory):
        assert path.is_absolute(), path
        assert "\0" not in str(path)
    for seconds in (found.collector_timeout, found.drain_timeout, found.bus_timeout):
        assert 0 < seconds < float("inf"), seconds
    assert found.keep_free is None or found.keep_free >= 0
    assert 0 <= found.output.dump_level <= 31
    assert 0 <= found.limits.max_total_size < MAX_NOTES_END
    assert found.limits.max_dump_size >= 0
    counts = [found.calls.max_calls, found.calls.max_calls_per_caller]
    counts += [found.limits.max_dumps, found.limits.max_collecting, found.limits.max_collecting_per_caller]
    assert all(1 <= count <= 65535 for count in counts), counts
    assert all(type(value) is bool for value in (found.enabled, found.run_collectors, found.output.manifest))


def _check_settings(found: settings.Settings, name: str) -> None:
    """Assert what vmcoredd-collectors(7) says, and expand the specifiers."""
    assert found.size > 0
    assert found.timeout is None or 0 < found.timeout < float("inf")
    assert all(condition.removeprefix("!").startswith("/") for condition in found.conditions)
    assert isinstance(found.unmet(), str)
    words = [*found.command, found.dump_name, found.instances, *found.conditions]
    assert not any("\0" in word for word in words)
    for dump_name, command in found.commands(name):
        assert not any("\0" in word for word in command)
        if not found.instances:
            check_dump_name(dump_name)
        # What an instance is called is the device's business, and checked when it is added.
        assert len(command) == len(found.command)


def _resident() -> int:
    """Return the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _late(_: int, frame: FrameType | None) -> None:
    raise AssertionError(f"more than {CPU_SECONDS} s")


@contextmanager
def _deadline() -> Iterator[None]:
    before = signal.signal(signal.SIGVTALRM, _late)
    try:
        yield
    finally:
        signal.signal(signal.SIGVTALRM, before)


def main() -> None:
    """Run, and say what came of it."""
    rounds = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    print(f"seed {seed}", flush=True)
    refused = 0
    for start in range(first, first + rounds, 1000):
        # Where even the interpreter does not come back.
        faulthandler.dump_traceback_later(WALL_SECONDS, exit=True)
        refused += run(min(1000, first + rounds - start), seed, start)
    faulthandler.cancel_dump_traceback_later()
    print(f"{rounds} rounds: {refused} inputs refused, {rounds - refused} read")


if __name__ == "__main__":
    main()
