"""stdin, stdout and stderr as commands need them: there, and able to take any text."""

from __future__ import annotations

import os
import sys

__all__ = ["discard_unwritten", "prepare_streams"]

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def prepare_streams() -> None:
    """Fill in the streams that this process was started without, as by ``>&-`` or a daemon.

    A missing one is a null device under its own number. Else the next file to be opened would
    get that number, and with it all that an engine's process prints.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            _reserve(number)
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - pathlib is not imported yet; open to the end
    for stream in (sys.stdout, sys.stderr):
        # A model's name must not break the output of a terminal that is not UTF-8.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def discard_unwritten() -> None:
    """Forget what stdout and stderr did not take: Python would try once more at the very end,
    complain by itself, and put its own exit code in the place of ours.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def _reserve(number: int) -> None:
    """Put the null device under `number`, unless something has it already."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
        os.set_inheritable(number, True)  # noqa: FBT003 - the function takes it by place only
