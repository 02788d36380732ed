"""Sizes, times and ages as people write them."""

from __future__ import annotations

from datetime import datetime

__all__ = [
    "say_bytes",
    "say_count",
    "say_moment",
    "say_percent",
    "say_seconds",
    "say_tokens",
    "say_wait",
]


def say_bytes(size_bytes: int) -> str:
    """Decimal units, as LM Studio and the model hubs show them; an empty string for none.

    >>> say_bytes(98_000_000)
    '98.0 MB'
    """
    if size_bytes <= 0:
        return ""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def say_count(count: int, noun: str) -> str:
    """How many of something whose plural takes an s.

    >>> say_count(1, "report"), say_count(0, "report")
    ('1 report', '0 reports')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def say_moment(moment: datetime) -> str:
    """A moment to the second, with the name of its zone where that is UTC, else with its offset.

    >>> from datetime import UTC
    >>> say_moment(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02 03:04:05 UTC'
    """
    text = moment.isoformat(sep=" ", timespec="seconds")
    local = text.removesuffix("+00:00")
    return text if local == text else f"{local} UTC"


def say_percent(share: float) -> str:
    """A share of one in whole percent, with a space, as SI has it.

    >>> say_percent(0.85)
    '85 %'
    """
    return f"{100 * share:.0f} %"


def say_seconds(seconds: float) -> str:
    """A duration with as many digits as its size deserves.

    >>> say_seconds(0.1234), say_seconds(66.5), say_seconds(3750)
    ('0.12 s', '1 min 06 s', '1 h 02 min')
    """
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} days"


def say_wait(seconds: float | None) -> str:
    """A time for a column of them: always in seconds, so that they can be compared at a glance.

    >>> say_wait(0.1234), say_wait(3750), say_wait(None)
    ('0.12 s', '3750 s', '-')
    """
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def say_tokens(tokens: int | None, *, unknown: str = "unknown") -> str:
    """Plain digits, which can be pasted back into an option."""
    return unknown if tokens is None else str(tokens)
