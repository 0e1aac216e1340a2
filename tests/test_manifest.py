# SPDX-License-Identifier: LGPL-2.1-or-later
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmcoredd_daemon.errors import InvalidArgs, InvalidVmcore
from vmcoredd_daemon.manifest import (
    Failure,
    IdleCollector,
    Manifest,
    ManifestDump,
    ManifestMachine,
    ManifestSource,
    check_kind,
    kind_of,
    load,
    load_dump,
)

DUMP = ManifestDump("nic0", 100, 4096, "ab" * 32, ":1.7/org/example", "complete", 1, 2)
MANIFEST = Manifest("vmcoredd 0", 3, (DUMP,), (Failure("bad", "x", "org.vmcoredd1.Error.TimedOut", "late", 4),), 5)

usecs = st.integers(0, 2**64)
dumps = st.builds(ManifestDump, st.text(), usecs, usecs, st.text(), st.text(), st.text(), usecs, usecs)
failures = st.builds(Failure, st.text(), st.text(), st.text(), st.text(), usecs)
sources = st.builds(ManifestSource, st.text(), usecs, usecs, st.text())
machines = st.builds(ManifestMachine, *[st.text()] * 8)
idle = st.builds(IdleCollector, st.text(), st.text())
manifests = st.builds(
    Manifest,
    st.text(),
    usecs,
    st.lists(dumps, max_size=3).map(tuple),
    st.lists(failures, max_size=3).map(tuple),
    usecs,
    sources,
    machines,
    st.lists(idle, max_size=3).map(tuple),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(manifests, st.integers(0, 5000))
def test_manifest_round_trip_with_its_padding(manifest: Manifest, padding: int) -> None:
    assert load(manifest.dump() + bytes(padding)) == manifest


@given(dumps)
def test_dump_round_trip(dump: ManifestDump) -> None:
    assert load_dump(dump.dump()) == dump


def test_format_is_what_the_documentation_says() -> None:
    assert json.loads(MANIFEST.dump()) == {
        "version": 1,
        "producer": "vmcoredd 0",
        "written_usec": 3,
        "device_dumps": [
            {
                "name": "nic0",
                "size": 100,
                "limit": 4096,
                "sha256": "ab" * 32,
                "collector": ":1.7/org/example",
                "state": "complete",
                "started_usec": 1,
                "finished_usec": 2,
                "error": "",
                "kind": "",
            }
        ],
        "failures": [
            {
                "name": "bad",
                "collector": "x",
                "error": "org.vmcoredd1.Error.TimedOut",
                "message": "late",
                "time_usec": 4,
            }
        ],
        "failures_forgotten": 5,
        "source": {"path": "", "unreadable_pages": 0, "missing_bytes": 0, "error": "", "fallback": ""},
        "machine": dict.fromkeys(
            ("host", "kernel_release", "machine_id", "boot_id", "vendor", "product", "serial", "bios"), ""
        ),
        "idle_collectors": [],
    }


def test_manifest_of_version_0_1() -> None:
    """It has neither machine nor idle_collectors, and no kinds."""
    content = json.loads(MANIFEST.dump())
    del content["machine"], content["idle_collectors"], content["device_dumps"][0]["kind"]
    assert load(json.dumps(content).encode()) == MANIFEST


def test_text_is_ascii_on_one_line() -> None:
    text = Manifest("ü\n\u2028", 0, ()).dump()
    assert text.isascii()
    assert b"\n" not in text


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"version": 2}, "not of version 1"),
        ({"version": None}, "not of version 1"),
        ({"producer": 1}, "producer is not of type str"),
        ({"written_usec": True}, "written_usec is not of type int"),
        ({"written_usec": 1.5}, "written_usec is not of type int"),
        ({"device_dumps": {}}, "device_dumps is not of type list"),
        ({"device_dumps": ["nic0"]}, "device_dumps holds str, not an object"),
        ({"device_dumps": [{}]}, "name is not of type str"),
        ({"device_dumps": [{"name": "x", "size": "100"}]}, "size is not of type int"),
        ({"failures": [None]}, "failures holds NoneType, not an object"),
        ({"source": []}, "source is not of type dict"),
        ({"source": {"path": ""}}, "unreadable_pages is not of type int"),
        ({"machine": []}, "machine holds list, not an object"),
        ({"machine": {"host": 5}}, "host is not of type str"),
        ({"idle_collectors": {}}, "idle_collectors is not of type list"),
        ({"idle_collectors": [{"name": "nvme"}]}, "reason is not of type str"),
    ],
)
def test_wrong_content_is_named(changes: dict[str, Any], problem: str) -> None:
    content = json.loads(MANIFEST.dump()) | changes
    with pytest.raises(InvalidVmcore, match=problem):
        load(json.dumps(content).encode())


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"{", b"[" * 100_000, b"\xff\xfe\xfd", b"1", b"null", b"[]"])
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(InvalidVmcore, match=r"^vmcoredd_manifest: not "):
        load(data)
    with pytest.raises(InvalidVmcore):
        load_dump(data)


def test_more_members_are_for_later_versions() -> None:
    content = json.loads(MANIFEST.dump()) | {"later": 1}
    content["device_dumps"][0]["later"] = []
    assert load(json.dumps(content).encode()) == MANIFEST


@given(st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
def test_hostile_bytes(data: bytes) -> None:
    for read in (load, load_dump):
        with pytest.raises(InvalidVmcore):
            read(data)


@given(st.data())
def test_hostile_values(data: st.DataObject) -> None:
    content = json.loads(MANIFEST.dump())
    key = data.draw(st.sampled_from(sorted(content)))
    content[key] = data.draw(json_values)
    text = json.dumps(content).encode()
    with suppress(InvalidVmcore):
        assert isinstance(load(text), Manifest)


@pytest.mark.parametrize("kind", ["", "nvme/1", "acme-hba/42", "a.b:c/0"])
def test_kinds(kind: str) -> None:
    check_kind(kind)


@pytest.mark.parametrize(
    "kind", ["nvme", "/1", "nvme/", "nvme/x", "a/b/1", "a b/1", "\x1b/1", "\u00e9/1", "a/\u0661", "a" * 65 + "/1"]
)
def test_what_is_no_kind(kind: str) -> None:
    with pytest.raises(InvalidArgs, match=r"^kind '.*' is not NAME/VERSION, a name and a number$"):
        check_kind(kind)
    assert kind_of(kind, 1) in {"", f"{kind}/1"}


def test_kind_of_a_collector() -> None:
    assert kind_of("nvme", 2) == "nvme/2"
    assert kind_of("else\nwhere", 1) == ""
