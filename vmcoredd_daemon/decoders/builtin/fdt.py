# SPDX-License-Identifier: LGPL-2.1-or-later
"""The devicetree of a machine: model, processors, memory, what the kernel was told, and devices that failed.

Devicetree Specification 0.4: 5 (flattened format), 2.3 (standard properties), 3 (nodes). The ``linux,`` properties
of /chosen: ``kexec/arch/arm64/kexec-arm64.c`` of kexec-tools, Linux ``drivers/of/kexec.c``.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, TypeVar

from ...errors import InvalidDump
from ...progress import human_size
from ...text import counted, shortened
from ..decoded import Decoded, Field, Part, Section, Table
from ..structure import ascii_text, part_of

MAX_SIZE = 4 << 20
"""Bytes that are read; Linux takes 2 MiB on arm64 (``Documentation/arch/arm64/booting.rst``)."""
MAX_DEPTH = 64
"""Nodes inside each other."""
MAX_ROWS = 1024
"""Ranges, and devices that failed, that are shown."""
MAX_NAME = 256
"""Bytes of the name of a node or a property; the specification allows 31."""
MAX_NAMED = 4
"""Devices that findings name."""
MAX_TEXT = 4096
"""Bytes of a value that are shown: more than the command line of a kernel has."""
MAX_CELLS = 4
"""Numbers of 32 bits that an address or a size has."""

# 5.2, struct fdt_header.
_HEADER = struct.Struct(">10I")
_MAGIC = 0xD00DFEED
_VERSION = 17
"""That the specification describes; a later one says with which version it is compatible."""
_BEGIN_NODE, _END_NODE, _PROP, _NOP, _END = 1, 2, 3, 4, 9
"""5.4.1."""

_SHOWN = frozenset(
    {
        *("#address-cells", "#size-cells", "bootargs", "compatible", "device_type", "linux,elfcorehdr"),
        *("linux,usable-memory-range", "model", "reg", "serial-number", "status", "stdout-path"),
    }
)
"""The properties that are kept."""


_Range = tuple[str, int, int]
"""Name, address and size."""
_Row = TypeVar("_Row")
_TOO_MANY = f"only the first {MAX_ROWS} ranges of a kind, and devices that failed, are shown"


@dataclass(slots=True)
class _Node:
    path: str
    above: "_Node | None"
    depth: int
    properties: dict[str, bytes] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return the text of a property, or all texts of one that has several; empty without one."""
        parts = self.properties.get(name, b"")[:MAX_TEXT].split(b"\0")
        return ", ".join(ascii_text(part) for part in parts if part)

    def ranges(self, name: str) -> Iterator[tuple[int, int]]:
        """Yield address and size of each range in a property, of as many cells as the node above says: 2.3.5."""
        above = self.above or self
        address, size = above._cells("#address-cells", 2), above._cells("#size-cells", 1)
        if not (0 < address <= MAX_CELLS and 0 < size <= MAX_CELLS):
            return
        value, step = self.properties.get(name, b""), 4 * (address + size)
        for start in range(0, len(value) - step + 1, step):
            middle, end = start + 4 * address, start + step
            yield int.from_bytes(value[start:middle], "big"), int.from_bytes(value[middle:end], "big")

    def _cells(self, name: str, default: int) -> int:
        value = self.properties.get(name, b"")
        return int.from_bytes(value, "big") if len(value) == 4 else default


