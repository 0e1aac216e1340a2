# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which decoder reads which device dump, and what is shown if it cannot."""

import importlib
from pathlib import Path

import pytest

from tests.lib.image import image_of
from tests.lib.shell_program import shell_program
from vmcoredd_daemon.collectors.builtin import BUILT_IN as COLLECTORS
from vmcoredd_daemon.decoders.decoded import Decoded
from vmcoredd_daemon.decoders.registry import BUILT_IN, UNKNOWN, Decoders
from vmcoredd_daemon.manifest import ManifestDump
from vmcoredd_daemon.vmcore.inspect.inspect import FoundDump

NONE = Decoders({}, {})


def found(name: str, collector: str = "", size: int = 4, offset: int = 0) -> FoundDump:
    entry = ManifestDump(name, size, size, "", collector, "complete", 1, 2) if collector else None
    return FoundDump(index=0, name=name, offset=offset, size=size, entry=entry)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvme_0000:03:00.0", "nvme"),
        ("ipmi0", "ipmi"),
        ("pci", "pci"),
        ("dmi", "firmware_tables"),
        ("acpi_apei", "firmware_tables"),
        ("crashlog1", "pmt"),
        ("devcd1_0000:01:00.0", "devcoredump"),
        ("devlink_0000:02:00.0", "devlink"),
        ("igb_0000:02:00.0", "ethtool"),
        ("cxgb4_0000:02:00.4", "ethtool"),
        ("vmcoredd_manifest", "manifest"),
        ("acme", UNKNOWN),
        ("\x1b[31m", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_kind_by_dump_name(name: str, kind: str) -> None:
    assert NONE.kind(found(name)) == kind


def test_kind_by_collector() -> None:
    assert NONE.kind(found("disk", "nvme: vmcoredd_daemon.collectors.builtin.nvme.Nvme")) == "nvme"
    assert NONE.kind(found("disk", ":1.21")) == UNKNOWN
    assert NONE.kind(found("nvme_0000:03:00.0", "vmcoredd attach")) == "nvme"


def test_kind_that_the_manifest_states() -> None:
    def stated(kind: str) -> FoundDump:
        entry = ManifestDump("disk", 4, 4, "", "acme.service (acme)", "complete", 1, 2, kind=kind)
        return FoundDump(index=0, name="nvme_0000:03:00.0", offset=0, size=4, entry=entry)

    assert NONE.kind(stated("nvme/1")) == "nvme"
    assert NONE.kind(stated("acme/1")) == UNKNOWN
    assert Decoders({"acme": ("acme-decode",)}, {}).kind(stated("acme/7")) == "acme"
    # A later collector of ours may write what this decoder would misread.
    assert NONE.kind(stated("nvme/2")) == UNKNOWN
    assert NONE.kind(stated("")) == "nvme"


def test_others_come_before_ours() -> None:
    others = Decoders({"acme": ("acme-decode",)}, {"nvme": lambda: lambda name, data: Decoded("theirs")})
    assert others.kind(found("acme_eth0")) == "acme"
    assert others.kind(found("acme2")) == "acme"
    assert others.kind(found("acmes")) == UNKNOWN
    assert others.decode(image_of(b"data"), found("nvme_0000:03:00.0")).title == "theirs"


def test_every_collector_has_a_decoder() -> None:
    assert BUILT_IN.keys() - {"manifest"} == COLLECTORS.keys()
    for name in (*BUILT_IN, UNKNOWN):
        assert callable(importlib.import_module(f"vmcoredd_daemon.decoders.builtin.{name}").decode)


def test_what_cannot_be_decoded_is_shown_as_it_is() -> None:
    """A manifest may lie, and a name may be another's."""
    text = b"a log of another kind\n"
    decoded = NONE.decode(image_of(text), found("nvme_0000:03:00.0", size=len(text)))
    assert len(decoded.problems) == 1
    assert decoded.problems[0].startswith("nvme: no archive")
    assert "a log of another kind" in str(decoded.sections)
    # A driver's own device dump, which only has the name of one of ours, is no problem.
    decoded = NONE.decode(image_of(text), found("cxgb4_0000:02:00.4", size=len(text)))
    assert decoded.problems == ()
    assert "a log of another kind" in str(decoded.sections)


def test_package_that_cannot_be_imported_costs_its_own_text() -> None:
    def load() -> object:
        raise ImportError("no module acme")

    decoded = Decoders({}, {"acme": load}).decode(image_of(b"text\n"), found("acme", size=5))  # type: ignore[dict-item]
    assert decoded.problems == ("acme: the decoder failed: ImportError: no module acme",)
    assert "text" in str(decoded.sections)


def test_program_of_a_collector(tmp_path: Path) -> None:
    program = shell_program(tmp_path / "decode", "echo 'Acme'; cat")
    decoded = Decoders({"acme": (str(program),)}, {}).decode(image_of(b"..text..."), found("acme", offset=2))
    assert decoded.title == "Acme"
    assert "text" in str(decoded.sections)
    assert ".text" not in str(decoded.sections)


def test_data_that_cannot_be_read_are_a_problem() -> None:
    """The vmcore ends within the device dump."""
    decoded = NONE.decode(image_of(b"12"), found("nvme_0000:03:00.0", size=4096))
    assert decoded.problems != ()


def test_entry_points_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_decoder.py").write_text(
        "from vmcoredd_daemon.decoders.decoded import Decoded\n"
        "def decode(dump_name, data):\n    return Decoded(f'{dump_name} has {len(data.read())} bytes')\n"
    )
    metadata = tmp_path / "acme-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[vmcoredd.decoders]\nacme = acme_decoder:decode\n")
    monkeypatch.syspath_prepend(tmp_path)
    decoders = Decoders.load()
    assert decoders.decode(image_of(b"text"), found("acme_7")).title == "acme_7 has 4 bytes"
