"""Measurements that would get in each other's way take turns, across processes.

The lock is a file that the system lets go of when its holder dies, however it dies.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import attrs
import platformdirs
from filelock import FileLock, Timeout

from lmstrix.errors import ConfigurationError
from lmstrix.json_values import as_count, as_text, read_object

THIS_MACHINE = "this machine"
"""What is contended for by everything that loads models into this machine's memory."""

FOLDER_VARIABLE = "LMSTRIX_TURNS"
"""Names another folder for the lock files."""

POLL_S = 0.2
"""How often a waiting process looks whether it is its turn. A measurement takes minutes."""

MOST_BYTES = 2048
MOST_NAME = 300
MOST_PID = 2**31


_tasks: dict[Path, int] = {}
"""The task of this process that holds each turn."""


@attrs.frozen(kw_only=True)
class Holder:
    """Who has the turn, as far as it says so itself: untrusted, for a message only."""

    pid: int | None = None
    model_key: str = ""


def turns_folder() -> Path:
    """Where the lock files are: ``LMSTRIX_TURNS``, or the user's state folder."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else platformdirs.user_state_path("lmstrix") / "turns"


def runs(pid: int) -> bool:
    """Whether a process of that number runs. In doubt it does."""
    if not 0 < pid < MOST_PID:
        return False
    if sys.platform == "win32":  # there is no signal that only asks
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


@asynccontextmanager
async def hold_turn(
    resource: str, model_key: str, on_wait: Callable[[Holder], None]
) -> AsyncGenerator[None, None]:
    """Wait for the turn on `resource`, without a limit, and hold it for the length of the context.

    `on_wait` hears who has it, again whenever that changes, and never where nobody has it.
    Cancelling ends the wait at once.

    Raises `ConfigurationError` in the task that has the turn already, which would wait forever, and
    `OSError` where the lock file cannot be made or locked.
    """
    task = anyio.get_current_task().id
    place = turns_folder() / hashlib.sha256(resource.encode(errors="replace")).hexdigest()
    lock = FileLock(place.with_suffix(".lock"), thread_local=False)
    told: Holder | None = None
    if _tasks.get(place) == task:
        raise ConfigurationError(
            f"another call of this task still uses {resource}", hint="End its stream first."
        )
    try:
        # The lock itself never blocks; a folder on a network may, hence the thread.
        while not await anyio.to_thread.run_sync(_try_lock, lock, place, model_key):
            holder = await anyio.to_thread.run_sync(_read_holder, place)
            if holder != told:
                told = holder
                on_wait(holder)
            await anyio.sleep(POLL_S)
        _tasks[place] = task
        yield
    finally:
        if lock.is_locked:
            _tasks.pop(place, None)
            with suppress(OSError):
                _told_by(place).unlink()
            lock.release()


def holders() -> list[Holder]:
    """Who has a turn right now, in any process; blocks for a moment. Raises nothing."""
    found: list[Holder] = []
    with suppress(OSError, NotImplementedError):
        for told in sorted(turns_folder().glob("*.json")):
            lock = FileLock(told.with_suffix(".lock"), thread_local=False)
            try:
                with lock.acquire(timeout=0):
                    pass  # who wrote this has died
            except Timeout:
                found.append(_read_holder(told))
    return found


def _try_lock(lock: FileLock, place: Path, model_key: str) -> bool:
    """Whether it is ours now; then it says so in a file beside the lock."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except NotImplementedError as error:  # a folder without locks
        raise OSError(str(error)) from error
    said = json.dumps({"pid": os.getpid(), "model": model_key[:MOST_NAME]})
    with suppress(OSError):  # a full disk: whoever waits is told less
        _told_by(place).write_text(said, encoding="ascii")
    return True


def _told_by(place: Path) -> Path:
    return place.with_suffix(".json")


def _read_holder(place: Path) -> Holder:
    """What the holder says of itself; anything may stand there, or nothing yet."""
    said = read_object(_told_by(place), MOST_BYTES)
    pid = as_count(said.get("pid"))
    return Holder(
        pid=pid if pid and pid < MOST_PID else None,
        model_key=as_text(said.get("model"))[:MOST_NAME],
    )
