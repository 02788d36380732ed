"""Replies as they come in pieces, and refusals in the words that were seen."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstrix import errors
from lmstrix.adapters import streaming
from lmstrix.adapters.http import Refusal, prediction_error
from lmstrix.json_values import Json
from lmstrix.models import PrefillProgress, Reply, ReplyChunk


def split(pieces: list[str], *, inside: bool) -> tuple[str, str]:
    splitter = streaming.ThoughtSplitter(inside=inside)
    chunks = [chunk for piece in pieces for chunk in splitter.feed(piece)]
    chunks += splitter.finish()
    return (
        "".join(c.text for c in chunks if c.is_reasoning),
        "".join(c.text for c in chunks if not c.is_reasoning),
    )


@pytest.mark.parametrize(
    ("text", "inside", "expected"),
    [
        ("42", False, ("", "42")),
        (" 42\n", False, ("", " 42\n")),
        ("<think>\nhm</think>\n\n42", False, ("hm", "42")),
        ("\n<think></think>42", False, ("", "42")),
        ("hm</think>\n\n42 </think>", True, ("hm", "42 </think>")),
        ("hm", True, ("hm", "")),
        ("hm </thin", True, ("hm </thin", "")),
        ("<thin", False, ("", "<thin")),
        ("a <think>b</think>", False, ("", "a <think>b</think>")),
        ("</think>", False, ("", "</think>")),
        ("", True, ("", "")),
    ],
)
def test_thoughts_are_told_apart(text: str, inside: bool, expected: tuple[str, str]) -> None:
    assert split([text], inside=inside) == expected
    assert split(list(text), inside=inside) == expected


PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<thi", "nk>", "</", "think>", " ", "\n", "x", "<"])
    | st.text(max_size=5),
    max_size=12,
)


@given(pieces=PIECES, inside=st.booleans())
def test_how_the_text_is_cut_does_not_matter(pieces: list[str], inside: bool) -> None:
    assert split(pieces, inside=inside) == split(["".join(pieces)], inside=inside)


@pytest.mark.parametrize(
    ("formatted", "expected"),
    [
        ("<|im_start|>assistant\n", "<|im_start|>assistant\nYes"),
        ("assistant\n<think>\n", "assistant\n<think>\n\n</think>\n\nYes"),
        ("assistant<think>", "assistant<think>\n\n</think>\n\nYes"),
        ("assistant\n<think>\n\n</think>\n\n", "assistant\n<think>\n\n</think>\n\nYes"),
        ("<|start|>assistant", "<|start|>assistant<|channel|>final<|message|>Yes"),
    ],
)
def test_an_answer_prefix_stands_behind_the_thought(formatted: str, expected: str) -> None:
    assert streaming.with_answer_prefix(formatted, "Yes") == expected
    assert streaming.with_answer_prefix(formatted, "") == formatted
    assert not streaming.ends_in_thought(streaming.with_answer_prefix(formatted, "Yes"))


class Parrot(streaming.Generation):
    def _facts(self, event: Json, elapsed_s: float) -> list[PrefillProgress | ReplyChunk]:
        if "text" not in event:
            return [PrefillProgress(prompt_tokens=9, cached_tokens=0, processed_tokens=1)]
        self._written(str(event["text"]), elapsed_s)
        return self._said(self._splitter.feed(str(event["text"])))


ENDLESS: dict[str, tuple[Json, float, type[Exception]]] = {
    "in tokens": ({"text": "a "}, 0.0, errors.EngineUnavailable),
    "in empty pieces": ({"text": ""}, 0.0, errors.EngineUnavailable),
    "in text": ({"text": "a" * 50_000}, 0.0, errors.EngineUnavailable),
    "in prefill": ({}, 0.0, errors.EngineUnavailable),
    "in time": ({"text": "a"}, 100.0, errors.EngineTimeout),
}


@pytest.mark.parametrize(("event", "step_s", "kind"), ENDLESS.values(), ids=ENDLESS.keys())
def test_a_reply_that_never_ends(event: Json, step_s: float, kind: type[Exception]) -> None:
    generation = Parrot(prompt_tokens=9, max_tokens=4, in_thought=False)

    def feed_many() -> None:
        for number in range(2000):
            generation.feed(event, number * step_s)

    with pytest.raises(kind, match="did not end a reply of 4 tokens"):
        feed_many()


async def test_more_cached_tokens_than_the_prompt_has_say_nothing() -> None:
    """The costs of a search would be negative."""

    async def items(cached: int) -> streaming.Items:
        yield Reply(text="", prompt_tokens=500, cached_tokens=cached)

    assert (await streaming.whole_reply(items(500))).cached_tokens == 500
    assert (await streaming.whole_reply(items(501))).cached_tokens is None


# Refusals ----------------------------------------------------------------------------------------

LLAMA_SERVER = {
    "error": {
        "code": 400,
        "message": "request (2622 tokens) exceeds the available context size (512 tokens), try"
        " increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 2622,
        "n_ctx": 512,
    }
}
NO_IMAGES = {
    "error": {
        "code": 400,
        "message": "Multimodal data provided, but model does not support multimodal requests.",
        "type": "invalid_request_error",
    }
}

Body = dict[str, object] | None


def said(message: str, **more: object) -> dict[str, object]:
    return {"error": {"message": message, **more}}


CASES: dict[type[errors.LMStrixError], list[tuple[int, Body]]] = {
    errors.ContextOverflow: [
        (400, {**LLAMA_SERVER}),
        (400, {"error": json.dumps(LLAMA_SERVER)}),
        (400, {"error": "the input length exceeds the context length"}),
        (400, said("This model's maximum context length is 4096 tokens.")),
        (400, {"object": "error", "message": "The prompt is too long: 9000"}),
        (400, said("x", code="context_length_exceeded")),
        (500, {"error": "Context size has been exceeded."}),
        (413, said("too many tokens")),
        (400, said("x", type="invalid_request_error", code="context_length_exceeded")),
        (400, said("You passed 9 input tokens, but the model's context length is only 6.")),
        (400, {"detail": [{"msg": "input exceeds the maximum allowed length", "loc": ["body"]}]}),
        (400, said("Provider returned error", metadata={"raw": "prompt is too long: 9 > 6"})),
    ],
    errors.EngineUnavailable: [
        (413, None),
        (413, {"error": "Request Entity Too Large"}),
        (302, None),
        (401, said("Incorrect API key")),
        (429, said("slow down")),
        (429, {"message": "Too many tokens, please wait before trying again."}),
        (413, said("Request too large: Limit 6000 tokens per minute (TPM)")),
        (402, said("Prompt tokens limit exceeded: 9 > 6")),
    ],
    errors.EngineTimeout: [
        (408, said("Timeout")),
        (504, None),
        (524, None),
        (500, {"error": "code = DeadlineExceeded desc = context deadline exceeded"}),
    ],
    errors.EngineCrashed: [
        (500, {"error": "llama runner process has terminated: exit status 2"}),
        (500, {"error": "an error was encountered while running the model: EOF"}),
        (500, {"error": "model runner has unexpectedly stopped"}),
    ],
    errors.PredictionError: [
        (400, {"error": json.dumps(NO_IMAGES)}),
        (400, {"error": "illegal base64 data at input byte 0"}),
        (422, {"detail": [{"msg": "field required"}]}),
        (400, {"error": {"error": {"error": {"error": {"error": "x"}}}}}),
        (418, {"error": 17}),
    ],
    errors.ModelNotFound: [(404, {"error": "model 'x' not found"})],
    errors.ConnectionLost: [(503, said("Loading model", code=503)), (500, None)],
}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [(status, body, kind) for kind, cases in CASES.items() for status, body in cases],
)
def test_refusals(status: int, body: Body, kind: type[errors.LMStrixError]) -> None:
    error = prediction_error(Refusal.read("It", status, body))
    assert type(error) is kind
    if body and "exceed_context_size" in json.dumps(body):
        assert isinstance(error, errors.ContextOverflow)
        assert (error.prompt_tokens, error.context_length) == (2622, 512)
