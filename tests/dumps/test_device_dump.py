# SPDX-License-Identifier: LGPL-2.1-or-later
import errno

from vmcoredd_daemon.config.limits import Limits
from vmcoredd_daemon.dumps.device_dump import Change, DeviceDump, Usage
from vmcoredd_daemon.errors import CollectorFailed
from vmcoredd_daemon.manifest import Failure, ManifestDump, State
from vmcoredd_daemon.note import MAX_NOTES_END, DeviceDumpNote

RECORD = ManifestDump("nic0", 100, 5000, "ab" * 32, ":1.7/nic", "truncated", 1, 2)


def test_record_is_what_it_was_restored_from() -> None:
    dump = DeviceDump.restored(7, RECORD, DeviceDumpNote("nic0", 3, 8192, 100, "ab" * 32))
    assert dump.record() == RECORD
    assert (dump.number, dump.note_size, dump.state) == (7, 8192, State.TRUNCATED)


def test_failure_names_the_error() -> None:
    error = CollectorFailed("no device", errno.ENODEV)
    dump = DeviceDump(1, "nic0", 100, 4096, ":1.7/nic", 1, State.FAILED, finished_usec=5, error=error)
    assert dump.failure() == Failure("nic0", ":1.7/nic", "org.vmcoredd1.Error.CollectorFailed", "no device", 5)


def test_default_limits_are_what_crash_can_read() -> None:
    assert Limits().max_dumps <= 64
    assert Limits().max_dump_size <= Limits().max_total_size < MAX_NOTES_END


def test_names_and_bytes_that_are_taken() -> None:
    usage = Usage()
    first, other, same = (
        DeviceDump(number, name, 100, 4096, "", 1) for number, name in enumerate(["a", "b", "a"])
    )
    usage.changed(Change.RESERVED, first)
    usage.changed(Change.ADDED, first)
    usage.add(other)
    assert (len(usage), usage.size, "a" in usage, "b" in usage) == (2, 8192, True, True)
    # One that is remembered as failed frees nothing of the other that has its name, and nothing twice.
    usage.changed(Change.RESERVED, same)
    for change in (Change.FAILED, Change.REMOVED):
        usage.changed(change, same)
        assert (len(usage), usage.size, "a" in usage) == (2, 8192, True)
    usage.changed(Change.REMOVED, first)
    assert (len(usage), usage.size, "a" in usage, "b" in usage) == (1, 4096, False, True)
