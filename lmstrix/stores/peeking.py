"""A look at a store's file that changes nothing: no file is made, none is set aside.

Opening a store creates it, brings it up to date, and moves a damaged file away. Who only wants to
say how it stands, or to complete a name while somebody types, looks with `peek`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import cast

import attrs

from lmstrix.stores._files import code_of
from lmstrix.stores._sqlite_schema import APPLICATION_ID, SCHEMA

__all__ = ["Open", "Peek", "foreign", "peek"]

WAIT_S = 1.0
"""How long a look waits for somebody who is writing."""
MOST_BYTES = 1 << 30
"""Of a file of lines, which has to be read through."""
_LINES_HEAD = b'{"kind": "store", "format": "lmstrix"'
_SQLITE_HEAD = b"SQLite format 3\0"
_NO_STORE = "it is no store of LMStrix"
_OTHER_DATABASE = "it is a database of another program"


@attrs.frozen(kw_only=True)
class Open:
    """A measurement that was interrupted: whose, and the key it is kept under."""

    model_key: str
    key: str


@attrs.frozen(kw_only=True)
class Peek:
    """What a file is and holds. `trouble` is a sentence, empty where there is none."""

    kind: str
    """``sqlite``, ``jsonl``, or an empty string: no store, or none yet."""
    exists: bool
    size_bytes: int = 0
    """With the log that SQLite keeps beside it."""
    reports: int = 0
    """Finished measurements, of which `lmstrix list` shows the newest of each kind."""
    model_keys: tuple[str, ...] = ()
    """Of all measurements, the newest first, each once."""
    unfinished: tuple[Open, ...] = ()
    trouble: str = ""


def peek(path: Path) -> Peek:
    """What stands in the file `path`. Never raises for what is in it, or for its absence."""
    try:
        size = _size(path)
        head = _head(path)
    except FileNotFoundError:
        return Peek(kind="", exists=False)
    except (OSError, ValueError) as error:
        return Peek(kind="", exists=True, trouble=f"it cannot be read: {error}")
    found = Peek(kind="", exists=True, size_bytes=size)
    if not head:
        return found
    if head.startswith(_SQLITE_HEAD):
        return _in_sqlite(path, attrs.evolve(found, kind="sqlite"))
    if head.startswith(_LINES_HEAD):
        return _in_lines(path, attrs.evolve(found, kind="jsonl"))
    return attrs.evolve(found, trouble=_NO_STORE)


def foreign(path: Path) -> str:
    """Why the file `path` was never a store, a sentence. Quick, however large it is.

    Empty for a store, also a damaged one or one that is being made, and where there is no file.
    """
    try:
        head = _head(path)
    except (OSError, ValueError):
        return ""
    if head.startswith(_LINES_HEAD) or _LINES_HEAD.startswith(head):
        return ""
    if not head.startswith(_SQLITE_HEAD):
        return _NO_STORE
    try:
        with closing(_read_only(Path(os.path.realpath(path)))) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        return ""
    return _OTHER_DATABASE if application != APPLICATION_ID and objects else ""


def _head(path: Path) -> bytes:
    """The first bytes of a file; raises `OSError`, as for a pipe, at which opening would wait."""
    if not path.is_dir() and not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is no regular file")
    with path.open("rb") as file:
        return file.read(100)


def _size(path: Path) -> int:
    total = path.stat().st_size
    for suffix in ("-wal", "-journal"):
        try:
            total += Path(f"{path}{suffix}").stat().st_size
        except OSError:
            continue
    return total


def _in_sqlite(path: Path, found: Peek) -> Peek:
    try:
        connection = _read_only(Path(os.path.realpath(path)))
        try:
            return _rows(connection, found)
        finally:
            connection.close()
    except sqlite3.Error as error:
        if code_of(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return attrs.evolve(found, trouble="another process is writing to it")
        return attrs.evolve(found, trouble=f"it is damaged ({error})")


def _read_only(path: Path) -> sqlite3.Connection:
    """Without a log beside it nobody writes, and SQLite needs no file of its own to read it."""
    quiet = not Path(f"{path}-wal").exists()
    mode = "immutable=1" if quiet else "mode=ro"
    connection = sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, timeout=WAIT_S)
    connection.text_factory = bytes  # a damaged row may hold what is no UTF-8
    return connection


def _rows(connection: sqlite3.Connection, found: Peek) -> Peek:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        return attrs.evolve(found, trouble=_OTHER_DATABASE)
    if version > SCHEMA:
        return attrs.evolve(found, trouble="a newer LMStrix wrote it")
    (reports,) = connection.execute(
        "SELECT count(*) FROM measurements WHERE finished IS NOT NULL"
    ).fetchone()
    models = connection.execute("SELECT model FROM measurements ORDER BY seq DESC")
    unfinished = connection.execute(
        "SELECT model, key FROM measurements"
        " WHERE finished IS NULL AND replaced = 0 ORDER BY seq DESC"
    )
    return attrs.evolve(
        found,
        reports=reports,
        model_keys=_keys(model for (model,) in models),
        unfinished=tuple(
            Open(model_key=name, key=_decoded(key))
            for model, key in unfinished
            if (name := _key(_object(model)))
        ),
    )


def _in_lines(path: Path, found: Peek) -> Peek:
    """Measurements begun and not finished or replaced by a later one under the same key."""
    if found.size_bytes > MOST_BYTES:
        return attrs.evolve(found, trouble="it is too long to look through")
    begun: dict[str, Open] = {}
    names: list[str] = []
    reports = 0
    try:
        with path.open("rb") as file:
            for line in file:
                if line.startswith((b'{"kind": "begin"', b'{"kind": "report"')):
                    fact = _object(line)
                    reports += _follow(fact, begun, names)
    except OSError as error:
        return attrs.evolve(found, trouble=f"it cannot be read: {error}")
    return attrs.evolve(
        found,
        reports=reports,
        model_keys=tuple(dict.fromkeys(reversed(names))),
        unfinished=tuple(reversed(begun.values())),
    )


def _follow(fact: dict[str, object], begun: dict[str, Open], names: list[str]) -> int:
    """Take over one line; 1 where it holds a report."""
    identity, model = _word(fact.get("measurement")), fact.get("model")
    if fact.get("kind") == "report":
        begun.pop(identity, None)
        return 1
    name = _key(cast("dict[str, object]", model)) if isinstance(model, dict) else ""
    if name:
        names.append(name)
        if not fact.get("replaced") and fact.get("offered", True):
            new = Open(model_key=name, key=_word(fact.get("key")))
            for older in [i for i, open_ in begun.items() if open_.key == new.key]:
                del begun[older]
            begun[identity] = new
    return 0


def _keys(models: Iterable[object]) -> tuple[str, ...]:
    names = (_key(_object(model)) for model in models)
    return tuple(dict.fromkeys(name for name in names if name))


def _key(model: dict[str, object]) -> str:
    return _word(model.get("key"))


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _object(text: object) -> dict[str, object]:
    """A JSON object; an empty one for whatever else a damaged row holds."""
    try:
        value: object = json.loads(_text(text))
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _decoded(key: object) -> str:
    """The key that `lmstrix.stores._sqlite_rows.encode_key` wrote, or an empty string."""
    try:
        value: object = json.loads(_text(key))
    except (ValueError, RecursionError):
        return ""
    return _word(value)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""
