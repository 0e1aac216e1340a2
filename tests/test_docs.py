# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples of vmcoredd-collectors(7), as they stand there."""

import os
import re
import textwrap
from pathlib import Path

import pytest

from tests.cli import run
from tests.service import mask_built_in
from vmcoredd_daemon.collectors.builtin import BUILT_IN
from vmcoredd_daemon.collectors.settings import KEYS

TEXT = (Path(__file__).parent.parent / "docs/man/vmcoredd-collectors.7.rst").read_text()
INTERFACES = sorted(os.listdir("/sys/class/net"))


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", TEXT, re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def test_built_in_collectors_are_all_described() -> None:
    _, _, section = TEXT.partition("BUILT-IN COLLECTORS")
    assert sorted(re.findall(r"^``(\w+)``$", section, re.MULTILINE)) == sorted(BUILT_IN)


def test_every_key_is_shown() -> None:
    _, example = blocks("ini")
    assert sorted(re.findall(r"^(\w+)=", example, re.MULTILINE)) == sorted(KEYS)


def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "collectors.d"
    mask_built_in(directory)
    (tmp_path / "vmcoredd.conf").touch()
    for name, text in zip(("kernel", "net"), blocks("ini"), strict=True):
        (directory / f"{name}.conf").write_text(text)
    (tmp_path / "my_package.py").write_text(*blocks("python"))
    (toml,) = blocks("toml")
    package = tmp_path / "my_package-1.dist-info"
    package.mkdir()
    (package / "entry_points.txt").write_text(toml.replace("project.entry-points.", "").replace('"', ""))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = run("run", "-o", tmp_path / "out", "--config", tmp_path / "vmcoredd.conf")
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    made = {file.name: file.read_text() for file in (tmp_path / "out").iterdir()}
    assert made.pop("kernel") == Path("/proc/version").read_text()
    assert sorted(made) == sorted(f"{kind}_{name}" for kind in ("net", "mtu") for name in INTERFACES)
    for name in INTERFACES:
        assert made[f"mtu_{name}"] == Path("/sys/class/net", name, "mtu").read_text()
        assert f"/sys/class/net/{name}/statistics/rx_bytes " in made[f"net_{name}"]
