"""LM Studio's protocol as plain JSON: frames, values, errors, prompts, and malformed frames."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from random import Random
from typing import cast

from lmstrix.errors import (
    EngineCrashed,
    InvalidModel,
    LMStrixError,
    LoadRefused,
    ModelNotFound,
    OutOfMemory,
)
from lmstrix.json_values import Json, as_list, as_object
from lmstrix.models import ModelInfo, Prompt


class WireError(Exception):
    """An error as the server sends it. `body` is the `error` member of its frame."""

    def __init__(
        self,
        title: str,
        *,
        cause: str = "",
        suggestion: str = "",
        display_data: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(title)
        more = {"cause": cause, "suggestion": suggestion, "displayData": display_data}
        self.body: Json = {"title": title, "rootTitle": title}
        self.body |= {key: value for key, value in more.items() if value}


def config_fields(stack: object) -> Json:
    """The fields of a config stack by key, as they were sent; the first layer wins."""
    fields: Json = {}
    for layer in as_list(as_object(stack).get("layers")):
        config = as_object(as_object(layer).get("config"))
        for field in map(as_object, as_list(config.get("fields"))):
            if isinstance(key := field.get("key"), str):
                fields.setdefault(key, field.get("value"))
    return fields


def unboxed(value: object) -> object:
    """The value in a checkbox, None if it is not checked. Other values are returned unchanged."""
    if not isinstance(value, dict) or "checked" not in value:
        return cast("object", value)
    box = as_object(cast("object", value))
    return box.get("value") if box["checked"] else None


def config_pairs(fields: Mapping[str, object]) -> Json:
    """Fields as a flat config, the shape of `getLoadConfig` and of a prediction's result."""
    return {"fields": [{"key": key, "value": value} for key, value in fields.items()]}


def replaced(value: object, changes: Mapping[str, object]) -> object:
    """`value` with every member named in `changes` replaced, at any depth."""
    if isinstance(value, list):
        return [replaced(item, changes) for item in as_list(cast("object", value))]
    if not isinstance(value, dict):
        return value
    members = as_object(cast("object", value)).items()
    return {
        key: changes[key] if key in changes else replaced(item, changes) for key, item in members
    }


# Errors ------------------------------------------------------------------------------------------

GUARDRAIL = (
    "Model load error: Model loading was stopped due to insufficient system resources. Under "
    "the current settings, this model requires approximately more memory than is available. "
    "If you believe this is a mistake, you can try to change the model loading guardrails in "
    "the settings."
)
CRASHED = "The model has crashed without additional information. (Exit code: 18446744072635812000)"

UNLOADED = WireError("Model unloaded.", cause="The model was unloaded while it worked.")


def no_model(name: str) -> WireError:
    """No downloaded model has that key."""
    return WireError(
        f"Cannot find a model with path or key {name!r}",
        suggestion="Use one of the downloaded models.",
        display_data={"code": "generic.noModelMatchingQuery", "query": {"path": name}},
    )


def no_instance(identifier: str, loaded: list[str]) -> WireError:
    """No loaded model has that identifier."""
    return WireError(
        f"Cannot find a loaded model with identifier {identifier!r}",
        display_data={
            "code": "generic.identifierNotFound",
            "identifier": identifier,
            "loadedModelsSample": loaded[:5],
            "totalLoadedModels": len(loaded),
        },
    )


def load_error(error: LMStrixError) -> WireError:
    """Why a load failed."""
    match error:
        case LoadRefused():
            return WireError(GUARDRAIL, suggestion="Load a smaller context.")
        case OutOfMemory():
            return WireError(
                "Failed to load model", cause=f"error loading model: unable to allocate: {error}"
            )
        case InvalidModel():
            return WireError("Error loading model.", cause=f"invalid model file: {error}")
        case ModelNotFound():
            return no_model(str(error))
        case EngineCrashed():
            return WireError(CRASHED)
        case _:
            return WireError("Failed to load model", cause=str(error))


def wire_error(error: Exception) -> WireError:
    """The error frame's content for an error that is not about a load."""
    if isinstance(error, WireError):
        return error
    if isinstance(error, EngineCrashed):
        return WireError(CRASHED, cause=str(error))
    return WireError("Error in channel handler", cause=str(error) or repr(error))


# Names of models ---------------------------------------------------------------------------------


