# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bytes of a message to send: "Marshaling (Wire Format)" in the D-Bus specification.

dbus-next looks up each type for each value, and checks each body twice: for a small device dump, its signals would
cost more than everything else.
"""

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from dbus_next import Message
from dbus_next._private.constants import PROTOCOL_VERSION, HeaderField
from dbus_next.signature import SignatureTree, SignatureType
from dbus_next.validators import assert_object_path_valid

from ..text import valid

_Write: TypeAlias = Callable[[bytearray, Any], None]
"""Appends a value to a buffer; alignment counts from the start of the buffer."""

_INTEGERS = {"n": "<h", "q": "<H", "i": "<i", "u": "<I", "x": "<q", "t": "<Q", "d": "<d", "h": "<I"}
_ALIGNMENT = {"y": 1, "n": 2, "q": 2, "g": 1, "v": 1} | dict.fromkeys("xtd({", 8)
"""In bytes; types that are missing here have 4."""
_LENGTH = struct.Struct("<I")
_FIXED = struct.Struct("<cBBBIII")
_FIELDS = [
    (field.name.lower(), bytes([field.value, 1, ord(token), 0]), token)
    for field, token in (
        (HeaderField.PATH, "o"),
        (HeaderField.INTERFACE, "s"),
        (HeaderField.MEMBER, "s"),
        (HeaderField.ERROR_NAME, "s"),
        (HeaderField.REPLY_SERIAL, "u"),
        (HeaderField.DESTINATION, "s"),
        (HeaderField.SIGNATURE, "g"),
    )
]
"""Attributes of a message, with their code and signature as bytes, and their type."""
_UNIX_FDS = bytes([HeaderField.UNIX_FDS.value, 1, ord("u"), 0])


def marshalled(message: Message) -> bytes:
    """Return the bytes of *message*.

    Raises InvalidObjectPathError, or an exception of Python's, if its body does not match its signature.
    """
    body = bytearray()
    for type_, value in zip(message.signature_tree.types, message.body, strict=True):
        _writer(type_.signature)(body, value)
    fields = bytearray()
    for name, code, token in _FIELDS:
        if value := getattr(message, name):
            field = code + _LENGTH.pack(value) if token == "u" else _text_field(code, token, value)
            fields += bytes(-len(fields) & 7) + field
    if message.unix_fds:
        fields += bytes(-len(fields) & 7) + _UNIX_FDS + _LENGTH.pack(len(message.unix_fds))
    kind, flags = message.message_type.value, message.flags.value
    fixed = _FIXED.pack(b"l", kind, flags, PROTOCOL_VERSION, len(body), message.serial, len(fields))
    return b"".join((fixed, fields, bytes(-len(fields) & 7), body))


@lru_cache(256)
def _text_field(code: bytes, token: str, value: str) -> bytes:
    """Return a header field with a text; cached, because many messages have the same."""
    field = bytearray(code)
    _writer(token)(field, value)
    return bytes(field)


@lru_cache(64)
def _writer(signature: str) -> _Write:
    (type_,) = SignatureTree._get(signature).types
    return _writer_of(type_)


def _writer_of(type_: SignatureType) -> _Write:
    match type_.token:
        case "s":
            return _write_string
        case "o":
            return _write_object_path
        case "g":
            return _write_signature
        case "v":
            return _write_variant
        case "y":
            return bytearray.append
        case "b":
            return _write_boolean
        case "a":
            return _array_writer(*type_.children)
        case "(" | "{":
            return _struct_writer(type_)
        case _:
            return _integer_writer(_INTEGERS[type_.token])


def _integer_writer(form: str) -> _Write:
    integer = struct.Struct(form)
    mask = integer.size - 1

    def write(buffer: bytearray, value: Any) -> None:
        buffer += bytes(-len(buffer) & mask) + integer.pack(value)

    return write


def _array_writer(child: SignatureType) -> _Write:
    mask = _ALIGNMENT.get(child.token, 4) - 1
    write_one = _writer_of(child)

    def write(buffer: bytearray, value: Any) -> None:
        buffer += bytes((-len(buffer) & 3) + 4)
        length = len(buffer) - 4
        # The length does not include this padding.
        buffer += bytes(-len(buffer) & mask)
        start = len(buffer)
        if child.token == "y":
            buffer += value
        elif child.signature == "{sv}":
            _write_entries(buffer, value)
        else:
            for one in value.items() if child.token == "{" else value:
                write_one(buffer, one)
        _LENGTH.pack_into(buffer, length, len(buffer) - start)

    return write


def _write_entries(buffer: bytearray, value: Mapping[str, Any]) -> None:
    for key, variant in value.items():
        start, write = _entry(key, variant.signature)
        buffer += bytes(-len(buffer) & 7) + start
        write(buffer, variant.value)


@lru_cache(256)
def _entry(key: str, signature: str) -> tuple[bytes, _Write]:
    """Return the key and signature of an entry of a{sv}, as bytes, and what writes its value."""
    start = bytearray()
    _write_string(start, key)
    _write_signature(start, signature)
    return bytes(start), _writer(signature)


def _struct_writer(type_: SignatureType) -> _Write:
    writers = [_writer_of(child) for child in type_.children]

    def write(buffer: bytearray, value: Any) -> None:
        buffer += bytes(-len(buffer) & 7)
        for write_one, one in zip(writers, value, strict=True):
            write_one(buffer, one)

    return write


def _write_boolean(buffer: bytearray, value: bool) -> None:
    buffer += bytes(-len(buffer) & 3) + _LENGTH.pack(1 if value else 0)


def _write_string(buffer: bytearray, value: str) -> None:
    # A file name may have bytes that D-Bus does not allow; all others are kept.
    data = valid(value).encode()
    buffer += bytes(-len(buffer) & 3) + _LENGTH.pack(len(data)) + data + b"\0"


def _write_object_path(buffer: bytearray, value: str) -> None:
    # The bus ends a connection that sends an invalid path.
    assert_object_path_valid(value)
    _write_string(buffer, value)


def _write_signature(buffer: bytearray, value: str) -> None:
    data = value.encode()
    buffer += bytes([len(data)]) + data + b"\0"


def _write_variant(buffer: bytearray, value: Any) -> None:
    _write_signature(buffer, value.signature)
    _writer(value.signature)(buffer, value.value)