@dataclass(slots=True)
class _Seen:
    """What the nodes say."""

    root: _Node | None = None
    chosen: _Node | None = None
    nodes: int = 0
    processors: int = 0
    memory: list[_Range] = field(default_factory=list)
    reserved: list[_Range] = field(default_factory=list)
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    """Path, compatible and status of each device that does not work."""
    problems: list[str] = field(default_factory=list)

    def add(self, rows: list[_Row], new: Iterable[_Row]) -> None:
        """Add *new* to one of the lists, as long as it is not full."""
        for row in new:
            if len(rows) == MAX_ROWS:
                if _TOO_MANY not in self.problems:
                    self.problems.append(_TOO_MANY)
                return
            rows.append(row)


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode ``fdt``. Raises InvalidDump if it is no devicetree."""
    data.seek(0)
    tree = data.read(MAX_SIZE)
    seen = _Seen()
    try:
        blocks = _Blocks(tree)
        seen.add(seen.reserved, blocks.reserved())
        for node in blocks.nodes():
            _look_at(node, seen)
    except InvalidDump as error:
        if seen.root is None:
            raise
        seen.problems.append(str(error))
    if seen.root is None:
        raise InvalidDump("no devicetree: it has no node")
    return Decoded(
        seen.root.text("model") or seen.root.text("compatible") or "devicetree",
        tuple(_findings(seen)),
        (
            counted(seen.processors, "processor"),
            f"{human_size(sum(size for _, _, size in seen.memory))} of memory",
            counted(seen.nodes, "node"),
        ),
        (Section("", tuple(_parts(seen, seen.root))),),
        tuple(seen.problems),
    )


# The format.


class _Blocks:
    """The blocks of a flattened devicetree; none of its offsets and sizes is trusted."""

    def __init__(self, tree: bytes) -> None:
        """Raises InvalidDump if *tree* is none, or of a version that is not known."""
        header = _HEADER.unpack(part_of(tree, 0, _HEADER.size, "the header"))
        magic, _, structure, strings, reserved, version, compatible, _, strings_size, structure_size = header
        if magic != _MAGIC:
            raise InvalidDump(f"no devicetree: magic is {magic:#x}, not {_MAGIC:#x}")
        if not compatible <= _VERSION <= version:
            raise InvalidDump(f"version {version} is compatible with {compatible}, known is {_VERSION}")
        self._structure = tree[structure : structure + structure_size]
        self._strings = tree[strings : strings + strings_size]
        self._reserved = tree[reserved:]

    def reserved(self) -> Iterator[tuple[str, int, int]]:
        """Yield the ranges of the memory reservation block, 5.3, which ends with an empty one."""
        for start in range(0, len(self._reserved) - 15, 16):
            address, size = struct.unpack_from(">QQ", self._reserved, start)
            if not address and not size:
                return
            yield "reservation block", address, size

    def nodes(self) -> Iterator[_Node]:
        """Yield each node with its properties, which come before the nodes in it. Raises InvalidDump."""
        node: _Node | None = None
        position, is_new = 0, False
        while True:
            token = int.from_bytes(part_of(self._structure, position, 4, "the structure block"), "big")
            position += 4
            if token in {_BEGIN_NODE, _END_NODE} and is_new and node is not None:
                yield node
                is_new = False
            if token == _BEGIN_NODE:
                name = self._text(self._structure, position)
                node, is_new = _below(node, ascii_text(name)), True
                position = _aligned(position + len(name) + 1)
            elif token == _END_NODE and node is not None:
                node = node.above
            elif token == _PROP and node is not None:
                header = part_of(self._structure, position, 8, "a property")
                size, name_offset = struct.unpack(">II", header)
                key = self._text(self._strings, name_offset).decode("ascii", "replace")
                if key in _SHOWN:
                    node.properties[key] = part_of(self._structure, position + 8, size, f"property {key}")
                position = _aligned(position + 8 + size)
            elif token == _END and node is None:
                return
            elif token != _NOP:
                raise InvalidDump(f"the structure block has token {token:#x} at byte {position - 4}")

    def _text(self, block: bytes, offset: int) -> bytes:
        end = block.find(b"\0", offset, offset + MAX_NAME)
        if end < 0:
            raise InvalidDump(f"a name at byte {offset} of {len(block)} has no end")
        return block[offset:end]


def _below(above: _Node | None, name: str) -> _Node:
    if above is None:
        return _Node("/", None, 0)
    if above.depth == MAX_DEPTH:
        raise InvalidDump(f"more than {MAX_DEPTH} nodes are inside each other")
    return _Node(f"{above.path.rstrip('/')}/{name}"[-MAX_TEXT:], above, above.depth + 1)


def _aligned(offset: int) -> int:
    return (offset + 3) & ~3


# What it says.


def _look_at(node: _Node, seen: _Seen) -> None:
    seen.nodes += 1
    name = node.path.rpartition("/")[2]
    if node.above is None:
        seen.root = seen.root or node
    elif node.path == "/chosen":
        seen.chosen = node
    kind, status = node.text("device_type"), node.text("status")
    seen.processors += kind == "cpu"
    if kind == "memory":
        seen.add(seen.memory, ((name, *each) for each in node.ranges("reg")))
    elif node.above is not None and node.above.path == "/reserved-memory":
        seen.add(seen.reserved, ((name, *each) for each in node.ranges("reg")))
    # 2.3.4: "fail", or "fail-sss" with a condition of the device.
    if status.startswith("fail"):
        seen.add(seen.failed, [(node.path, node.text("compatible"), status)])


def _findings(seen: _Seen) -> Iterator[str]:
    for path, _, status in seen.failed[:MAX_NAMED]:
        yield f"{shortened(path)} has status {shortened(status)}"
    if more := len(seen.failed[MAX_NAMED:]):
        yield f"{counted(more, 'other device')} failed"


def _parts(seen: _Seen, root: _Node) -> Iterator[Part]:
    for name, prop, private in (
        ("Model", "model", False),
        ("Compatible", "compatible", False),
        ("Serial number", "serial-number", True),
    ):
        if text := root.text(prop):
            yield Field(name, text, private=private)
    yield Field("Processors", seen.processors)
    yield Field("Nodes", seen.nodes)
    if seen.chosen is not None:
        for name in ("bootargs", "stdout-path"):
            if text := seen.chosen.text(name):
                yield Field(name, text)
        for name in ("linux,elfcorehdr", "linux,usable-memory-range"):
            for address, size in seen.chosen.ranges(name):
                yield Field(name, f"{address:#x} to {address + size:#x}")
    for title, ranges in (("Memory", seen.memory), ("Reserved memory", seen.reserved)):
        if ranges:
            rows = tuple((name, f"{start:#x}", f"{start + size:#x}", size) for name, start, size in ranges)
            yield Table(title, ("Name", "From", "To", "Bytes"), rows)
    if seen.failed:
        yield Table("Failed devices", ("Device", "Compatible", "Status"), tuple(seen.failed))
