"""Which channels there are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import attrs

from lmstrix.testing.lmstudio.channel import Channel
from lmstrix.testing.lmstudio.loading import get_or_load, load_model
from lmstrix.testing.lmstudio.predicting import predict
from lmstrix.testing.lmstudio.wire import Json

__all__ = ["CHANNELS", "ChannelKind"]


@attrs.frozen
class ChannelKind:
    """A kind of channel: what it does, and the members that its parameter must have."""

    run: Callable[[Channel, Json], Awaitable[None]]
    needs: Mapping[str, type]


_LOADS = {
    "loadModel": ChannelKind(load_model, {"modelKey": str, "loadConfigStack": dict}),
    "getOrLoad": ChannelKind(get_or_load, {"identifier": str, "loadConfigStack": dict}),
}
CHANNELS: dict[str, dict[str, ChannelKind]] = {
    "llm": {
        **_LOADS,
        "predict": ChannelKind(
            predict, {"modelSpecifier": dict, "history": dict, "predictionConfigStack": dict}
        ),
    },
    "embedding": _LOADS,
    "system": {},
    "files": {},
    "repository": {},
}
"""The channels by namespace and endpoint."""
