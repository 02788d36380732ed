"""The faults of a stand-in LM Studio, as data.

A `Script` describes the server's misbehaviour; what the *model* does wrong is said by the
adapter behind the server (`lmstrix.testing.simulated.SimulatedModel`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs


class Step(enum.StrEnum):
    """A step of the protocol at which the server can fall silent."""

    GREETING = "greeting"
    UPGRADE = "upgrade"
    AUTH = "auth"
    LIST = "list"
    """Both `listDownloadedModels` and `listLoaded`."""
    ESTIMATE = "estimate"
    LOAD_CREATED = "load_created"
    """Not even `resolved` is sent; nothing is loaded."""
    LOAD_AFTER_PROGRESS = "load_after_progress"
    """The instance is loaded, and `success` is never sent."""
    INFO = "info"
    """Both `getModelInfo` and `getLoadConfig`."""
    TEMPLATE = "template"
    COUNT = "count"
    """Both `countTokens` and `tokenize`."""
    PREDICT_CREATED = "predict_created"
    PREDICT_MID_STREAM = "predict_mid_stream"
    """The first fragment is sent, and nothing after it."""
    UNLOAD = "unload"


class LoadFate(enum.StrEnum):
    """The fate of a load."""

    LOADS = "loads"
    REFUSED = "refused"
    """By the guardrail, with LM Studio's words."""
    FAILED = "failed"
    OUT_OF_MEMORY = "out_of_memory"
    HANGS = "hangs"
    """`resolved` and some progress, then nothing until it is cancelled."""


class OddPacket(enum.StrEnum):
    """A packet that no SDK knows."""

    IN_CHANNEL = "in_channel"
    """An unknown message in a load or a prediction, before the result."""
    TOP_LEVEL = "top_level"
    """An unknown kind of frame, before the first answer in a channel."""


OVERFLOW_TEXTS = (
    (
        "Trying to keep the first 3008 tokens when context the overflows. However, the model is "
        "loaded with context length of only 2000 tokens, which is not enough."
    ),
    "Cannot truncate prompt with n_keep (3008) >= n_ctx (2000)",
    "Context size has been exceeded.",
)
"""Messages of LM Studio's engines about a prompt that is too long."""

ODD_LISTING: tuple[Mapping[str, object], ...] = (
    {
        "type": "drafter",
        "modelKey": "odd/drafter",
        "format": "gguf",
        "displayName": "A drafter",
        "path": "odd/drafter/drafter.gguf",
        "sizeBytes": 1024,
        "maxContextLength": 4096,
    },
    {
        "type": "llm",
        "modelKey": "odd/pte",
        "format": "pte",
        "displayName": "A format of tomorrow",
        "publisher": "odd",
        "path": "odd/pte/model.pte",
        "sizeBytes": 1024,
        "vision": False,
        "trainedForToolUse": False,
        "maxContextLength": 4096,
        "quantization": {"name": "Q4_K_M", "bits": 4},
        "variants": ["odd/pte@q4_k_m", "odd/pte@q8_0"],
        "selectedVariant": "odd/pte@q4_k_m",
        "deviceIdentifier": "another-machine",
    },
    {"type": "llm", "modelKey": "odd/bare"},
)
"""Listing entries that SDK 1.5.0 does not know or that lack what it requires."""


@attrs.frozen(kw_only=True)
class Script:
    """How the server misbehaves; by default it does not. Lengths are tokens, counts from 1."""

    load: LoadFate = LoadFate.LOADS
    load_above: int = 0
    """`load` is the fate of loads that ask for more than this."""
    load_times: int | None = None
    """How many loads meet that fate; None for all of them."""
    clamps_to: int | None = None
    """Larger requests are silently loaded at this context."""
    raises_to: int | None = None
    """Smaller requests are silently loaded at this context."""
    overflow_error: str = ""
    """A prompt that does not fit fails with this text, if `stopAtLimit` was asked, instead
    of stopping: `OVERFLOW_TEXTS` has those that engines are known for.
    """
    overflow_empty: bool = False
    """A prompt that does not fit gets an empty answer that looks like success, likewise."""
    truncates: bool = False
    """Cuts the middle of a prompt that does not fit although `stopAtLimit` was asked."""
    hides_truncation: bool = False
    """A cut prompt is reported with the count of the whole one."""
    endless_from: int | None = None
    """From this prediction on, replies never end, however many tokens were asked for."""
    ignores_cancel: bool = False
    """Goes on with a load or a prediction whose channel was cancelled."""
    load_s: float = 0.0
    """How long a load takes, in seconds, on top of the adapter's own time."""
    load_progress: int = 0
    """How often progress is reported in that time."""
    prefill_s: float = 0.0
    """How long the reading of a prompt takes, in seconds, likewise."""
    fragment_s: float = 0.0
    """Pause before each fragment, in seconds."""
    call_s: float = 0.0
    """How long each call takes, in seconds, likewise."""
    drop_at_load: int | None = None
    """The socket is dropped when this load begins, and nothing is loaded; later ones work."""
    drop_after_load: int | None = None
    """The socket is dropped when this load is done and before `success`: the instance stays."""
    drop_in_prediction: int | None = None
    """The socket is dropped after the first fragment of this prediction, likewise."""
    crash_drops_all_above: int | None = None
    """A prompt of more tokens than this takes the server down: every connection is dropped,
    and what clients have loaded is gone. The user's own instances are there again after it."""
    crash_away_s: float = 0.0
    """How long the server does not answer after such a crash, in seconds."""
    silent_at: frozenset[Step] = frozenset()
    """Steps at which nothing is answered; the socket stays open."""
    silent_after: int = 0
    """How often each of those steps is answered before the silence begins."""
    silent_times: int | None = None
    """How often each step meets silence; None: from then on."""
    odd_packets: frozenset[OddPacket] = frozenset()
    replaced: Mapping[str, object] = attrs.field(factory=dict[str, object])
    """Wire key to the value that is sent in its place, wherever it occurs in an answer:
    ``{"contextLength": "many", "promptTokensCount": float("nan")}``.
    """
    listing: tuple[Mapping[str, object], ...] = ()
    """More entries for `listDownloadedModels`, such as `ODD_LISTING`."""
    listing_extras: Mapping[str, object] = attrs.field(factory=dict[str, object])
    """Fields added to every listed model."""
    auth_refused: bool = False
    malformed: float = 0.0
    """The share of frames that are sent malformed, from 0 to 1: see
    `lmstrix.testing.lmstudio.wire.Mangler`.
    """
    malformed_seed: int = 0
    """Which ones, and how."""
    raw_prompt_offset: int = 0
    """Added to `promptTokensCount` of raw completions: the server puts tokens of its own
    around the text, so that it disagrees with `countTokens`.
    """
