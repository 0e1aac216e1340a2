# SPDX-License-Identifier: LGPL-2.1-or-later
"""The end of the dump list: once it is sealed, nobody adds or removes a device dump."""

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import Busy


class Sealable:
    """What can be sealed, for a while or for good."""

    _sealed = ""

    @property
    def accepting(self) -> bool:
        """False while the list is sealed."""
        return not self._sealed

    def check_open(self) -> None:
        """Raise Busy when the list is sealed."""
        if self._sealed:
            raise Busy(self._sealed)

    def seal(self, reason: str) -> None:
        """Refuse every addition and removal from now on, with Busy and this reason."""
        self._sealed = reason

    @contextmanager
    def sealed(self, reason: str) -> Iterator[None]:
        """Seal the list for a while."""
        before, self._sealed = self._sealed, self._sealed or reason
        try:
            yield
        finally:
            # A seal that was put on meanwhile, because the service stops, stays.
            self._sealed = before if self._sealed == reason else self._sealed
