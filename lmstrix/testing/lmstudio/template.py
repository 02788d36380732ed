"""The server's own chat template, and the way back from a rendered text to a prompt.

Every model behind the server has this one ChatML-like template on the wire. What comes back
through a raw completion is taken apart again, so that the adapter behind the server can apply
the model's real template.
"""

from __future__ import annotations

from collections.abc import Mapping

from lmstrix.models import Prompt
from lmstrix.testing.lmstudio.wire import as_list, as_object

__all__ = ["chat_prompt", "parsed_prompt", "rendered"]

_USER = "<|im_start|>user\n"
_TURN = "<|im_end|>\n"
_ASSISTANT = _TURN + "<|im_start|>assistant\n"


def rendered(prompt: Prompt) -> str:
    """The text of `prompt`, which ends where the assistant goes on."""
    return f"{_USER}{prompt.user}{_ASSISTANT}{prompt.answer_prefix}"


def parsed_prompt(text: str) -> Prompt:
    """The prompt that `rendered` makes `text` of; any other text is a user message."""
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
