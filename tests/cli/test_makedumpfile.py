# SPDX-License-Identifier: LGPL-2.1-or-later
"""Command lines of makedumpfile; the program itself says which are good."""

import subprocess

import pytest

from tests.lib.tools import require
from vmcoredd_daemon.cli.core_collector.makedumpfile import parse


@pytest.mark.parametrize(
    ("line", "operands"),
    [
        ("-l --message-level 7 -d 31 /proc/vmcore vmcore", ["/proc/vmcore", "vmcore"]),
        ("-ld31 --message-level=7 a b", ["a", "b"]),
        ("-cd 31 a b", ["a", "b"]),
        ("a -d 31 b -l", ["a", "b"]),
        ("-E -b 2 -i vmcoreinfo a b", ["a", "b"]),
        ("-x vmlinux --conf filter a b", ["a", "b"]),
        ("--num 2 --work /tmp a b", ["a", "b"]),
        ("--non-mmap --show-stats -D -f -X -e a b", ["a", "b"]),
        ("--vtop 1 -L 4G --cyclic-buffer 4 --splitblock 2 a b", ["a", "b"]),
        ("--xen-s syms a b", ["a", "b"]),
        ("-l -- -a b", ["-a", "b"]),
        ("- b", ["-", "b"]),
        ("-l a b --vmcoredd-timeout=3", ["a", "b"]),
        ("/usr/bin/makedumpfile -l a b", ["a", "b"]),
    ],
)
def test_one_dump(line: str, operands: list[str]) -> None:
    call = parse(line.split())
    assert call.writes_a_dump
    assert not call.flattened
    assert call.operands == operands


@pytest.mark.parametrize(
    "line", ["-F -l -d 31 /proc/vmcore", "-lFd31 a", "a -F", "-d 31 --message-level 7 -l -F a"]
)
def test_flattened_dump(line: str) -> None:
    call = parse(line.split())
    assert call.writes_a_dump
    assert call.flattened


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-h",
        "--help",
        "-v",
        "--dump-dmesg a b",
        "--dump a b",
        "--dump-dmesg --partial a b",
        "--mem-usage /proc/kcore",
        "-f --mem /proc/kcore",
        "-R b",
        "--split -l a b c",
        "--reassemble a b c",
        "-g vmcoreinfo -x vmlinux",
        "--check-params -l a b",
        "--dry-run -l a b",
        "--diskset=a b",
        "-l a",
        "-l a b c",
        "-F a b",
        "-d a b",
    ],
)
def test_what_is_not_one_dump(line: str) -> None:
    assert not parse(line.split()).writes_a_dump


@pytest.mark.parametrize(
    "option", ["--brand-new", "--brand-new=3", "--x", "--d", "-y", "-ly", "-:", "--work-dirs"]
)
def test_options_that_are_not_known(option: str) -> None:
    call = parse([option, "a", "b"])
    assert call.unknown == option
    assert not call.writes_a_dump
    assert call.arguments == [option, "a", "b"]


def test_arguments_are_passed_on_as_they_are_but_for_ours() -> None:
    words = [
        "-x",
        "--vmcoredd-config=x",
        "a",
        "--vmcoredd-config=/etc/x",
        "-d31",
        "b",
        "--",
        "--vmcoredd-timeout=1",
    ]
    call = parse(words)
    assert call.arguments == ["-x", "--vmcoredd-config=x", "a", "-d31", "b", "--", "--vmcoredd-timeout=1"]
    assert call.own == {"config": "/etc/x"}
    assert call.problems == []


@pytest.mark.parametrize("option", ["--vmcoredd-", "--vmcoredd-config", "--vmcoredd-config=", "--vmcoredd-new=1"])
def test_bad_options_of_ours_are_left_out(option: str) -> None:
    call = parse([option, "a", "b"])
    assert (call.arguments, call.writes_a_dump) == (["a", "b"], True)
    (problem,) = call.problems
    assert problem.startswith(f"{option!a} is ignored: ")


@pytest.mark.parametrize("program", ["makedumpfile", "/usr/bin/makedumpfile"])
def test_program_may_be_named(program: str) -> None:
    call = parse(["--vmcoredd-timeout=1", program, "-l", "a", "makedumpfile"])
    assert (call.program, call.operands) == (program, ["a", "makedumpfile"])


# Options that every makedumpfile from 1.7.2 on has.
KNOWN = [
    "-ld31 a b",
    "--message 7 -cd 31 a b",
    "-F -l -d 31 a",
    "-F a b",
    "a -d 31 b -l",
    "--non -D -f a b",
    "--num-threads=2 a b",
    "-l a",
    "-l -- -a b",
    "-b 2 -x vmlinux --cyc 4 a b",
]


@pytest.mark.parametrize("line", KNOWN)
def test_makedumpfile_reads_them_alike(line: str) -> None:
    require("makedumpfile")
    command = ["makedumpfile", "--check-params", *line.split()]
    status = subprocess.run(command, capture_output=True, check=False).returncode
    assert parse(line.split()).writes_a_dump == (status == 0)
