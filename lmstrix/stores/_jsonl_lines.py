"""The lines of a `JsonlStore`: one fact each, told apart by their ``kind``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TypeVar

import attrs

from lmstrix.converter import FormatError, from_json
from lmstrix.models import (
    SCHEMA_VERSION,
    ContextReport,
    Cost,
    ModelInfo,
    Observation,
    Trial,
)
from lmstrix.stores._facts import encode
from lmstrix.stores.archive import ImportedResult

__all__ = [
    "HEADER",
    "BeginLine",
    "CostLine",
    "FailureLine",
    "ImportedLine",
    "Line",
    "LoadLine",
    "OrderLine",
    "ReportLine",
    "TornLine",
    "TrialLine",
    "check_header",
    "decode",
    "lazy",
    "to_bytes",
]

T = TypeVar("T")

VERSION = 1
"""Version of the lines, kept in the first one."""
HEADER = b'{"kind": "store", "format": "lmstrix", "version": 1}\n'

_LAZY = re.compile(rb'\{"kind": "(trial|report)", "measurement": "([0-9a-f]{32})", ')
"""How our own trials and reports begin: enough to know where they belong, unread."""


@attrs.frozen(kw_only=True)
class _Header:
    format: str
    version: int


@attrs.frozen(kw_only=True)
class _Kind:
    kind: str


@attrs.frozen(kw_only=True)
class BeginLine:
    """A measurement was begun."""

    kind: str = "begin"
    measurement: str
    key: str
    model: ModelInfo
    started_at: datetime
    replaced: bool = False
    offered: bool = True
    """False for one from another store whose report follows: it takes nobody's place."""


@attrs.frozen(kw_only=True)
class TrialLine:
    """One trial."""

    kind: str = "trial"
    measurement: str
    trial: Trial


@attrs.frozen(kw_only=True)
class FailureLine:
    """The engine failed at a length."""

    kind: str = "failure"
    measurement: str
    failure: Observation


@attrs.frozen(kw_only=True)
class CostLine:
    """What the measurement has cost so far."""

    kind: str = "cost"
    measurement: str
    cost: Cost


@attrs.frozen(kw_only=True)
class LoadLine:
    """A load is about to be tried at a context length; without one: it has ended."""

    kind: str = "load"
    measurement: str
    context_length: int | None


@attrs.frozen(kw_only=True)
class ReportLine:
    """The measurement is finished."""

    kind: str = "report"
    measurement: str
    report: ContextReport


@attrs.frozen(kw_only=True)
class OrderLine:
    """All finished measurements, the oldest first, after a merge."""

    kind: str = "order"
    measurements: tuple[str, ...]


@attrs.frozen(kw_only=True)
class ImportedLine:
    """A result of an earlier version."""

    kind: str = "imported"
    imported: ImportedResult


@attrs.frozen(kw_only=True)
class TornLine:
    """The line before is the beginning of one that was never written to its end."""

    kind: str = "torn"


Line = (
    BeginLine
    | TrialLine
    | FailureLine
    | CostLine
    | LoadLine
    | ReportLine
    | OrderLine
    | ImportedLine
    | TornLine
)

_KINDS: Mapping[str, type[Line]] = MappingProxyType(
    {
        "begin": BeginLine,
        "trial": TrialLine,
        "failure": FailureLine,
        "cost": CostLine,
        "load": LoadLine,
        "report": ReportLine,
        "order": OrderLine,
        "imported": ImportedLine,
        "torn": TornLine,
    }
)


def to_bytes(*lines: Line) -> bytes:
    """The lines as the file has them; raises `StoreError` for what JSON cannot hold."""
    return b"".join(encode(line).encode() + b"\n" for line in lines)


def lazy(line: bytes) -> tuple[str, str] | None:
    """(kind, measurement) of a trial or a report in our own writing, unread; or None."""
    found = _LAZY.match(line)
    return (found[1].decode(), found[2].decode()) if found and line.endswith(b"}}\n") else None


def decode(line: bytes) -> Line:
    """The fact of a line; raises `FormatError`."""
    text = _text(line)
    kind = _KINDS.get(from_json(text, _Kind).kind)
    if kind is None:
        raise FormatError("a line of an unknown kind")
    fact = from_json(text, kind)
    if isinstance(fact, ReportLine) and fact.report.schema_version > SCHEMA_VERSION:
        raise FormatError("a report of a newer version")
    return fact


def check_header(line: bytes) -> int:
    """The version in a store's first line; raises `FormatError` where it is none."""
    header = from_json(_text(line), _Header)
    if header.format != "lmstrix" or header.version < VERSION:
        raise FormatError("not the first line of a store")
    return header.version


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise FormatError("not UTF-8") from error
