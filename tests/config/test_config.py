# SPDX-License-Identifier: LGPL-2.1-or-later
import os
import re
import resource
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import config as fuzz
from vmcoredd_daemon.config.config import Configuration, load
from vmcoredd_daemon.config.ini import MAX_LINE, MAX_SIZE
from vmcoredd_daemon.config.limits import CallLimits, Limits
from vmcoredd_daemon.config.vmcore_format import Compression, Format, Output
from vmcoredd_daemon.errors import InvalidConfiguration

ALL = """
[Vmcoredd]
Enabled=no
Source=/dev/oldmem
Target=/srv/crash
Spool=/srv/spool
Console=/dev/ttyS1
Format=kdump
DumpLevel=17
Compression=zstd
Manifest=off
KeepFree=64M
KeepCrashes=5
RunCollectors=no
CollectorTimeoutSec=90
DrainTimeoutSec=1.5min
BusTimeoutSec=500ms
MaxDumps=32
MaxDumpSize=3K
MaxTotalSize=2M
MaxCollecting=7
MaxCollectingPerCaller=5
MaxCalls=99
MaxCallsPerCaller=9
"""
EVERYTHING = Configuration(
    enabled=False,
    source=Path("/dev/oldmem"),
    target=Path("/srv/crash"),
    spool=Path("/srv/spool"),
    console=Path("/dev/ttyS1"),
    keep_free=64 << 20,
    keep_crashes=5,
    run_collectors=False,
    collector_timeout=90.0,
    drain_timeout=90.0,
    bus_timeout=0.5,
    limits=Limits(
        32, max_dump_size=3 << 10, max_total_size=2 << 20, max_collecting=7, max_collecting_per_caller=5
    ),
    calls=CallLimits(max_calls=99, max_calls_per_caller=9),
    output=Output(Format.KDUMP, 17, Compression.ZSTD, manifest=False),
)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "vmcoredd.conf.d").mkdir()
    return tmp_path / "vmcoredd.conf"


def drop_in(conf: Path, name: str, text: str) -> Path:
    file = conf.parent / "vmcoredd.conf.d" / name
    file.write_text(text)
    return file


def test_every_key(conf: Path) -> None:
    conf.write_text(ALL)
    assert load(conf) == EVERYTHING


def test_every_field_has_been_set_to_something_else() -> None:
    defaults = Configuration()
    unchanged = [f.name for f in fields(defaults) if getattr(defaults, f.name) == getattr(EVERYTHING, f.name)]
    assert unchanged == []
    limits = [f.name for f in fields(Limits) if getattr(Limits(), f.name) == getattr(EVERYTHING.limits, f.name)]
    assert limits == ["max_failures"]


def test_every_key_is_reset_by_an_empty_value(conf: Path) -> None:
    conf.write_text(ALL)
    drop_in(conf, "reset.conf", re.sub("=.*", "=", ALL))
    assert load(conf) == Configuration()


def test_no_default_file() -> None:
    assert load(None) == Configuration() or Path("/etc/vmcoredd").exists()


def test_named_file_must_exist(conf: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=rf"^{re.escape(str(conf))}: does not exist$"):
        load(conf)


def test_drop_ins_come_in_order_of_their_names(conf: Path) -> None:
    conf.write_text("[Vmcoredd]\nMaxDumps=1\nMaxCollecting=1\nTarget=/main\n")
    drop_in(conf, "20.conf", "[Vmcoredd]\nMaxDumps=3\n")
    drop_in(conf, "10.conf", "[Vmcoredd]\nMaxDumps=2\nMaxCollecting=2\n")
    drop_in(conf, "30.conf.disabled", "[Vmcoredd]\nMaxDumps=4\n")
    loaded = load(conf)
    assert (loaded.limits.max_dumps, loaded.limits.max_collecting, loaded.target) == (3, 2, Path("/main"))


def test_last_assignment_wins(conf: Path) -> None:
    conf.write_text("[Vmcoredd]\nMaxDumps=1\nMaxDumps=2\n[Vmcoredd]\nMaxDumps = 3 \n")
    assert load(conf).limits.max_dumps == 3


def test_comments_and_blank_lines(conf: Path) -> None:
    conf.write_text("# MaxDumps=1\n; x\n\n  # y\n[Vmcoredd]\n#MaxDumps=2\n\t\nTarget=/a#b;c\n")
    assert load(conf) == Configuration(target=Path("/a#b;c"))


def test_empty_file_and_no_drop_in_directory(tmp_path: Path) -> None:
    (tmp_path / "x.conf").touch()
    assert load(tmp_path / "x.conf") == Configuration()


def test_spool_is_beside_the_target_by_default(conf: Path) -> None:
    conf.write_text("[Vmcoredd]\nTarget=/srv/crash\n")
    assert load(conf).spool_directory == Path("/srv/crash/.vmcoredd-spool")
    assert EVERYTHING.spool_directory == Path("/srv/spool/.vmcoredd-spool")


