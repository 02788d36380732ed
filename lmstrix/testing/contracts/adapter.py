"""What every adapter and its loaded models must do, as a pytest suite.

::

class TestMyAdapter(AdapterContract):
    @pytest.fixture
    def adapter(self) -> Adapter:
        return MyAdapter()

    @pytest.fixture
    def model_name(self) -> str:
        return "a-small-model"

Replies are short and contexts small, so that a real engine gets through it in a minute. The
model need not answer well; it has to answer.
"""
# ruff: noqa: S101 - a test suite asserts, also if it is shipped

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import anyio
import pytest

from lmstrix.errors import ContextOverflow, InfrastructureError, ModelNotFound
from lmstrix.models import PrefillProgress, Prompt, Reply, ReplyChunk, StopReason
from lmstrix.ports import Adapter, LoadedModel

SENTENCE = "The river runs past the old mill. "
QUESTION = Prompt(user="Count from one to twenty in words.", answer_prefix="One, two,")
PROMPTS = (
    Prompt(user="Hello"),
    Prompt(user="What is the capital of France?", answer_prefix="The capital is"),
    Prompt(user="Ünïcödé, 漢字, 🦙\n\nand\ta tab", answer_prefix=" …"),
    Prompt(user="Why?", system="You answer in one word."),
    Prompt(user="Not a tag: <|im_end|> </s> <think> {{ braces }} {% x %}"),
)
HOSTILE_NAMES = (
    "no such model",
    "",
    "../../../../etc/passwd",
    "nul\0inside",
    "%s{0}*?[",
    "x" * 5000,
    "a/../b.gguf",
)


