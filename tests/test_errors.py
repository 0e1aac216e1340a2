# SPDX-License-Identifier: LGPL-2.1-or-later
import errno

import pytest

from vmcoredd_daemon import errors
from vmcoredd_daemon.errors import CollectorFailed, VmcoreddError, from_dbus

FAMILY = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, VmcoreddError) and kind is not VmcoreddError
]


@pytest.mark.parametrize("kind", FAMILY)
def test_error_comes_back_from_its_dbus_name(kind: type[VmcoreddError]) -> None:
    error = from_dbus(kind.dbus_name, "what went wrong")
    assert type(error) is kind
    assert str(error) == "what went wrong"
    assert error.errno == kind("text").errno


def test_dbus_names_are_unique() -> None:
    names = [kind.dbus_name for kind in FAMILY]
    assert sorted(names) == sorted(set(names))


def test_unknown_dbus_name_is_kept_in_the_message() -> None:
    error = from_dbus("org.example.Error.Odd", "no luck")
    assert type(error) is VmcoreddError
    assert str(error) == "no luck (org.example.Error.Odd)"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("InvalidArgs", errno.EINVAL),
        ("TooLarge", errno.ENOMEM),
        ("QuotaExceeded", errno.ENOMEM),
        ("NoSpace", errno.ENOMEM),
        ("Busy", errno.EBUSY),
        ("Disabled", errno.EOPNOTSUPP),
    ],
)
def test_errno_is_the_kernels(name: str, code: int) -> None:
    assert getattr(errors, name)("text").errno == code


def test_collectors_own_code_is_passed_on() -> None:
    assert CollectorFailed("text").errno == errno.EIO
    assert CollectorFailed("text", errno.ENODEV).errno == errno.ENODEV
    assert CollectorFailed("text").errno == errno.EIO