@pytest.mark.parametrize("value", ["yes", "TRUE", "on", "1"])
def test_true(conf: Path, value: str) -> None:
    conf.write_text(f"[Vmcoredd]\nEnabled=no\nEnabled={value}\n")
    assert load(conf).enabled is True


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("30", 30.0), ("30s", 30.0), ("30 s", 30.0), ("2min", 120.0), ("250ms", 0.25), ("0.5", 0.5)],
)
def test_times(conf: Path, value: str, seconds: float) -> None:
    conf.write_text(f"[Vmcoredd]\nCollectorTimeoutSec={value}\n")
    assert load(conf).collector_timeout == seconds


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("Enabled=perhaps", "Enabled='perhaps' is not a boolean (yes, no)"),
        ("Manifest=2", "Manifest='2' is not a boolean (yes, no)"),
        ("Source=proc/vmcore", "Source='proc/vmcore' is not an absolute path"),
        ("Target=/a\0b", "Target='/a\\x00b' is not an absolute path"),
        ("Spool=~/x", "Spool='~/x' is not an absolute path"),
        ("KeepCrashes=-1", "KeepCrashes='-1' is not a number from 0 to 65535"),
        ("KeepFree=-1", "KeepFree='-1' is not a size in bytes (with K, M or G)"),
        ("KeepFree=1KM", "KeepFree='1KM' is not a size"),
        ("KeepFree=M", "KeepFree='M' is not a size"),
        ("KeepFree=1 M", "KeepFree='1 M' is not a size"),
        ("KeepFree=1k", "KeepFree='1k' is not a size"),
        ("MaxDumpSize=٣", "MaxDumpSize='\\u0663' is not a size"),
        ("MaxDumpSize=1.5M", "MaxDumpSize='1.5M' is not a size"),
        ("MaxTotalSize=2G", "MaxTotalSize='2G' is not below 2147479552 bytes"),
        ("MaxDumps=0", "MaxDumps='0' is not a number from 1 to 1024"),
        ("MaxDumps=65536", "MaxDumps='65536' is not a number from 1 to 1024"),
        ("MaxDumps=1025", "MaxDumps='1025' is not a number from 1 to 1024"),
        ("MaxCalls=65536", "MaxCalls='65536' is not a number from 1 to 65535"),
        ("MaxDumps=many", "MaxDumps='many' is not a number from 1 to 1024"),
        ("MaxCollecting=²", "MaxCollecting='\\xb2' is not a number"),
        ("CollectorTimeoutSec=0", "CollectorTimeoutSec='0' is not a time above 0"),
        ("CollectorTimeoutSec=-3", "CollectorTimeoutSec='-3' is not a time"),
        ("DrainTimeoutSec=infinity", "DrainTimeoutSec='infinity' is not a time"),
        ("BusTimeoutSec=1h", "BusTimeoutSec='1h' is not a time"),
        ("BusTimeoutSec=.", "BusTimeoutSec='.' is not a time"),
        ("maxdumps=1", "unknown key 'maxdumps'"),
        ("Colour=red", "unknown key 'Colour'"),
        ("=red", "unknown key ''"),
        ("Enabled", "'Enabled' is not an assignment"),
        ("[Other]", "unknown section '[Other]'"),
        ("[Vmcoredd", "'[Vmcoredd' is not an assignment"),
    ],
)
def test_mistake_names_file_line_and_key(conf: Path, line: str, problem: str) -> None:
    conf.write_text("[Vmcoredd]\n")
    file = drop_in(conf, "10.conf", f"# A comment\n\n[Vmcoredd]\n{line}\nMaxDumps=1\n")
    with pytest.raises(InvalidConfiguration) as raised:
        load(conf)
    assert str(raised.value).startswith(f"{file}:4: {problem}")
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("value", ["9" * 5000, "0" * 5000 + "1"])
@pytest.mark.parametrize("key", ["MaxDumps", "MaxDumpSize", "KeepFree", "DrainTimeoutSec"])
def test_endless_numbers(conf: Path, key: str, value: str) -> None:
    conf.write_text(f"[Vmcoredd]\n{key}={value}\n")
    with pytest.raises(
        InvalidConfiguration, match=rf"vmcoredd.conf:2: {key}=.* is not a (size|number|time)"
    ) as raised:
        load(conf)
    assert len(str(raised.value)) < 400


def test_key_before_any_section(conf: Path) -> None:
    conf.write_text("MaxDumps=1\n")
    with pytest.raises(InvalidConfiguration, match=r"vmcoredd.conf:1: 'MaxDumps' is not in a section"):
        load(conf)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"\x7fELF\x02\x01\x01\x00\x00", b"\x00" * 10_000])
def test_binary_file(conf: Path, content: bytes) -> None:
    conf.write_bytes(content)
    with pytest.raises(InvalidConfiguration, match=re.escape(str(conf))) as raised:
        load(conf)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1000


