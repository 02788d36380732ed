"""A stand-in LM Studio: a server that speaks its wire protocol in front of any adapter.

::

    async with LMStudioServer(SimulatedAdapter(SimulatedModel())) as server:
        client = lmstudio.AsyncClient(server.host)

Nothing of LM Studio is needed, and nothing of it is touched. ``python -m
lmstrix.testing.lmstudio --gguf FILE`` serves a real model at LM Studio's own port.
"""

from lmstrix.testing.lmstudio.script import (
    ODD_LISTING,
    OVERFLOW_TEXTS,
    LoadFate,
    OddPacket,
    Script,
    Step,
)
from lmstrix.testing.lmstudio.server import LMStudioServer
from lmstrix.testing.lmstudio.state import LoadRecord, PredictionRecord, ServerCounters

__all__ = [
    "ODD_LISTING",
    "OVERFLOW_TEXTS",
    "LMStudioServer",
    "LoadFate",
    "LoadRecord",
    "OddPacket",
    "PredictionRecord",
    "Script",
    "ServerCounters",
    "Step",
]
