"""Deadlines of the LM Studio adapter, in seconds."""

from __future__ import annotations

import attrs

from lmstrix.errors import ConfigurationError

__all__ = ["Deadlines"]

CHARACTERS_PER_S = 50_000
"""A small machine formats and counts a hundred times as many."""
TTL_S = 1800
"""Long enough for everything that a measurement does between two requests."""
LOAD_S = 600.0
LOAD_BYTES_PER_S = 16 * 2**20
"""Slower than any disk that one would keep models on."""


@attrs.frozen(kw_only=True)
class Deadlines:
    """How long LM Studio may be silent."""

    connect_s: float = 10.0
    """Greeting and connecting, each."""
    call_s: float = 30.0
    """A remote call; `for_text` adds what long texts take."""
    ask_s: float = 3.0
    """A call that older servers do not know, and therefore do not answer."""
    stall_s: float = 120.0
    """Between two signs of progress in a prediction, or ten times the slowest step so far."""
    load_s: float | None = None
    """Between two signs of progress in a load; None for ten minutes and a second for each 16 MiB
    of weights. A measurement has a shorter one, `MeasureOptions.load_timeout_s`."""
    ttl_s: int = TTL_S
    """Where this process dies, LM Studio unloads what it left after so many idle seconds."""

    def __attrs_post_init__(self) -> None:
        for name, value in attrs.asdict(self).items():
            if value is not None and not value > 0:
                raise ConfigurationError(f"the deadline {name} must be positive, got {value}")

    def for_text(self, text: str) -> float:
        """For a call that sends `text`."""
        return self.call_s + len(text) / CHARACTERS_PER_S

    def for_load(self, size_bytes: int) -> float:
        """Between two signs of progress in a load of so many bytes of weights."""
        return LOAD_S + size_bytes / LOAD_BYTES_PER_S if self.load_s is None else self.load_s