def test_what_cannot_be_read(conf: Path) -> None:
    conf.mkdir()
    with pytest.raises(InvalidConfiguration, match=rf"^{re.escape(str(conf))}: cannot be read: "):
        load(conf)
    conf.rmdir()
    conf.touch()
    loop = conf.parent / "vmcoredd.conf.d" / "loop.conf"
    loop.symlink_to(loop)
    with pytest.raises(InvalidConfiguration, match=r"loop\.conf: cannot be read: "):
        load(conf)


@given(content=st.binary(max_size=60).map(lambda data: b"[Vmcoredd]\n" + data))
def test_hostile_bytes(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    conf = tmp_path_factory.getbasetemp() / "hostile.conf"
    conf.write_bytes(content)
    with suppress(InvalidConfiguration):
        load(conf)


def problem(file: Path) -> str:
    """Return why a file is refused: one short line of printable text."""
    with pytest.raises(InvalidConfiguration) as raised:
        load(file)
    message = str(raised.value)
    assert message.isprintable()
    assert len(message) < 800
    return message


def test_fuzz() -> None:
    assert 500 < fuzz.run(1000, seed=1) < 950


@pytest.mark.parametrize("text", ["[{}]", "[Vmcoredd]\n{}=1", "[Vmcoredd]\n{}", "{}=1", "[Vmcoredd]\nMaxDumps={}"])
def test_message_is_not_as_long_as_the_line(conf: Path, text: str) -> None:
    conf.write_text(text.format("\x1b\xe9" * 5000))
    assert re.match(rf"{re.escape(str(conf))}:[12]: ", problem(conf))


@pytest.mark.parametrize("name", ["evil\nname.conf", "\x1b[31m.conf", "\u202e.conf", "\udcff.conf"])
def test_file_whose_name_is_no_line_of_text(conf: Path, name: str) -> None:
    drop_in(conf, name, "[Vmcoredd]\nMaxDumps=0\n")
    conf.touch()
    shown = name.encode("unicode_escape").decode().replace("udc", "x")
    assert problem(conf).startswith(f"{conf}.d/{shown}:2: MaxDumps='0' is not")
    assert "MaxDumps" in problem(conf.with_name("vmcoredd.conf.d") / name)


def test_lines_end_as_in_systemd(conf: Path) -> None:
    conf.write_bytes("\ufeff[Vmcoredd]\r\nTarget=/a\u2028b\x0cc\rSpool=/s\nMaxDumps=7\r\n".encode())
    loaded = load(conf)
    assert (loaded.target, loaded.spool, loaded.limits.max_dumps) == (Path("/a\u2028b\x0cc"), Path("/s"), 7)


def test_line_that_goes_on(conf: Path) -> None:
    conf.write_text(
        "[Vmcoredd]\nTarget=\\\n# why\n  /srv/crash\nSpool=/a\\\n\nMaxDumps\\\n=7\nEnabled=\\\nMaxDumps=0\n"
    )
    assert problem(conf).startswith(f"{conf}:9: Enabled='MaxDumps=0' is not a boolean")
    conf.write_text(
        "[Vmcoredd]\nTarget=\\\n# why\n  /srv/crash\n# \\\nSpool=/a\\\n\nMaxDumps\\\n=7\nManifest=no\\"
    )
    loaded = load(conf)
    assert (loaded.target, loaded.spool, loaded.limits.max_dumps) == (Path("/srv/crash"), Path("/a"), 7)
    assert loaded.output.manifest is False


@pytest.mark.timeout(20)
def test_what_is_no_file(conf: Path) -> None:
    os.mkfifo(conf)
    assert problem(conf) == f"{conf}: cannot be read: not a regular file"
    conf.unlink()
    conf.symlink_to("/dev/zero")
    assert problem(conf) == f"{conf}: cannot be read: not a regular file"
    conf.unlink()
    conf.symlink_to("/dev/null")
    assert load(conf) == Configuration()


def test_endless_file_and_line_are_not_kept_in_memory(conf: Path) -> None:
    with conf.open("wb") as file:
        file.truncate(1 << 40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert problem(conf) == f"{conf}: has more than {MAX_SIZE} bytes"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 16 * 1024
    conf.write_text("[Vmcoredd]\nTarget=/" + "x" * MAX_LINE)
    assert problem(conf) == f"{conf}:2: has more than {MAX_LINE} characters"


@pytest.mark.parametrize("name", ["/", ".", ""])
def test_directory_in_place_of_the_file(name: str) -> None:
    assert problem(Path(name)).endswith(": is not the name of a file")


def test_name_that_leaves_no_room_for_that_of_the_directory(tmp_path: Path) -> None:
    file = tmp_path / ("x" * 250 + ".conf")
    file.touch()
    assert problem(file) == f"{file}: cannot look for drop-ins: File name too long"


def test_drop_ins_that_cannot_be_read(conf: Path) -> None:
    conf.touch()
    drop_ins = conf.with_name("vmcoredd.conf.d")
    drop_ins.rmdir()
    drop_ins.symlink_to(drop_ins.name)
    assert problem(conf) == f"{conf}: cannot look for drop-ins: Too many levels of symbolic links"
