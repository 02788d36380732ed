"""Whether colours are wanted; `lmstrix_cli.painting` knows where they go.

Apart from it because ``lmstrix --help`` needs only this: compiling patterns takes its time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["MODES", "wanted"]

MODES = ("auto", "always", "never")


def wanted(mode: str, environment: Mapping[str, str] | None = None) -> bool | None:
    """Whether to paint: yes, no, or None where each stream decides by being a terminal.

    An option goes before ``NO_COLOR``, that before ``FORCE_COLOR``, both before a terminal that
    says ``dumb``. Sources: https://no-color.org, https://force-color.org: any value but an empty
    one counts; ``FORCE_COLOR=0`` is taken for what it means.
    """
    environment = os.environ if environment is None else environment
    if mode != "auto":
        return mode == "always"
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR", "0") not in {"", "0"}:
        return True
    return False if environment.get("TERM") == "dumb" else None
