# SPDX-License-Identifier: LGPL-2.1-or-later
"""Points in time as people write them: a part of what systemd.time(7) calls a timestamp, in UTC as all times here.

``2026-11-24``, ``2026-11-24 10:20``, ``2026-11-24 10:20:30``, ``10:20``, ``now``, ``today``, ``yesterday``,
``-2h``, ``-1h 30min``, ``2 days ago``, ``@1795464321``.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

_DATE = r"(?P<date>\d{4}-\d{2}-\d{2})"
_CLOCK = r"(?P<hours>\d{1,2}):(?P<minutes>\d{2})(?::(?P<seconds>\d{2})(?:\.\d{1,6})?)?"
_ABSOLUTE = re.compile(rf"(?:{_DATE})?(?:(?:^|[ T]+){_CLOCK})?(?: *(?:UTC|Z))?", re.ASCII)
_SPAN = re.compile(r"(\d{1,9})(?!\d) *([a-zA-Z]*)[ ,]*", re.ASCII)
_LONGEST = 100
"""Characters."""

_SECONDS = {
    "s sec second seconds": 1,
    "m min minute minutes": 60,
    "h hr hour hours": 3600,
    "d day days": 86400,
    "w week weeks": 7 * 86400,
    # As systemd.time(7) has them.
    "M month months": 2629800,
    "y year years": 31557600,
}
_UNITS = {name: seconds for names, seconds in _SECONDS.items() for name in names.split()}
_DAYS = {"today": 0, "yesterday": -1, "tomorrow": 1}


def timestamp(text: str, now: float) -> float:
    """Return the time *text*, in seconds since the epoch; *now* is what relative ones count from.

    Raises ValueError, which ends the sentence "... is not".
    """
    try:
        return _timestamp(text.strip(), datetime.fromtimestamp(now, UTC))
    except (ValueError, OverflowError):
        raise ValueError("a time, as 2026-11-24 10:20, today, -2h or '2 days ago'") from None


def _timestamp(text: str, now: datetime) -> float:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text == "now":
        return now.timestamp()
    if text in _DAYS:
        return (midnight + timedelta(days=_DAYS[text])).timestamp()
    if re.fullmatch(r"@\d{1,12}", text, re.ASCII):
        return float(text[1:])
    if text.endswith(" ago"):
        return now.timestamp() - _span(text.removesuffix(" ago"))
    if text[:1] in {"-", "+"}:
        return now.timestamp() + (-1 if text[0] == "-" else 1) * _span(text[1:])
    found = _ABSOLUTE.fullmatch(text)
    if not text or found is None or not (found["date"] or found["hours"]):
        raise ValueError(text)
    day = datetime.strptime(found["date"], "%Y-%m-%d").replace(tzinfo=UTC) if found["date"] else midnight
    return day.replace(
        hour=int(found["hours"] or 0), minute=int(found["minutes"] or 0), second=int(found["seconds"] or 0)
    ).timestamp()


def _span(text: str) -> int:
    """Return the seconds of ``1h 30min``. Raises ValueError."""
    return sum(_parts(text.strip()))


def _parts(text: str) -> Iterator[int]:
    if not text or len(text) > _LONGEST:
        raise ValueError(text[:_LONGEST])
    while text:
        part = _SPAN.match(text)
        # A number without a unit is seconds.
        if part is None or (part[2] and part[2] not in _UNITS):
            raise ValueError(text)
        yield int(part[1]) * _UNITS.get(part[2], 1)
        text = text[part.end() :]
