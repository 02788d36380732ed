"""Reading ``lmstrix.json``, where LMStrix before version 2 kept its results. Never written to.

The file lies in LM Studio's home: ``{"llms": {NAME: {"id", "path", "size_bytes", "ctx_in",
"tested_max_context", "context_test_status", "context_test_date", …}}}``. Anybody may have
edited it, so each value is taken only where it makes sense, and an entry that says nothing
about a context is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NoReturn, cast

import attrs

from lmstrix.errors import StoreError
from lmstrix.stores.archive import ImportedResult
from lmstrix.stores.exchange import as_object, read_document

__all__ = ["REGISTRY_NAME", "Registry", "parse_registry", "read_registry"]

REGISTRY_NAME = "lmstrix.json"
MAX_TEXT = 4096
"""Longest name or path that is taken, in characters: that of most file systems."""
LARGEST = 2**53
"""Largest number taken: beyond it JSON readers no longer agree on what was written."""
_STATUSES = frozenset({"untested", "testing", "completed", "failed"})
_WHAT = "the lmstrix.json of an earlier LMStrix"


@attrs.frozen(kw_only=True)
class Registry:
    """What could be read of a registry."""

    results: tuple[ImportedResult, ...]
    skipped: int = 0
    """Entries that are no objects or have no name that can be used."""
    untested: int = 0
    """Entries that say nothing about a context."""


def read_registry(path: Path) -> Registry:
    """The registry in the file `path`; raises `StoreError`."""
    return parse_registry(read_document(path, _WHAT))


def parse_registry(text: str) -> Registry:
    """The registry in `text`; raises `StoreError` where it is no registry at all."""
    try:
        value: object = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise StoreError("This is no registry: not JSON.", hint=f"Give {_WHAT}.") from error
    models: object = as_object(value).get("llms")
    if not isinstance(models, dict):
        raise StoreError('This is no registry: it has no "llms".', hint=f"Give {_WHAT}.")
    results = list[ImportedResult]()
    skipped = untested = 0
    for name, entry in as_object(cast("object", models)).items():
        result = _result(name, entry)
        if result is None:
            skipped += 1
        elif _says_nothing(result):
            untested += 1
        else:
            results.append(result)
    return Registry(results=tuple(dict.fromkeys(results)), skipped=skipped, untested=untested)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _result(name: str, entry: object) -> ImportedResult | None:
    fields = as_object(entry)
    # Some versions filed a model under its path; its own name is the better key.
    key = _text(fields.get("id")) or _text(fields.get("model_id")) or _text(name)
    if not key or not fields:
        return None
    status = _text(fields.get("context_test_status"))
    return ImportedResult(
        source=REGISTRY_NAME,
        model_key=key,
        model_path=_text(fields.get("path")),
        size_bytes=_count(fields, "size_bytes"),
        declared_context=_count(fields, "ctx_in"),
        tested_context=_count(fields, "tested_max_context"),
        loadable_context=_count(fields, "loadable_max_context"),
        last_good_context=_count(fields, "last_known_good_context"),
        last_bad_context=_count(fields, "last_known_bad_context"),
        status=status if status in _STATUSES else "",
        tested_at=_moment(fields.get("context_test_date")),
    )


def _says_nothing(result: ImportedResult) -> bool:
    return (
        result.tested_context is None
        and result.loadable_context is None
        and result.last_good_context is None
        and result.last_bad_context is None
    )


def _text(value: object) -> str:
    """A text of sensible length that can be written as UTF-8, or an empty one."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:
        return ""
    return value


def _count(fields: Mapping[str, object], name: str) -> int | None:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 < value <= LARGEST else None


def _moment(value: object) -> datetime | None:
    """A time; one without an offset was this machine's local time."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone() if moment.tzinfo is None else moment
    except (ValueError, OverflowError, OSError):
        return None
