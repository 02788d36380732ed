"""The frames and values of LM Studio's protocol, as plain JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

__all__ = [
    "Json",
    "WireError",
    "as_list",
    "as_object",
    "channel_error",
    "channel_message",
    "config_fields",
    "config_pairs",
    "replaced",
    "rpc_error",
    "rpc_result",
    "unboxed",
    "warning",
]

Json = dict[str, object]


class WireError(Exception):
    """An error as the server tells it: title, cause and what else LM Studio sends."""

    def __init__(
        self,
        title: str,
        *,
        cause: str = "",
        suggestion: str = "",
        display_data: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(title)
        self.title = title
        self.cause = cause
        self.suggestion = suggestion
        self.display_data = display_data

    def body(self) -> Json:
        """The `error` member of an error frame."""
        body: Json = {"title": self.title, "rootTitle": self.title}
        if self.cause:
            body["cause"] = self.cause
        if self.suggestion:
            body["suggestion"] = self.suggestion
        if self.display_data is not None:
            body["displayData"] = dict(self.display_data)
        return body


def as_object(value: object) -> Json:
    """`value` if it is a JSON object, else an empty one."""
    return cast("Json", value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    """`value` if it is a JSON array, else an empty one."""
    return cast("list[object]", value) if isinstance(value, list) else []


def rpc_result(call_id: int, result: object) -> Json:
    """The answer to a call; a call that returns nothing has no `result`."""
    frame: Json = {"type": "rpcResult", "callId": call_id}
    if result is not None:
        frame["result"] = result
    return frame


def rpc_error(call_id: int, error: WireError) -> Json:
    """The answer to a call that failed."""
    return {"type": "rpcError", "callId": call_id, "error": error.body()}


def channel_message(channel_id: int, message: Mapping[str, object]) -> Json:
    """A message in a channel."""
    return {"type": "channelSend", "channelId": channel_id, "message": dict(message)}


def channel_error(channel_id: int, error: WireError) -> Json:
    """The end of a channel that failed."""
    return {"type": "channelError", "channelId": channel_id, "error": error.body()}


def warning(kind: str, text: str) -> Json:
    """What LM Studio sends instead of an answer when a client breaks the protocol."""
    return {"type": "communicationWarning", "kind": kind, "warning": text}


def config_fields(stack: object) -> Json:
    """The fields of a config stack by key, as they were sent; the first layer wins."""
    fields: Json = {}
    for layer in as_list(as_object(stack).get("layers")):
        config = as_object(as_object(layer).get("config"))
        for key, value in _pairs(as_list(config.get("fields"))):
            fields.setdefault(key, value)
    return fields


def unboxed(value: object) -> object:
    """What a checkbox value says: None where it is not checked. Others are what they are."""
    if not isinstance(value, dict) or "checked" not in value:
        return cast("object", value)
    box = as_object(cast("object", value))
    return box.get("value") if box["checked"] else None


def _pairs(fields: Iterable[object]) -> Iterable[tuple[str, object]]:
    for field in map(as_object, fields):
        key = field.get("key")
        if isinstance(key, str):
            yield key, field.get("value")


def config_pairs(fields: Mapping[str, object]) -> Json:
    """Fields as a flat config, the shape of `getLoadConfig` and of a prediction's result."""
    return {"fields": [{"key": key, "value": value} for key, value in fields.items()]}


def replaced(value: object, changes: Mapping[str, object]) -> object:
    """`value` with every member that `changes` names set to what it says, at any depth."""
    if isinstance(value, list):
        return [replaced(item, changes) for item in as_list(cast("object", value))]
    if not isinstance(value, dict):
        return value
    members = as_object(cast("object", value)).items()
    return {
        key: changes[key] if key in changes else replaced(item, changes) for key, item in members
    }
