"""A measurement followed in a notebook: one output that is drawn again in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from lmstrix.events import (
    Event,
    LoadProgressed,
    MeasurementStarted,
    PrefillProgressed,
    TrialFinished,
)
from lmstrix.notebook.course import Course
from lmstrix.notebook.templating import fill
from lmstrix.reports.escaping import escape_controls

__all__ = ["NotebookProgress"]

REDRAW_S = 0.25
"""Seconds between two drawings for what happens often. Each is a message to the browser."""

OFTEN = (LoadProgressed, PrefillProgressed, TrialFinished)
"""Any other event is drawn at once."""


class Handle(Protocol):
    """An output that can be drawn again."""

    def update(self, bundle: Mapping[str, str]) -> None:
        """Show `bundle` (text by MIME type) in the place of what was shown."""
        ...


class NotebookProgress:
    """An observer for notebooks: ``LMStrix(observers=[NotebookProgress()])``.

    Each measurement gets an output of its own below the cell: phase, bracket, and a row for each
    length. It shows plain text where there is no HTML, as in IPython on a terminal.

    `display` shows a bundle and gives back its handle; without it IPython's does, and
    `ModuleNotFoundError` is raised at once where there is no IPython.
    """

    def __init__(
        self,
        *,
        display: Callable[[Mapping[str, str]], Handle] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._display = display or _ipython_display()
        self._clock = clock
        self._course = Course()
        self._handle: Handle | None = None
        self._drawn_s = 0.0

    def __call__(self, event: Event, /) -> None:
        """Hear one event, and show it if it is time."""
        if isinstance(event, MeasurementStarted):
            self._course, self._handle = Course(), None
        self._course.hear(event)
        if self._handle is None:
            self._handle = self._display(self._bundle())
            self._drawn_s = self._clock()
        elif self._is_time() or not isinstance(event, OFTEN):
            self._handle.update(self._bundle())
            self._drawn_s = self._clock()

    def _is_time(self) -> bool:
        return self._clock() - self._drawn_s >= REDRAW_S

    def _bundle(self) -> dict[str, str]:
        line = escape_controls(self._course.line)
        return {"text/html": fill("progress", course=self._course), "text/plain": line}


class _IPythonHandle(Protocol):
    def update(self, obj: object, **kwargs: object) -> None: ...


class _Show(Protocol):
    def __call__(self, obj: object, *, raw: bool, display_id: bool) -> _IPythonHandle | None: ...


class _RawHandle:
    """IPython's handle, for bundles."""

    def __init__(self, handle: _IPythonHandle | None) -> None:
        self._handle = handle

    def update(self, bundle: Mapping[str, str]) -> None:
        """Show `bundle` instead."""
        # Outside of a notebook IPython prints, and there is nothing to draw again.
        if self._handle is not None:
            self._handle.update(dict(bundle), raw=True)


def _ipython_display() -> Callable[[Mapping[str, str]], Handle]:
    try:
        import IPython.display as ipython  # noqa: PLC0415 - there is one in every notebook
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "NotebookProgress needs IPython, which every notebook has; elsewhere use"
            " LMStrix.watch or an observer of your own",
            name=error.name,
        ) from error

    show = cast("_Show", ipython.display)  # pyright: ignore[reportUnknownMemberType] - untyped

    def display(bundle: Mapping[str, str]) -> Handle:
        return _RawHandle(show(dict(bundle), raw=True, display_id=True))

    return display
