# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcoredd check in machines that are set up by docs/kdump.md, and then with one mistake each."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kdump import debian
from tests.lib.tools import skip_or_fail

# Building the root counts as part of the test.
pytestmark = [pytest.mark.qemu, pytest.mark.kdump_matrix, pytest.mark.timeout(900)]


@dataclass(frozen=True, slots=True)
class Mistake:
    """What makes it, in shell; *file* is saved before, and put back."""

    file: str
    script: str
    expected: str


CONF = "/etc/vmcoredd/vmcoredd.conf.d/x.conf"
VENDOR = "/etc/vmcoredd/collectors.d/vendor.conf"
DEFAULTS = "/etc/default/kdump-tools"
UNIT = "/etc/systemd/system/my-registers.service"
WANTS = "/etc/systemd/system/vmcoredd-capture.target.wants/my-registers.service"
MISTAKES = (
    Mistake(DEFAULTS, f"sed -i s/USE_KDUMP=1/USE_KDUMP=0/ {DEFAULTS}", "kdump-tools: "),
    Mistake(DEFAULTS, f"echo 'makedumpfile() {{ cp \"$@\"; }}' >> {DEFAULTS}", "kdump-tools: a shell function"),
    Mistake(
        DEFAULTS, f"echo 'KDUMP_CMDLINE_APPEND=\"nr_cpus=1\"' >> {DEFAULTS}", "kdump-tools: the capture kernel"
    ),
    Mistake("/usr/bin/makedumpfile", "rm /usr/bin/makedumpfile", "kdump-tools: makedumpfile is missing"),
    Mistake(CONF, f"printf '[Vmcoredd]\\nFormat=elf\\n' > {CONF}", "kdump-tools: Format=elf"),
    Mistake(CONF, f"printf '[Vmcoredd]\\nEnabled=no\\n' > {CONF}", "configuration: Enabled=no"),
    Mistake(CONF, f"printf '[Vmcoredd]\\nKeepFree=4G\\n' > {CONF}", "spool: "),
    Mistake(CONF, "echo nonsense > " + CONF, "configuration: "),
    Mistake(VENDOR, f"printf '[Collector]\\nExec=missing\\n' > {VENDOR}", "collectors: vendor: program missing"),
    # The spool leaves most of the disk to kdump-tools.
    Mistake(VENDOR, f"printf '[Collector]\\nExec=true\\nSize=200M\\n' > {VENDOR}", "spool: "),
    Mistake(UNIT, f"sed -i /TimeoutStartSec/d {UNIT}", "units: my-registers.service: has no time limit"),
    Mistake(UNIT, f"sed -i /After=/d {UNIT}", "units: my-registers.service: may run before"),
    Mistake(UNIT, f"rm {UNIT}", "units: my-registers.service: its unit file is missing"),
    Mistake(WANTS, "systemctl disable my-registers.service", "units: my-registers.service is for"),
    Mistake(
        "/usr/share/dbus-1/system.d/org.vmcoredd1.conf",
        "rm /usr/share/dbus-1/system.d/org.vmcoredd1.conf",
        "message bus: ",
    ),
    Mistake(
        "/var/crash/.vmcoredd-spool",
        "mkdir -p /var/crash/.vmcoredd-spool/0-1-2-3-4; touch /var/crash/.vmcoredd-spool/0-1-2-3-4/000000.note",
        "spool: 1 device dump",
    ),
    Mistake("/var/crash", "mount -t tmpfs tmpfs /var/crash", "target: /var/crash is in memory"),
    Mistake(
        "/filler",
        "fallocate -l $(($(df --output=avail -B1 / | tail -1) - 4096)) /filler",
        "target: /var/crash has",
    ),
    # kdump-tools would need a minute to load it again.
    Mistake("/filler", "kexec -p -u", "capture kernel: it is not loaded"),
)
HARNESS = """\
check() { vmcoredd check --json=short 2>/dev/null; }
mistake() {
    rm -rf /root/saved; mkdir /root/saved
    [ ! -e "$1" ] || cp -a "$1" /root/saved/it
    sh -c "$2" > /dev/null 2>&1
    check
    umount "$1" 2>/dev/null
    rm -rf "$1"
    mkdir -p "$(dirname "$1")"
    [ ! -e /root/saved/it ] || mv /root/saved/it "$1"
}
rm /etc/systemd/system/vmcoredd-capture.target.wants/endless.service
rm /etc/systemd/system/vmcoredd-capture.target.wants/large.service
check
"""


@pytest.fixture(scope="module", params=debian.SUITES)
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root file system of a Debian with kdump-tools and us."""
    skip_or_fail(debian.missing_tools())
    root = debian.build_root(tmp_path_factory.mktemp("debian"), request.param)
    yield root
    shutil.rmtree(root)


def test_mistakes(root: Path, tmp_path: Path) -> None:
    calls = (f"mistake {shlex.quote(each.file)} {shlex.quote(each.script)}\n" for each in MISTAKES)
    printed = debian.run_instead_of_panic(root, tmp_path, HARNESS + "".join(calls))
    good, *others = map(json.loads, printed.splitlines())
    assert {finding["state"] for finding in good} == {"ok"}, good
    for mistake, findings in zip(MISTAKES, others, strict=True):
        bad = [f"{each['check']}: {each['finding']}" for each in findings if each["state"] == "problem"]
        assert bad, mistake
        assert bad[0].startswith(mistake.expected), (mistake, bad)