def public_key(model: ModelInfo) -> str:
    """The key that LM Studio gives a model: never the path of a file."""
    if not model.key.lower().endswith(".gguf"):
        return model.key
    return PurePosixPath(model.key.replace("\\", "/")).stem.lower()


def listing_path(key: str) -> str:
    """The model's path in LM Studio's models folder."""
    return f"{key}/{PurePosixPath(key).name}.gguf"


# The server's own chat template ----------------------------------------------------------------

_USER = "<|im_start|>user\n"
_TURN = "<|im_end|>\n"
_ASSISTANT = _TURN + "<|im_start|>assistant\n"


def rendered(prompt: Prompt) -> str:
    """The text of `prompt`, up to the place where the assistant goes on."""
    return f"{_USER}{prompt.user}{_ASSISTANT}{prompt.answer_prefix}"


def parsed_prompt(text: str) -> Prompt:
    """The prompt that `rendered` turns into `text`; any other text is a user message."""
    if not text.startswith(_USER) or _ASSISTANT not in text:
        return Prompt(user=text)
    user, _, prefix = text.removeprefix(_USER).rpartition(_ASSISTANT)
    return Prompt(user=user, answer_prefix=prefix)


def is_rendered(text: str) -> bool:
    """Whether `text` was made by `rendered`."""
    return text.startswith(_USER) and _ASSISTANT in text


def chat_prompt(history: object) -> Prompt:
    """A chat as one prompt: earlier turns are part of the user's text.

    A trailing message of the assistant is the beginning of its answer. Instructions of the
    system stand before everything.
    """
    turns = [_turn(as_object(m)) for m in as_list(as_object(history).get("messages"))]
    prefix = turns.pop()[1] if turns and turns[-1][0] == "assistant" else ""
    system = [text + "\n\n" for role, text in turns if role == "system"]
    spoken = [turn for turn in turns if turn[0] != "system"]
    user = "".join(system)
    for number, (role, text) in enumerate(spoken):
        user += (f"{_TURN}<|im_start|>{role}\n" if number else "") + text
    return Prompt(user=user, answer_prefix=prefix)


def _turn(message: Mapping[str, object]) -> tuple[str, str]:
    parts = (as_object(part) for part in as_list(message.get("content")))
    text = "".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")
    return str(message.get("role", "user")), text


# Malformed frames --------------------------------------------------------------------------------

IMPOSSIBLE = (10**30, 10**12, 1e308, -1, float("nan"))
"""Impossible as counts, lengths or durations; 10**12 fits a 64-bit integer."""
NO_OBJECT = ("", "[]", "null", "17", '"text"', "{")
OTHER_TYPES: tuple[object, ...] = (None, "", "text", [], [1], {}, {"a": 1}, True, 0.5)

_WAYS = ("cut", "other type", "left out", "unknown", "impossible", "no object")

_Place = tuple[dict[str | int, object], str | int]
"""A container, and a key or an index in it."""


class Mangler:
    """Makes frames malformed, the same ones for the same seed and the same frames."""

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(seed)  # noqa: S311 - reproducible

    def mangled(self, frame: Json, share: float) -> str | None:
        """The text to send in place of `frame`; None to send it as it is."""
        random = self._random
        if random.random() >= share:
            return None
        copy = as_object(json.loads(json.dumps(frame)))
        way, places = random.choice(_WAYS), _places(copy)
        if way == "no object":
            return random.choice(NO_OBJECT)
        if way == "unknown":
            return json.dumps({**copy, "type": "somethingNew"})
        if way == "impossible":
            places = [(c, at) for c, at in places if type(c[at]) in (int, float)]
        if way == "cut" or not places:
            text = json.dumps(copy)
            return text[: random.randrange(len(text))]
        container, at = random.choice(places)
        if way == "left out":
            del container[at]
        elif way == "impossible":
            container[at] = random.choice(IMPOSSIBLE)
        else:
            others = [v for v in OTHER_TYPES if type(v) is not type(container[at])]
            container[at] = random.choice(others)
        return json.dumps(copy)


def _places(value: object) -> list[_Place]:
    """Every member and every item in `value`, at any depth."""
    if isinstance(value, dict):
        keys: Iterable[str | int] = list(cast("dict[str | int, object]", value))
    elif isinstance(value, list):
        keys = range(len(cast("list[object]", value)))
    else:
        return []
    container = cast("dict[str | int, object]", value)
    own: list[_Place] = [(container, key) for key in keys]
    return own + [place for key in keys for place in _places(container[key])]
