# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the documents say: the examples of vmcoredd-collectors(7) run, and what they quote and name is there."""

import ast
import os
import re
import subprocess
import textwrap
from pathlib import Path

import pytest

import vmcoredd_daemon
from tests.lib.attaching import contents
from tests.lib.elf_writer import Core, device_dump
from tests.lib.paths import ROOT
from tests.lib.service import Service, mask_built_in
from tests.lib.tools import require
from tests.lib.vmcoredd import run
from vmcoredd_daemon.collectors import settings
from vmcoredd_daemon.collectors.builtin import BUILT_IN
from vmcoredd_daemon.config.config import KEYS

# Where Debian tests its package, the code is not beside the tests.
PACKAGE = Path(vmcoredd_daemon.__file__).parent
TEXT = (ROOT / "docs/man/vmcoredd-collectors.7.rst").read_text()
INTERFACES = sorted(os.listdir("/sys/class/net"))


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", TEXT, re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def test_built_in_collectors_are_all_described() -> None:
    section = TEXT.partition("BUILT-IN COLLECTORS")[2].partition("A COMMAND")[0]
    assert set(BUILT_IN) <= set(re.findall(r"``(\w+)``", section))


def test_every_key_is_shown() -> None:
    _, example = blocks("ini")
    assert sorted(re.findall(r"^(\w+)=", example, re.MULTILINE)) == sorted(settings.KEYS)


def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "collectors.d"
    mask_built_in(directory)
    (tmp_path / "vmcoredd.conf").touch()
    for name, text in zip(("kernel", "net"), blocks("ini"), strict=True):
        (directory / f"{name}.conf").write_text(text)
    decoder, collector = blocks("python")
    (tmp_path / "acme_nic.py").write_text(decoder)
    (tmp_path / "my_package.py").write_text(collector)
    toml = "\n".join(blocks("toml"))
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
    # The decoders: of one collector a program, and of a device dump called acme a function.
    vmcore = Core(device_dump(b"acme", (95).to_bytes(2, "little"))).write(tmp_path / "vmcore")
    run("attach", vmcore, f"net_lo={tmp_path}/out/net_lo")
    shown = run("show", vmcore, "--config", tmp_path / "vmcoredd.conf")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Acme NIC, 95 C" in shown.stdout
    assert re.search(r"^net_lo +lo/statistics/", shown.stdout, re.MULTILINE)


def compiled(number: int, directory: Path) -> Path:
    """One of the examples in C, as a program."""
    require("gcc", "pkg-config")
    source, program = directory / f"helper{number}.c", directory / f"helper{number}"
    source.write_text(blocks("c")[number])
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libsystemd"], capture_output=True, text=True, check=True
    )
    warnings = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *warnings, "-o", program, source, *flags.stdout.split()], check=True)
    return program


def test_examples_in_c(daemon: Service, tmp_path: Path) -> None:
    environment = {"DBUS_SYSTEM_BUS_ADDRESS": str(daemon.address)}
    device = tmp_path / "resource0"
    # Neither a multiple of what is read in one go, nor without zeros.
    device.write_bytes(bytes(i * 7 & 0xFF for i in range(300_001)))
    by_descriptor, called_back = (compiled(number, tmp_path) for number in range(2))

    def helper(*command: Path | str) -> tuple[int, str]:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    assert helper(by_descriptor) == (0, "")
    assert helper(by_descriptor) == (1, "nic_state: device dump nic_state: the name is in use\n")
    assert helper(called_back, "nic_0000:02:00.4", device) == (0, "")
    status, reason = helper(called_back, "gone_0000:03:00.0", tmp_path / "gone")
    assert status == 1
    assert "device dump gone_0000:03:00.0: collector " in reason
    assert "/collector failed: org.freedesktop.DBus.Error.FileNotFound: No such file or directory\n" in reason
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(3 << 20)
    assert helper(called_back, "big", big) == (0, "")
    assert daemon.stop() == 0
    assert contents(daemon.vmcore()) == {
        "nic_state": b"link down, 17 frames lost\n",
        "nic_0000:02:00.4": device.read_bytes(),
        "big": bytes(1 << 20),
    }


def test_example_in_c_without_a_service(bus_address: str, tmp_path: Path) -> None:
    environment = {"DBUS_SYSTEM_BUS_ADDRESS": bus_address}
    for number in range(2):
        command = [compiled(number, tmp_path), "nic", "/dev/null"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert "org.vmcoredd1 was not provided by any .service files" in done.stderr


def test_promises_are_held_by_tests_that_exist() -> None:
    tests = ROOT / "tests"
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (tests.parent / "docs" / "promises.md").read_text())
    assert len(named) > 20
    for file, test in named:
        assert re.search(rf"^(async )?def {test}\(", (tests / file).read_text(), re.MULTILINE), f"{file}::{test}"


def test_files_of_run_are_private_and_follow_no_link(tmp_path: Path) -> None:
    mask_built_in(tmp_path / "collectors.d")
    (tmp_path / "vmcoredd.conf").touch()
    (tmp_path / "collectors.d/mine.conf").write_text("[Collector]\nExec=echo mine\n")
    (tmp_path / "out").mkdir()
    for name in ("mine", "mine.incomplete"):
        (tmp_path / "out" / name).symlink_to("../precious")
    (tmp_path / "precious").write_text("of others")
    result = run("run", "-o", tmp_path / "out", "--config", tmp_path / "vmcoredd.conf")
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert (tmp_path / "precious").read_text() == "of others"
    assert not (tmp_path / "out/mine").is_symlink()
    assert (tmp_path / "out/mine").read_text() == "mine\n"
    assert (tmp_path / "out/mine").stat().st_mode & 0o777 == 0o600


def texts_of_the_code() -> list[str]:
    """All texts in the code, with an ellipsis in place of each value."""
    scripts = (ROOT / "systemd" / name for name in ("save-plain", "vmcoredd-core-collector"))
    texts = [re.sub(r"\$\w+", "…", script.read_text()) for script in scripts]
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            found = [part.value if isinstance(part, ast.Constant) else "…" for part in parts]
            if isinstance(node, ast.JoinedStr | ast.Constant) and isinstance(found[0], str):
                texts.append(re.sub(r"%[sd]", "…", "".join(map(str, found))))
    return texts


def test_quoted_messages_are_those_of_the_code() -> None:
    quoted = re.findall(r"^> (.*)$", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) >= 40
    texts = texts_of_the_code()
    assert [message for message in quoted if not any(message in text for text in texts)] == []


def test_keys_and_units_that_are_named_exist() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text()
    of_systemd = {"TimeoutStartSec", "OOMScoreAdjust", "WantedBy", "After", "Type"}
    named = set(re.findall(r"\b([A-Z]\w+)=", text)) - of_systemd
    assert named <= {*settings.KEYS, *KEYS}
    units = re.findall(r"\b(vmcoredd-[\w-]+\.(?:service|target))", text)
    assert units
    for unit in units:
        assert (ROOT / "systemd" / unit).exists()


def test_links_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    links = [
        (document, link) for document in documents for link in re.findall(r"\]\(([^):#]+)\)", document.read_text())
    ]
    assert len(links) > 20
    assert [f"{document}: {link}" for document, link in links if not (document.parent / link).exists()] == []
