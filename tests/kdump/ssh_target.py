# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ssh target of kdump-tools: another machine, which here is sshd on this one, in the root that panics.

The machine in QEMU reaches it by QEMU's own network.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.kdump import debian
from tests.lib.waiting import wait_until

GUEST, HOST = "10.0.2.15", "10.0.2.2"
"""Addresses of QEMU's network: of the machine, and of this one."""
NAME = "dump-server"
QEMU_OPTIONS = ("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net")
OPTIONS = "net.ifnames=0"
"""Of the kernel: the network device is eth0."""

INTERFACE = f"""
auto eth0
iface eth0 inet static
    address {GUEST}/24
    gateway {HOST}
"""
CLIENT = f"""\
Host {NAME}
    HostName {HOST}
    Port {{port}}
"""
# As `kdump-config propagate` does.
KEY = "mkdir -p -m 700 /root/.ssh; ssh-keygen -q -t rsa -f /root/.ssh/kdump_id_rsa -N ''"
SERVER = f"""\
{debian.MOUNTS}
mkdir -p "$0/run/sshd" "$0/var/crash"
mount --bind "$1" "$0/var/crash"
exec chroot "$0" /usr/sbin/sshd -D -e -p "$2" -o ListenAddress=127.0.0.1 -o PidFile=none -o UsePAM=no \\
    -o AuthorizedKeysFile=/root/.ssh/kdump_id_rsa.pub -o HostKey=/etc/ssh/ssh_host_ed25519_key
"""


@contextmanager
def ssh_target(root: Path, directory: Path) -> Iterator[None]:
    """Configure kdump-tools in *root* to send its dump by ssh, and serve that; *directory* is /var/crash there."""
    port = _free_port()
    home = root / "root/.ssh"
    debian.chroot(root, KEY)
    (home / "config").write_text(CLIENT.format(port=port))
    # kdump-tools has the administrator's word for it: propagate runs ssh-copy-id, which asks.
    public = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    (home / "known_hosts").write_text(f"[{HOST}]:{port} {public}")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home)
        stack.enter_context(debian.changed(root / "etc/default/kdump-tools", f'SSH="root@{NAME}"\n'))
        stack.enter_context(debian.changed(root / "etc/network/interfaces", INTERFACE))
        stack.enter_context(_server(root, directory, port))
        yield


@contextmanager
def _server(root: Path, directory: Path, port: int) -> Iterator[None]:
    command = ["unshare", "--mount", "sh", "-euc", SERVER, str(root), str(directory), str(port)]
    with (directory.parent / "sshd.log").open("wb") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until(lambda: server.poll() is not None or _answers(port))
        assert server.poll() is None
        yield
    finally:
        server.terminate()
        server.wait()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
