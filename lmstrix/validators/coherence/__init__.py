"""Coherence: does the model still write language?

`validator` asks for free writing; `text` tells language from what is none, with the help of
`signals`, `units`, `words` and `thresholds`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmstrix.validators.coherence.validator import Coherence

__all__ = ["Coherence"]


def __getattr__(name: str) -> object:
    """`Coherence`, imported when it is asked for: the other validators' judging uses `text`
    of this package, and `validator` uses theirs.
    """
    if name != "Coherence":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lmstrix.validators.coherence.validator import Coherence  # noqa: PLC0415 - see above

    return Coherence
