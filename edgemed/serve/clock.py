"""Two clocks: what is measured comes from the monotonic one, what people read from the calendar, which may jump."""

from __future__ import annotations

from datetime import datetime, timezone


def utc() -> datetime:
    """Now, UTC."""
    return datetime.now(timezone.utc)


def stamp(moment: datetime | None = None) -> str:
    """A moment as it stands in journal, logs and JSON: ISO 8601, UTC, microseconds. Texts sort as moments do."""
    at = utc() if moment is None else moment.astimezone(timezone.utc)
    return at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def from_stamp(text: str) -> datetime:
    """The moment that `stamp` wrote."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