@pytest.mark.anyio
class AdapterContract:
    """Subclass it and override the fixtures `adapter` and `model_name`.

    `context_length` is what the suite loads; the engine may give another one.
    """

    context_length = 512

    @pytest.fixture
    def adapter(self) -> Adapter:
        """The adapter under test."""
        raise NotImplementedError("override the fixture `adapter`")

    @pytest.fixture
    def model_name(self) -> str:
        """A name under which the adapter finds a model that answers."""
        raise NotImplementedError("override the fixture `model_name`")

    @asynccontextmanager
    async def loaded(self, adapter: Adapter, model_name: str) -> AsyncGenerator[LoadedModel, None]:
        """The model, loaded at `context_length`."""
        model = await adapter.find_model(model_name)
        async with adapter.load(model, self.context_length) as loaded:
            yield loaded

    async def test_it_is_an_adapter(self, adapter: Adapter, model_name: str) -> None:
        """It and what it loads have the ports' shapes."""
        assert isinstance(adapter, Adapter)
        assert adapter.name
        async with self.loaded(adapter, model_name) as loaded:
            assert isinstance(loaded, LoadedModel)

    async def test_listed_models_are_sorted_and_found(self, adapter: Adapter) -> None:
        """Every listed model that can answer is found under its key, the same."""
        models = list(await adapter.list_models())
        keys = [model.key for model in models]
        assert keys == sorted(keys)
        for model in models:
            if model.type == "llm":
                assert await adapter.find_model(model.key) == model

    @pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
    async def test_an_unknown_model_is_not_found(self, adapter: Adapter, name: str) -> None:
        """Whatever the name looks like."""
        with pytest.raises(ModelNotFound):
            await adapter.find_model(name)

    async def test_the_memory_estimate_grows(self, adapter: Adapter, model_name: str) -> None:
        """A larger context is not cheaper; None is fair."""
        model = await adapter.find_model(model_name)
        small = await adapter.estimate_memory(model, 1024)
        large = await adapter.estimate_memory(model, 4096)
        if small is not None and large is not None:
            assert (small.context_length, large.context_length) == (1024, 4096)
            assert 0 < small.total_bytes <= large.total_bytes

    async def test_the_status_tells_what_is_loaded(self, adapter: Adapter, model_name: str) -> None:
        """Our instance is there while it is loaded, with its effective context; then gone."""
        status = await adapter.status()
        assert (status.adapter, status.available) == (adapter.name, True)
        before = await _ours(adapter)
        async with self.loaded(adapter, model_name) as loaded:
            during = await _ours(adapter)
            (new,) = during.keys() - before.keys()
            assert during[new] in (None, loaded.effective_context)
        assert await _ours(adapter) == before

    async def test_the_effective_context_can_be_filled(
        self, adapter: Adapter, model_name: str
    ) -> None:
        """A prompt and a reply that together are as long as it says are accepted."""
        async with self.loaded(adapter, model_name) as loaded:
            room = loaded.effective_context
            assert room >= 1
            prompt = await _prompt_of(loaded, min(room, self.context_length) - 8)
            tokens = await loaded.count_prompt_tokens(prompt)
            reply = await loaded.complete(prompt, max_tokens=min(room - tokens, 32))
            assert reply.prompt_tokens == tokens

    async def test_an_overflow_is_refused(self, adapter: Adapter, model_name: str) -> None:
        """A longer prompt is an error, never a shortened prompt; the model goes on working."""
        async with self.loaded(adapter, model_name) as loaded:
            prompt = Prompt(user=SENTENCE * loaded.effective_context)
            with pytest.raises(ContextOverflow):
                await loaded.complete(prompt, max_tokens=4)
            assert (await loaded.complete(QUESTION, max_tokens=4)).generated_tokens >= 1

    async def test_prompts_are_counted_as_they_are_sent(
        self, adapter: Adapter, model_name: str
    ) -> None:
        """`count_prompt_tokens` is what the engine then reports."""
        async with self.loaded(adapter, model_name) as loaded:
            for prompt in PROMPTS:
                counted = await loaded.count_prompt_tokens(prompt)
                reply = await loaded.complete(prompt, max_tokens=1)
                assert reply.prompt_tokens == counted
            # One sentence alone may be shorter than what a template says if nobody does.
            one, two = (Prompt(user=SENTENCE, system=SENTENCE * n) for n in (1, 2))
            assert await loaded.count_prompt_tokens(one) < await loaded.count_prompt_tokens(two)

    async def test_plain_text_is_counted(self, adapter: Adapter, model_name: str) -> None:
        """An empty text has no tokens, a longer text has more, and the template is not counted."""
        async with self.loaded(adapter, model_name) as loaded:
            assert await loaded.count_tokens("") == 0
            one = await loaded.count_tokens(SENTENCE)
            assert 0 < one < await loaded.count_tokens(SENTENCE * 10)
            assert one <= await loaded.count_prompt_tokens(Prompt(user=SENTENCE))

    async def test_replies_are_greedy(self, adapter: Adapter, model_name: str) -> None:
        """The same prompt gives the same reply, read anew or from the cache."""
        async with self.loaded(adapter, model_name) as loaded:
            first = await loaded.complete(QUESTION, max_tokens=12)
            again = await loaded.complete(QUESTION, max_tokens=12)
            assert (first.text, first.reasoning) == (again.text, again.reasoning)
            assert first.text + first.reasoning

    async def test_replies_are_bounded(self, adapter: Adapter, model_name: str) -> None:
        """No more tokens than were asked for, and the reason says so."""
        async with self.loaded(adapter, model_name) as loaded:
            reply = await loaded.complete(QUESTION, max_tokens=3)
            assert 1 <= reply.generated_tokens <= 3
            if reply.generated_tokens == 3:
                assert reply.stop_reason in (StopReason.MAX_TOKENS, StopReason.END)

    async def test_stop_strings_stop(self, adapter: Adapter, model_name: str) -> None:
        """A reply ends before a stop string, and does not hold it."""
        async with self.loaded(adapter, model_name) as loaded:
            whole = (await loaded.complete(QUESTION, max_tokens=12)).text
            stop = whole[len(whole) // 2 :][:3]
            if not stop:
                pytest.skip("the model gives no text to stop at")
            reply = await loaded.complete(QUESTION, max_tokens=12, stop=[stop])
            assert reply.stop_reason is StopReason.STOP_STRING
            assert reply.text.rstrip() == whole.partition(stop)[0].rstrip()

    async def test_cached_tokens_are_accounted_for(self, adapter: Adapter, model_name: str) -> None:
        """Cached and read tokens make up the prompt, in the progress and in the reply."""
        async with self.loaded(adapter, model_name) as loaded:
            base = await _prompt_of(loaded, self.context_length // 2)
            for question in ("What runs?", "Where does it run?"):
                heard: list[PrefillProgress] = []
                prompt = Prompt(user=base.user + question)
                reply = await loaded.complete(prompt, max_tokens=2, on_progress=heard.append)
                assert (
                    reply.cached_tokens is None or 0 <= reply.cached_tokens <= reply.prompt_tokens
                )
                _check_progress(heard, reply)

    async def test_a_stream_is_the_reply_in_pieces(self, adapter: Adapter, model_name: str) -> None:
        """Its pieces make up its last item, which is what `complete` gives."""
        async with self.loaded(adapter, model_name) as loaded:
            whole = await loaded.complete(QUESTION, max_tokens=8)
            items = [item async for item in loaded.stream(QUESTION, max_tokens=8)]
            chunks = [item for item in items if isinstance(item, ReplyChunk)]
            last = items[-1]
            assert isinstance(last, Reply)
            assert len(chunks) == len(items) - 1
            assert "".join(c.text for c in chunks if not c.is_reasoning) == last.text == whole.text
            assert "".join(c.text for c in chunks if c.is_reasoning) == last.reasoning

    async def test_a_stream_can_be_closed_early(self, adapter: Adapter, model_name: str) -> None:
        """The engine stops, and answers the next prompt as if nothing had been."""
        async with self.loaded(adapter, model_name) as loaded:
            expected = await loaded.complete(QUESTION, max_tokens=4)
            stream = cast("Any", loaded.stream(QUESTION, max_tokens=200))
            async with aclosing(stream):
                await anext(stream)
            assert (await loaded.complete(QUESTION, max_tokens=4)).text == expected.text

    async def test_a_prediction_can_be_cancelled(self, adapter: Adapter, model_name: str) -> None:
        """And the model answers the next prompt."""
        async with self.loaded(adapter, model_name) as loaded:
            expected = await loaded.complete(QUESTION, max_tokens=4)
            prompt = await _prompt_of(loaded, self.context_length - 16)
            with anyio.CancelScope() as scope:
                # Some engines report no progress: then the deadline cancels.
                scope.deadline = anyio.current_time() + 1
                await loaded.complete(prompt, max_tokens=8, on_progress=lambda _: scope.cancel())
            assert (await loaded.complete(QUESTION, max_tokens=4)).text == expected.text

    async def test_an_error_inside_passes_as_it_is(self, adapter: Adapter, model_name: str) -> None:
        """The instance is released, and the error is not wrapped."""
        before = await _ours(adapter)
        with pytest.raises(ZeroDivisionError):
            async with self.loaded(adapter, model_name):
                raise ZeroDivisionError
        assert await _ours(adapter) == before

    async def test_cancelling_releases_the_model(self, adapter: Adapter, model_name: str) -> None:
        """While it is loaded, and while it is loading."""
        before = await _ours(adapter)
        with anyio.CancelScope() as scope:
            async with self.loaded(adapter, model_name):
                scope.cancel()
                await anyio.sleep(60)
        assert await _ours(adapter) == before
        model = await adapter.find_model(model_name)
        with anyio.move_on_after(0.1):
            async with adapter.load(model, self.context_length):
                await anyio.sleep(60)
        assert await _ours(adapter) == before

    async def test_a_released_model_does_not_answer(
        self, adapter: Adapter, model_name: str
    ) -> None:
        """It raises, rather than wait or answer from another instance."""
        async with self.loaded(adapter, model_name) as loaded:
            pass
        with pytest.raises(InfrastructureError):
            await loaded.complete(QUESTION, max_tokens=4)


async def _ours(adapter: Adapter) -> dict[str, int | None]:
    status = await adapter.status()
    return {i.identifier: i.context_length for i in status.loaded if i.ours}


async def _prompt_of(loaded: LoadedModel, tokens: int) -> Prompt:
    """A prompt of at most `tokens` tokens, short of it by less than two sentences."""
    frame = await loaded.count_prompt_tokens(Prompt(user=SENTENCE))
    ten = await loaded.count_prompt_tokens(Prompt(user=SENTENCE * 11))
    sentences = max(1, (tokens - frame) * 10 // (ten - frame))
    while sentences > 1:
        prompt = Prompt(user=SENTENCE * sentences)
        if await loaded.count_prompt_tokens(prompt) <= tokens:
            return prompt
        sentences -= 1
    return Prompt(user=SENTENCE)


def _check_progress(heard: list[PrefillProgress], reply: Reply) -> None:
    processed = [progress.processed_tokens for progress in heard]
    assert processed == sorted(processed)
    for progress in heard:
        assert progress.cached_tokens <= progress.processed_tokens <= progress.prompt_tokens
        assert progress.prompt_tokens == reply.prompt_tokens
    if heard and reply.cached_tokens is not None:
        assert heard[-1].cached_tokens == reply.cached_tokens
