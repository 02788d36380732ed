"""Finds the model that a name means, and suggests near names when there is none."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from lmstrix.errors import ModelNotFound, NotMeasured
from lmstrix.models import ContextReport, StoredReport

_LONGEST = 200
"""Characters of an unknown name that are compared and shown."""
_MOST_SHOWN = 5


def find_key(name: str, keys: Iterable[str]) -> str | None:
    """The key that `name` means: a full key, or the last part of one; None if there is none.

    Raises `ModelNotFound` if it is the last part of several.
    """
    known = set(keys)
    if name in known:
        return name
    same = sorted(key for key in known if name and last_part(key) == name)
    if len(same) > 1:
        raise ModelNotFound(
            f"{name[:_LONGEST]!r} could be any of {len(same)} models:"
            f" {', '.join(same[:_MOST_SHOWN])}",
            hint="Give the full name, as `lmstrix scan` shows it.",
        )
    return same[0] if same else None


def may_mean(name: str, key: str) -> bool:
    """Whether some adapter takes `name` for `key`: a key, its last part, or one without a tag."""
    return bool(name) and name in {key, last_part(key), key.removesuffix(":latest")}


def last_part(key: str) -> str:
    """The part of `key` after its last slash."""
    return key.rpartition("/")[2]


def suggestion(name: str, keys: Iterable[str]) -> str:
    """``Did you mean …?`` with up to three keys close to `name`; empty if none is close."""
    spelled = {spelling: key for key in keys for spelling in (last_part(key), key)}
    folded = {spelling.lower(): key for spelling, key in spelled.items()}
    near = difflib.get_close_matches(name[:_LONGEST].lower(), folded, n=3, cutoff=0.6)
    meant = dict.fromkeys(f'"{folded[spelling]}"' for spelling in near)
    return f"Did you mean {' or '.join(meant)}?" if meant else ""


def reports_of(reports: Sequence[StoredReport], name: str) -> Sequence[ContextReport]:
    """Every report of the model that `name` means, in their order: at least one.

    The path of a GGUF file means that file first: keys of such files are paths as the user
    wrote them, so two files can have the same key.

    Raises:
        NotMeasured: there is no report of such a model.
        ModelNotFound: the name could mean several models.
    """
    everything = [stored.report for stored in reports]
    of_file = _reports_of_file(everything, name)
    if of_file:
        return of_file
    wanted = _real_gguf(name)
    if wanted and os.path.isfile(wanted):  # it was not measured, but another one of its key was
        sizes = {0, Path(wanted).stat().st_size}  # 0: not known
        everything = [
            one
            for one in everything
            if one.model.size_bytes in sizes and not os.path.isfile(_real_gguf(one.model.path))
        ]
    models = [report.model for report in everything]
    by_path = next((model.key for model in models if name and model.path == name), None)
    keys = [model.key for model in models]
    key = by_path if by_path and name not in keys else find_key(name, keys)
    if not key:
        hint = suggestion(name, keys) or (
            "Measure it first: lmstrix test MODEL. `lmstrix list` shows the known models."
        )
        raise NotMeasured(f"{name[:_LONGEST]!r} has not been measured yet", hint=hint)
    found = [report for report in everything if report.model.key == key]
    files = {path for one in found if os.path.isfile(path := _real_gguf(one.model.path))}
    if len(files) > 1:
        raise ModelNotFound(
            f"{name[:_LONGEST]!r} could be any of {len(files)} files:"
            f" {', '.join(sorted(files)[:_MOST_SHOWN])}",
            hint="Give the path of one.",
        )
    return found


def _reports_of_file(reports: Sequence[ContextReport], name: str) -> Sequence[ContextReport]:
    wanted = _real_gguf(name)
    if not wanted:
        return ()
    paths = {report.model.path for report in reports}
    same = {path for path in paths if Path(path).is_absolute() and _real_gguf(path) == wanted}
    return [report for report in reports if report.model.path in same]


def _real_gguf(name: str) -> str:
    """The real path of the GGUF file `name`; empty if it is not the path of one."""
    try:
        is_file = name.lower().endswith(".gguf")
        return os.path.realpath(Path(name).expanduser()) if is_file else ""
    except (OSError, ValueError, RuntimeError):  # a NUL, no such user, no working folder
        return ""
