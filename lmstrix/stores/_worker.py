"""The blocking calls of one store, one at a time and away from the event loop."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from lmstrix.errors import StoreError
from lmstrix.stores._files import store_error

__all__ = ["Worker"]

T = TypeVar("T")


class Worker:
    """Runs calls in a worker thread; every failure is a `StoreError` about `path`.

    A call that has begun is not abandoned when its task is cancelled.
    """

    def __init__(self, path: Path, on_failure: Callable[[Exception], None] | None = None) -> None:
        self._path = path
        self._on_failure = on_failure
        # The lock is what keeps calls apart, also from several event loops. The limiter, one
        # for each event loop, keeps the waiting ones from filling the pool of threads.
        self._lock = threading.Lock()
        self._limiter: RunVar[anyio.CapacityLimiter | None] = RunVar("lmstrix_store")

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns; raises `StoreError`."""
        return await anyio.to_thread.run_sync(self._work, work, limiter=self._turn())

    def _turn(self) -> anyio.CapacityLimiter:
        limiter = self._limiter.get(None)
        if limiter is None:
            limiter = anyio.CapacityLimiter(1)
            self._limiter.set(limiter)
        return limiter

    def _work(self, work: Callable[[], T]) -> T:
        with self._lock:
            try:
                return work()
            except StoreError:
                raise
            # A ValueError is a text that the system does not take, such as a path with a NUL.
            except (sqlite3.Error, OSError, ValueError) as error:
                if self._on_failure is not None:
                    self._on_failure(error)
                raise store_error(error, self._path) from error
