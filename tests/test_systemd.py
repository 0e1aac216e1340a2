# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes to systemd, dracut and initramfs-tools, judged by these themselves; tests/kdump boots it."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import vmcoredd_daemon
from tests.lib import external_tools as judges
from tests.lib.paths import ROOT
from tests.lib.service import Service
from tests.lib.shell_program import shell_program
from tests.lib.tools import installed_program, require
from tests.lib.vmcoredd import run as cli
from vmcoredd_daemon.collectors.builtin import BUILT_IN
from vmcoredd_daemon.config.config import KEYS, Configuration, load
from vmcoredd_daemon.journal import Event

SYSTEMD = ROOT / "systemd"
PROGRAM = installed_program("vmcoredd-daemon")
HOST_UNITS = Path("/usr/lib/systemd/system")
HOOKS = Path("usr/share/initramfs-tools/hooks")

MAX_EXPOSURE = 4.6
"""Of systemd-analyze security; vmcoredd.service says what it leaves open, and why."""
MAX_EXPOSURE_OF_NORMAL_BOOTS = 3.0


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A root directory with our files."""
    root = tmp_path / "root"
    subprocess.run([SYSTEMD / "install", root], check=True)
    return root


@pytest.fixture
def listed(installed: Path, tmp_path: Path) -> dict[str, str]:
    """The files that the interpreter says it loads, by their paths in an initramfs."""
    staging = tmp_path / "staging"
    staging.mkdir()
    python = PROGRAM.read_text().splitlines()[0].removeprefix("#!").strip()
    command = [python, installed / "usr/lib/vmcoredd/loaded-files", staging]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {destination: file for file, destination in (line.split("\t") for line in lines)}


def test_units_are_verified(installed: Path) -> None:
    require("systemd-analyze")
    shutil.copytree(HOST_UNITS, installed / HOST_UNITS.relative_to("/"), symlinks=True, dirs_exist_ok=True)
    for link in filter(Path.is_symlink, HOST_UNITS.rglob("*")):
        file = link.resolve()
        # Debian 13 links to dracut's modules.
        if not link.readlink().is_absolute() and not file.is_relative_to(HOST_UNITS):
            copy = installed / file.relative_to("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    for name in ("vmcoredd", "vmcoredd-daemon", "systemctl"):
        program = installed / "usr/bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_bytes(b"")
        program.chmod(0o755)
    units = ["vmcoredd.service", "vmcoredd-plain.service", "vmcoredd-capture.target"]
    units += ["vmcoredd-collect@my-driver.service", "vmcoredd-resolve.service"]
    units += [f"vmcoredd-finish@{verb}.service" for verb in ("reboot", "poweroff", "halt")]
    verify = analyze("verify", "--man=no", f"--root={installed}", *units)
    assert (verify.returncode, verify.stdout, verify.stderr) == (0, "", "")


def test_service_is_not_more_exposed_than_it_says(installed: Path) -> None:
    require("systemd-analyze")
    security = analyze("security", "--no-pager", "--offline=true", f"--root={installed}", "vmcoredd.service")
    exposure = re.search(r"Overall exposure level for vmcoredd.service: ([\d.]+)", security.stdout)
    assert exposure is not None, security.stderr
    assert float(exposure[1]) <= MAX_EXPOSURE


def test_unit_of_normal_boots_is_confined(installed: Path) -> None:
    require("systemd-analyze")
    name = "vmcoredd-resolve.service"
    security = analyze("security", "--no-pager", "--offline=true", f"--root={installed}", name)
    exposure = re.search(rf"Overall exposure level for {name}: ([\d.]+)", security.stdout)
    assert exposure is not None, security.stderr
    assert float(exposure[1]) <= MAX_EXPOSURE_OF_NORMAL_BOOTS


def test_unit_of_normal_boots_delays_none_and_is_enabled_by_preset(installed: Path) -> None:
    require("systemctl")
    shutil.copytree(HOST_UNITS, installed / HOST_UNITS.relative_to("/"), symlinks=True, dirs_exist_ok=True)
    subprocess.run(["systemctl", f"--root={installed}", "preset", "vmcoredd-resolve.service"], check=True)
    assert (installed / "etc/systemd/system/multi-user.target.wants/vmcoredd-resolve.service").is_symlink()
    # A target waits for what it wants, unless that is ordered after it: systemd.target(5).
    text = (installed / HOST_UNITS.relative_to("/") / "vmcoredd-resolve.service").read_text()
    assert re.search("^After=.*multi-user.target", text, re.MULTILINE)


def setting(name: str) -> str:
    """Return what vmcoredd.service says."""
    (value,) = re.findall(rf"^{name}=(.*)", (SYSTEMD / "vmcoredd.service").read_text(), re.MULTILINE)
    return str(value)


def allowed(name: str) -> set[str]:
    """Return the system calls of a group, or the one of that name."""
    if not name.startswith("@"):
        return {name}
    listed = analyze("syscall-filter", name).stdout.splitlines()
    members = [line.strip() for line in listed if line.startswith("    ") and not line.strip().startswith("#")]
    return set().union(*map(allowed, members))


@pytest.mark.parametrize("name", ["syslog", "ioctl", "iopl", "perf_event_open", "ptrace", "bpf", "setpriority"])
def test_collectors_may_make_their_system_calls(name: str) -> None:
    require("systemd-analyze")
    assert name in set().union(*map(allowed, setting("SystemCallFilter").split()))


@pytest.mark.parametrize("name", ["kexec_load", "reboot", "init_module", "mount", "settimeofday", "swapon"])
def test_system_calls_that_nobody_needs_are_refused(name: str) -> None:
    require("systemd-analyze")
    assert name not in set().union(*map(allowed, setting("SystemCallFilter").split()))


class Confined(Service):
    """A daemon with the capabilities that its unit leaves it."""

    def _command(self) -> Sequence[str]:
        (line,) = re.findall(
            r"^CapabilityBoundingSet=(.*)", (SYSTEMD / "vmcoredd.service").read_text(), re.MULTILINE
        )
        kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in line.split())
        return ["setpriv", "--no-new-privs", f"--bounding-set=-all,{kept}", *super()._command()]


@pytest.mark.skipif(os.geteuid() != 0, reason="capabilities are root's to give up")
@pytest.mark.parametrize("kind", ["elf", "kdump"])
def test_capabilities_of_the_unit_are_enough(
    bus_address: str, source_vmcore: Path, tmp_path: Path, kind: str
) -> None:
    require("setpriv", "makedumpfile")
    service = Confined(bus_address, source_vmcore, tmp_path, f"Format={kind}")
    script = "grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status; ! chroot / true"
    (tmp_path / "collectors.d/mine.conf").write_text(f'[Collector]\nExec=sh -c "{script}"\n')
    # Where files are others', as on a target that is not root's.
    os.chown(service.target, 65534, 65534)
    with service.start():
        assert service.stop() == 0
    extracted = cli("extract", service.vmcore(), "mine")
    found = dict(line.split(":\t") for line in extracted.stdout.splitlines())
    assert found["NoNewPrivs"] == "1"
    with open("/proc/self/status") as file:
        (ours,) = re.findall(r"^CapBnd:\t(\w+)$", file.read(), re.MULTILINE)
    assert int(found["CapBnd"], 16).bit_count() <= 10
    assert int(found["CapBnd"], 16) & ~int(ours, 16) == 0
    assert "Traceback" not in service.log()


def test_configuration_file_shows_every_key_with_its_default(tmp_path: Path) -> None:
    text = (SYSTEMD / "vmcoredd.conf").read_text()
    conf = tmp_path / "vmcoredd.conf"
    conf.write_text(text)
    assert load(conf) == Configuration()
    conf.write_text(re.sub(r"^#(?=\w+=)", "", text, flags=re.MULTILINE))
    # What depends on another is shown empty.
    assert replace(load(conf), spool=None) == Configuration()
    assert re.findall(r"^#(\w+)=", text, re.MULTILINE) == list(KEYS)


def test_catalog_explains_every_event(installed: Path) -> None:
    require("journalctl")
    (installed / "var/lib/systemd/catalog").mkdir(parents=True)
    update = subprocess.run(
        ["journalctl", f"--root={installed}", "--update-catalog"], capture_output=True, text=True, check=False
    )
    assert (update.returncode, update.stderr) == (0, "")
    catalog = subprocess.run(
        ["journalctl", f"--root={installed}", "--list-catalog"], capture_output=True, text=True, check=True
    )
    explained = {line.split()[0] for line in catalog.stdout.splitlines()}
    assert explained == {event.value for event in Event}


def test_catalog_says_what_to_do_next_and_has_every_field_that_it_shows() -> None:
    text = (SYSTEMD / "vmcoredd.catalog").read_text()
    recorded = recorded_fields()
    entries = re.findall(r"^-- (\w+)\n((?:[A-Z].+\n)+)\n((?:(?!-- ).*\n)+)", text, re.MULTILINE)
    assert len(entries) == len(Event)
    for identifier, head, body in entries:
        event = Event(identifier)
        assert body.strip().count("\n\n") >= 1, event
        # systemd replaces no name with a digit in it.
        fields = re.findall(r"@VMCOREDD_([A-Z_]+)@", head + body)
        assert (head + body).count("@") == 2 * len(fields), event
        assert set(fields) <= recorded[event.name], event
        assert all(len(line) <= 88 for line in body.splitlines())


def recorded_fields() -> dict[str, set[str]]:
    """Fields that each call of record() names; those in the dictionaries of journal_entries.py, together."""
    package = Path(vmcoredd_daemon.__file__).parent
    together = set(re.findall(r'"(\w+)": ', (package / "service/journal_entries.py").read_text()))
    fields: dict[str, set[str]] = {}
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "record" and node.args:
                name = ast.unparse(node.args[0]).removeprefix("Event.")
                named = {keyword.arg.upper() for keyword in node.keywords if keyword.arg}
                given = {field.upper() for field in together} if file.name == "journal_entries.py" else named
                fields[name] = fields.get(name, given) & given
    return fields


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_listed_files_are_all_that_the_daemon_needs(listed: dict[str, str], tmp_path: Path) -> None:
    root = tmp_path / "initramfs"
    for directory in ("usr/lib", "usr/lib64", "proc", "target"):
        (root / directory).mkdir(parents=True)
    for name in ("lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for destination, file in {**listed, str(PROGRAM): str(PROGRAM)}.items():
        put(Path(file), root / destination.lstrip("/"))
    # A mount namespace of its own, with nothing in it but the files and /proc.
    script = (
        f'mount --rbind /proc "$0/proc" && exec chroot "$0" {PROGRAM} --no-bus --source /none --target /target'
    )
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, root], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            # Registered collectors that find nothing may say so before.
            log = ""
            while "Taking device dumps" not in log and (line := process.stderr.readline()):
                log += line
            process.send_signal(signal.SIGTERM)
            log += process.communicate(timeout=20)[1]
        finally:
            process.kill()
    assert "Taking device dumps" in log, log
    assert "Error" not in log
    assert list((root / "target").glob("*/vmcore-device-dumps"))


def test_listed_files_have_no_source_that_would_be_compiled(listed: dict[str, str]) -> None:
    sources = {path for path in listed if path.endswith(".py")}
    # Only an editable installation, such as this may be, needs the sources of its own modules.
    assert all("/vmcoredd_daemon/" in path for path in sources)
    assert not any("/pytest" in path or "/test" in path.rpartition("/")[2] for path in listed)


def test_listed_files_have_no_glib_where_debians_dbus_next_has_it(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "gi").mkdir()
    (tmp_path / "gi/__init__.py").touch()
    (tmp_path / "gi/repository.py").write_text("GLib = None\n")
    command = [sys.executable, installed / "usr/lib/vmcoredd/loaded-files", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    listed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert "dbus_next" in listed
    assert str(tmp_path / "gi") not in listed


def test_listed_files_have_the_built_in_collectors(listed: dict[str, str]) -> None:
    for value in BUILT_IN.values():
        assert any(f"/collectors/builtin/{value.partition(':')[0]}." in path for path in listed)
    assert any("/tarfile." in path for path in listed)


def test_initramfs_tools_hook_copies_the_same_files(
    listed: dict[str, str], installed: Path, tmp_path: Path
) -> None:
    # As Debian's helper for Python programs writes the first line.
    programs = {name: tmp_path / "programs" / name for name in ("vmcoredd-daemon", "vmcoredd")}
    for name, program in programs.items():
        program.parent.mkdir(exist_ok=True)
        program.write_text(re.sub(r"^#! *", "#! ", PROGRAM.with_name(name).read_text()))
        program.chmod(0o755)
    functions = Path("/usr/share/initramfs-tools/hook-functions")
    if not functions.exists():
        pytest.skip("not installed: initramfs-tools-core")
    (installed / "etc/vmcoredd/initramfs-tools").write_text("VMCOREDD=yes\n")
    collector = "etc/vmcoredd/collectors.d/mine.conf"
    (installed / collector).write_text("[Collector]\nExec=nice /usr/bin/ldd /etc/fstab /proc/version\n")
    destination = tmp_path / "initramfs"
    destination.mkdir()
    environment = {
        **os.environ,
        "DESTDIR": str(destination),
        "verbose": "n",
        "VMCOREDD_ROOT": str(installed),
        "VMCOREDD_PROGRAM": str(programs["vmcoredd-daemon"]),
    }
    subprocess.run([installed / HOOKS / "vmcoredd"], env=environment, check=True, timeout=60)
    # ldd is a script of bash.
    collectors = [f"/{collector}", "/usr/bin/nice", "/usr/bin/ldd", "/bin/bash"]
    for path in [
        *listed,
        *collectors,
        "/usr/bin/vmcoredd-daemon",
        "/usr/bin/vmcoredd",
        "/usr/bin/vmcoredd-core-collector",
    ]:
        in_usr = re.sub(r"^/(lib\w*|bin|sbin)/", r"/usr/\1/", path)
        assert os.path.lexists(f"{destination}{path}") or os.path.lexists(f"{destination}{in_usr}"), path


def dracut(
    installed: Path, directory: Path, *lines: str, modules: str = "base vmcoredd dbus", kdump: bool = False
) -> "subprocess.CompletedProcess[str]":
    """Run dracut, which has our module; kdump-utils tells modules that it is running."""
    require("dracut", "unshare")
    base = directory / "dracut"
    if not base.exists():
        shutil.copytree("/usr/lib/dracut", base, symlinks=True)
        shutil.copytree(installed / "usr/lib/dracut", base, dirs_exist_ok=True)
        (base / "empty.d").mkdir()
    configuration = directory / "dracut.conf"
    configuration.write_text("\n".join([f"vmcoredd_root={installed}", *lines, ""]))
    command = [
        "dracut",
        # Warnings: of dracut 112, --quiet would leave only errors.
        "--stdlog=3",
        "--force",
        "--no-hostonly",
        "--no-kernel",
        "--no-compress",
        "--tmpdir",
        directory,
    ]
    command += ["--confdir", base / "empty.d", "--conf", configuration, "--modules", modules]
    environment = {**os.environ, "dracutbasedir": str(base), **({"IN_KDUMP": "1"} if kdump else {})}
    # dracut finds programs in its own PATH.
    script = 'mount --bind "$0" /usr/local/bin; exec "$@"'
    (directory / "local").mkdir(exist_ok=True)
    return subprocess.run(
        ["unshare", "--mount", "sh", "-euc", script, directory / "local", *command, directory / "image"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
@pytest.mark.skipif(Path("/usr/bin/vmcoredd-daemon").exists(), reason="dracut finds what is installed")
def test_dracut_module_says_why_it_cannot_be_installed(installed: Path, tmp_path: Path) -> None:
    reason = "vmcoredd: vmcoredd-daemon is not installed; vmcoredd_program= says where it is"
    said = [line for line in dracut(installed, tmp_path).stdout.splitlines() if "vmcoredd: " in line]
    assert [re.sub(r"^dracut(\[\w\])?: ", "", line) for line in said] == [reason]
    done = dracut(installed, tmp_path, "vmcoredd_program=/nonexistent/vmcoredd-daemon")
    assert "vmcoredd: /nonexistent/vmcoredd-daemon is not installed" in done.stdout
    # dracut asks every module for any other initramfs.
    assert "vmcoredd: " not in dracut(installed, tmp_path, modules="all").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_dracut_module_warns_of_a_target_only_if_it_is_its_own(installed: Path, tmp_path: Path) -> None:
    """kdump-utils mounts the target."""
    (tmp_path / "local").mkdir()
    for name in ("vmcoredd", "vmcoredd-daemon"):
        shutil.copy(PROGRAM.with_name(name), tmp_path / "local")
    warned, silent = dracut(installed, tmp_path), dracut(installed, tmp_path, kdump=True)
    assert (warned.returncode, silent.returncode) == (0, 0)
    assert "vmcoredd: vmcoredd_mount= is not set, and --mount mounts nothing at /var/crash" in warned.stdout
    assert "vmcoredd: " not in silent.stdout
    # dracut has been told of no place, and has found the program in /usr/local/bin.
    require("lsinitrd")
    listed = subprocess.run(["lsinitrd", tmp_path / "image"], capture_output=True, text=True, check=True).stdout
    assert "usr/bin/vmcoredd-core-collector\n" in listed
    assert "usr/bin/vmcoredd-daemon -> " in listed


def test_plain_copy_is_made_only_for_want_of_better(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"the memory")
    assert plain_copies(tmp_path, "vmcore") == []
    assert plain_copies(tmp_path, "vmcore-incomplete") == ["vmcore"]
    assert plain_copies(tmp_path) == ["vmcore"]


def test_plain_copy_that_fails_is_kept_for_want_of_better(tmp_path: Path) -> None:
    shell_program(tmp_path / "bin/makedumpfile", 'for file; do :; done\necho half >"$file"\nexit 1')
    assert plain_copies(tmp_path) == ["vmcore-incomplete"]
    # That one has device dumps.
    assert plain_copies(tmp_path, "vmcore-incomplete") == []


def test_memory_that_is_cut_off_makes_room_for_another_copy(source_vmcore: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "earlier").mkdir(parents=True)
    shutil.copy(source_vmcore, target / "earlier/vmcore-incomplete")
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)}
    subprocess.run([SYSTEMD / "save-plain", "begin", target], env=environment, check=True)
    for name, content in {"ours": source_vmcore.read_bytes(), "forged": b"no ELF"}.items():
        (target / name).mkdir()
        (target / name / "vmcore-incomplete").write_bytes(content)
    subprocess.run([SYSTEMD / "save-plain", "make-room", target], env=environment, check=True)
    vmcore = target / "ours/vmcore-incomplete"
    first = min(p_offset for *_, p_offset, p_filesz in judges.loads(source_vmcore) if p_filesz)
    # crash fails on a file that ends before its memory begins.
    assert first <= vmcore.stat().st_size < first + (1 << 20) < source_vmcore.stat().st_size
    # All notes are left.
    assert judges.osrelease(vmcore) == judges.osrelease(source_vmcore)
    assert (target / "earlier/vmcore-incomplete").stat().st_size == source_vmcore.stat().st_size
    assert (target / "forged/vmcore-incomplete").read_bytes() == b"no ELF"


def test_memory_is_left_where_nobody_knows_whose_it_is(source_vmcore: Path, tmp_path: Path) -> None:
    vmcore = tmp_path / "ours/vmcore-incomplete"
    vmcore.parent.mkdir()
    shutil.copy(source_vmcore, vmcore)
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)}
    subprocess.run([SYSTEMD / "save-plain", "make-room", tmp_path], env=environment, check=True)
    assert vmcore.stat().st_size == source_vmcore.stat().st_size


def plain_copies(directory: Path, *left: str) -> list[str]:
    """Run save-plain where an earlier crash and the service have left vmcores; return names of copies."""
    with tempfile.TemporaryDirectory(dir=directory) as target:
        environment = {
            "VMCOREDD_SOURCE": str(directory / "source"),
            "RUNTIME_DIRECTORY": str(directory),
            # makedumpfile wants a real vmcore.
            "PATH": str(only(directory / "bin", "cat", "cp", "date", "mkdir", "mv", "rm", "sh", "sync")),
        }
        leave(Path(target, "earlier"), "vmcore")
        subprocess.run([SYSTEMD / "save-plain", "begin", target], env=environment, check=True)
        for name in left:
            leave(Path(target, "ours"), name)
        subprocess.run([SYSTEMD / "save-plain", "end", target], env=environment, check=False)
        return [file.name for file in Path(target).glob("plain-*/*")]


def leave(directory: Path, name: str) -> None:
    directory.mkdir()
    (directory / name).write_bytes(b"")


def only(directory: Path, *programs: str) -> Path:
    """Return a directory with some programs."""
    directory.mkdir(exist_ok=True)
    for name in programs:
        program = shutil.which(name)
        assert program is not None
        if not (directory / name).exists():
            (directory / name).symlink_to(program)
    return directory


def put(file: Path, destination: Path) -> None:
    """Copy a file as dracut does: a link becomes one to what it leads to."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(destination):
        return
    if file.is_symlink():
        destination.symlink_to(file.resolve())
    else:
        shutil.copy(file, destination)


def analyze(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
