"""Sound files of stores, which the tests damage."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz_stores import CONTENTS
from lmstrix.stores._files import one_at_a_time
from lmstrix.stores._jsonl_log import Log
from lmstrix.stores._sqlite_file import open_database
from lmstrix.stores._sqlite_merge import merge
from lmstrix.stores._sqlite_rows import RowReader

__all__ = ["DATABASE", "LINES"]


def _lines() -> list[object]:
    # A folder of its own, and gone before the first test.
    with TemporaryDirectory() as folder:
        path = Path(folder, "store")
        log = Log(path)
        with one_at_a_time(path):
            log.catch_up()
            log.merge(CONTENTS)
        return [json.loads(line) for line in path.read_bytes().splitlines()]


LINES = _lines()


def _database() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "store")
        connection, _ = open_database(path)
        with closing(connection):
            merge(connection, RowReader(), CONTENTS)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("VACUUM")
        return path.read_bytes()


DATABASE = _database()
