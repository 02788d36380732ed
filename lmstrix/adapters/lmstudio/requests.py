"""What is sent to LM Studio: parameters of its calls and channels, as plain JSON.

Keys are those of LM Studio's own configuration schema (`lms-kv-config` in lmstudio-js).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lmstrix.json_values import Json

__all__ = [
    "ONE_SESSION",
    "history",
    "load_request",
    "load_stack",
    "predict_request",
    "specifier",
    "template_request",
]

ONE_SESSION: Mapping[str, object] = {
    # By default four sessions share the cache, and the context is fitted to the memory. An engine
    # ignores the keys of the other one.
    "llm.load.numParallelSessions": 1,
    "llm.load.useUnifiedKvCache": True,
    "llm.load.llama.autoFit": False,
    "llm.load.mlx.autoFit": False,
}
"""Load settings besides the context length that the SDK's public API does not know. The cache
is unified so that the whole of it is one prompt's, also where the number is not taken."""

_PASS_THROUGH = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def specifier(identifier: str) -> Json:
    """Names a loaded instance."""
    return {"type": "query", "query": {"identifier": identifier}}


def history(text: str, system: str = "") -> Json:
    """A chat of one user message, with a system message before it unless that is empty."""
    said = [("system", system)] * bool(system) + [("user", text)]
    return {
        "messages": [
            {"role": role, "content": [{"type": "text", "text": content}]} for role, content in said
        ]
    }


def load_stack(context_length: int) -> Json:
    """The configuration of a load."""
    return _stack({"llm.load.contextLength": context_length, **ONE_SESSION})


def load_request(key: str, identifier: str, context_length: int, ttl_s: int) -> Json:
    """Parameter of `loadModel`, which always makes a new instance."""
    return {
        "modelKey": key,
        "identifier": identifier,
        "ttlMs": ttl_s * 1000,
        "loadConfigStack": load_stack(context_length),
    }


def template_request(identifier: str, text: str, system: str) -> Json:
    """Parameter of `applyPromptTemplate` for one user message, and a system message before it."""
    return {
        "specifier": specifier(identifier),
        "history": history(text, system),
        "predictionConfigStack": {"layers": []},
        "opts": {},
    }


def predict_request(
    identifier: str, text: str, *, max_tokens: int, stop: Sequence[str], raw: bool, system: str = ""
) -> Json:
    """Parameter of a greedy `predict` that refuses to shorten its prompt.

    With `raw` the text is continued as it is: a template that passes it through replaces the
    model's own. The repeat penalty is off, as it would punish repeating what was asked for.
    """
    fields: dict[str, object] = {
        "llm.prediction.contextOverflowPolicy": "stopAtLimit",
        "llm.prediction.maxPredictedTokens": _checked(max_tokens),
        "llm.prediction.temperature": 0,
        "llm.prediction.topKSampling": 1,
        "llm.prediction.repeatPenalty": _checked(1.0),
        "llm.prediction.stopStrings": list(stop),
    }
    if raw:
        fields["llm.prediction.promptTemplate"] = {
            "type": "jinja",
            "stopStrings": [],
            "jinjaPromptTemplate": {
                "template": _PASS_THROUGH,
                "bosToken": "",
                "eosToken": "",
                "inputConfig": {
                    "messagesConfig": {"contentConfig": {"type": "string"}},
                    "useTools": False,
                },
            },
        }
    return {
        "modelSpecifier": specifier(identifier),
        "history": history(text, system),
        "predictionConfigStack": _stack(fields),
    }


def _checked(value: object) -> Json:
    return {"checked": True, "value": value}


def _stack(fields: Mapping[str, object]) -> Json:
    pairs = [{"key": key, "value": value} for key, value in fields.items()]
    return {"layers": [{"layerName": "apiOverride", "config": {"fields": pairs}}]}
