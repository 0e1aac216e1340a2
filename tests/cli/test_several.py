# SPDX-License-Identifier: LGPL-2.1-or-later
"""inspect and verify of several vmcores, and of directories: each as if it were alone, the worst exit status."""

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.lib.vmcoredd import run, run_in_terminal


@pytest.fixture
def two(vmcore: Path) -> list[Path]:
    """Crash directories with a vmcore each, in the order of their names."""
    paths = []
    for name in ("node1-2026-11-24-10:20:30", "node2-2026-11-24-10:20:30"):
        (vmcore.parent / "crash" / name).mkdir(parents=True)
        paths.append(Path(shutil.copy(vmcore, vmcore.parent / "crash" / name / "vmcore")))
        paths[-1].with_name("vmcore-dmesg.txt").write_text("BUG: bad\n")
    return paths


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_texts_are_separated_by_an_empty_line(two: list[Path], command: str) -> None:
    alone = [run(command, path).stdout for path in two]
    expected = "\n".join(alone)
    assert run(command, *two).stdout == expected
    assert run(command, two[0].parent.parent).stdout == expected
    assert run(command, two[0], two[1].parent).stdout == expected
    # The directory is said to be one, even if it has one vmcore.
    assert run(command, two[0].parent).stdout == alone[0]


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_json_of_several_is_a_list(two: list[Path], command: str) -> None:
    alone = [json.loads(run(command, "--json", path).stdout) for path in two]
    assert [found["path"] for found in alone] == [str(path) for path in two]
    assert json.loads(run(command, "--json", *two).stdout) == alone
    assert json.loads(run(command, "--json=pretty", two[0].parent.parent).stdout) == alone
    assert json.loads(run(command, "--json", two[0].parent).stdout) == alone[:1]
    for operands in (two, [two[0].parent.parent]):
        lines = run(command, "--json=lines", *operands).stdout.splitlines()
        assert [json.loads(line) for line in lines] == alone
    (line,) = run(command, "--json=lines", two[0]).stdout.splitlines()
    assert json.loads(line) == alone[0]


def test_one_that_is_bad_costs_only_its_own(two: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("hello")
    expected = run("inspect", *two).stdout
    for operands in ([tmp_path / "bad", *two], [two[0], tmp_path / "bad", two[1]]):
        result = run("inspect", *operands)
        assert (result.returncode, result.stdout) == (1, expected)
        assert result.stderr == f"vmcoredd: {tmp_path}/bad: is neither ELF, kdump-compressed nor flattened\n"
    result = run("inspect", tmp_path / "bad", tmp_path / "nothing", "--json")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 2)


def test_verify_has_the_worst_status(two: list[Path], altered: Path) -> None:
    good = run("verify", two[0])
    bad = run("verify", altered)
    result = run("verify", two[0], altered, two[1])
    assert result.returncode == 1
    assert result.stderr == good.stderr + bad.stderr + run("verify", two[1]).stderr
    lines = run("verify", "--json=lines", two[0], altered, two[1]).stdout.splitlines()
    assert [json.loads(line)["checksums"]["altered"] for line in lines] == [0, 1, 0]


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_directory_without_a_vmcore(tmp_path: Path, command: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "vmcore-dmesg.txt").write_text("BUG: bad\n")
    for options in ([], ["--json"], ["--json=lines"]):
        result = run(command, *options, tmp_path / "empty")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"vmcoredd: {tmp_path}/empty: is a directory without a vmcore\n"


def test_compressed_and_incomplete_ones_in_a_directory(two: list[Path]) -> None:
    packed = two[0].with_name("vmcore.gz")
    packed.write_bytes(gzip.compress(two[0].read_bytes()))
    two[0].unlink()
    two[1].with_name("vmcore-incomplete").touch()
    result = run("verify", "--json=lines", two[0].parent.parent)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(Path(each["path"]).name, each["device_dump_count"]) for each in found] == [
        ("vmcore.gz", 3),
        ("vmcore", 3),
        ("vmcore-incomplete", None),
    ]
    assert result.returncode == 1
    assert f"{two[1]}-incomplete: the file is empty" in result.stderr


def test_map_is_of_one_file(two: list[Path]) -> None:
    result = run("inspect", "--map", *two)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "vmcoredd: inspect --map takes one VMCORE\n"
    (line,) = run("inspect", "--map", "--json=lines", two[0]).stdout.splitlines()
    assert len(json.loads(line)["map"]) > 3


def test_no_pager_for_what_comes_one_after_the_other(two: list[Path], tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho paged\nexec cat > /dev/null\n")
    pager.chmod(0o755)
    environment = {"TERM": "linux", "SYSTEMD_PAGER": str(pager)}
    assert run_in_terminal(80, "inspect", two[0], rows=4, **environment) == ["paged"]
    assert "paged" not in run_in_terminal(80, "inspect", *two, rows=4, **environment)


def test_memory_stays_flat(two: list[Path]) -> None:
    """JSON of many, one a line: nothing of a vmcore is kept when it is shown."""
    crash = two[0].parent.parent
    for number in range(60):
        directory = crash / f"node3-2026-11-24-10:20:{number:02}"
        directory.mkdir()
        os.link(two[0], directory / "vmcore")
    lines = run("inspect", "--json=lines", crash).stdout.splitlines()
    assert len(lines) == 62
    assert len({json.loads(line)["path"] for line in lines}) == 62
