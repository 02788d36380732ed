"""How facts show themselves in a notebook. What that looks like is put in from above.

Facts stand low in the layers and know neither tables nor charts. Their ``_repr_html_`` and
``plot`` ask here, by type; `lmstrix.notebook` registers the answers.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

__all__ = ["chart_of", "html_of"]


@singledispatch
def html_of(fact: object, /) -> str | None:
    """`fact` as an HTML fragment, everything untrusted in it escaped; None where nobody
    registered one: a notebook then shows its text.
    """
    del fact
    return None


@singledispatch
def chart_of(fact: object, /) -> Any:  # noqa: ANN401 - `plot` of each fact says which chart
    """`fact` as an altair chart. Raises `TypeError` where nobody registered one."""
    raise TypeError(f"there is no chart of {type(fact).__name__}")
