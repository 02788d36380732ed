"""The adapter over the real engine and the demo model."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio
import httpx
import pytest

from lmstrix.adapters.llamacpp import LlamaCppAdapter, LlamaCppModel
from lmstrix.adapters.llamacpp.engine import Engine
from lmstrix.errors import (
    ConfigurationError,
    ContextOverflow,
    EngineCrashed,
    EngineTimeout,
)
from lmstrix.models import LoadProgress, PrefillProgress, Prompt, Reply, ReplyChunk
from lmstrix.ports import Adapter
from lmstrix.testing.contracts.adapter import AdapterContract

pytestmark = pytest.mark.engine
by_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")

LONG = Prompt(user="The river runs past the old mill. " * 200)
SHORT = Prompt(user="Count from one to ten in words.", answer_prefix="One, two,")


@pytest.mark.anyio
class TestContract(AdapterContract):
    @pytest.fixture
    def adapter(self, llamacpp: LlamaCppAdapter) -> Adapter:
        return llamacpp

    @pytest.fixture
    def model_name(self, demo_model: Path) -> str:
        return str(demo_model)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def seen_of(pid: int) -> str:
    """What every user of the machine may see of a process, and its environment."""
    files = [Path(f"/proc/{pid}/{name}") for name in ("cmdline", "environ")]
    return "".join(file.read_text("utf-8", "replace") for file in files if file.exists())


@by_signals
async def test_the_server_caps_the_context_and_we_say_so(
    llamacpp: LlamaCppAdapter, demo_model: Path
) -> None:
    model = await llamacpp.find_model(demo_model.stem)
    heard: list[LoadProgress] = []
    async with llamacpp.load(model, 20_000, on_progress=heard.append) as loaded:
        assert loaded.effective_context == 8192
        assert loaded.model == model
        pid = engine_of(loaded).pid
        assert alive(pid)
    assert not alive(pid)
    assert sorted({progress.fraction for progress in heard}) == [0.0, 1.0]


async def test_room_for_the_reply_is_wanted_beforehand(
    llamacpp: LlamaCppAdapter, demo_model: Path
) -> None:
    model = await llamacpp.find_model(str(demo_model))
    async with llamacpp.load(model, 512) as loaded:
        tokens = await loaded.count_prompt_tokens(SHORT)
        with pytest.raises(ContextOverflow) as caught:
            await loaded.complete(SHORT, max_tokens=512 - tokens + 1)
        assert (caught.value.prompt_tokens, caught.value.context_length) == (tokens, 512)
        with pytest.raises(ConfigurationError):
            await loaded.complete(SHORT, max_tokens=0)
        with pytest.raises(ConfigurationError, match="surrogate"):
            await loaded.complete(Prompt(user="\udcff"), max_tokens=1)


async def test_requests_at_the_same_time_take_turns(
    llamacpp: LlamaCppAdapter, demo_model: Path
) -> None:
    model = await llamacpp.find_model(str(demo_model))
    prompts = [SHORT, Prompt(user="Name a colour.", answer_prefix="A colour is")]
    replies: dict[int, Reply] = {}
    async with llamacpp.load(model, 512) as loaded:
        expected = [await loaded.complete(prompt, max_tokens=6) for prompt in prompts]

        async def ask(number: int) -> None:
            replies[number] = await loaded.complete(prompts[number], max_tokens=6)

        async with anyio.create_task_group() as group:
            for number in range(len(prompts)):
                group.start_soon(ask, number)
    assert [replies[number].text for number in range(2)] == [reply.text for reply in expected]


async def test_a_thought_is_closed_before_an_answer_prefix(
    llamacpp: LlamaCppAdapter, thinking_model: Path
) -> None:
    model = await llamacpp.find_model(str(thinking_model))
    async with llamacpp.load(model, 512) as loaded:
        formatted = await loaded._formatted(SHORT)
        assert formatted.endswith("<think>\n\n</think>\n\nOne, two,")
        answer = await loaded.complete(SHORT, max_tokens=4)
        assert (bool(answer.text), answer.reasoning) == (True, "")
        prompt = Prompt(user="Count from one to ten.")
        chunks = [c async for c in loaded.stream(prompt, max_tokens=4) if isinstance(c, ReplyChunk)]
        assert chunks
        assert all(chunk.is_reasoning for chunk in chunks)


async def test_without_a_template_the_text_goes_as_it_is(
    llamacpp: LlamaCppAdapter, plain_model: Path
) -> None:
    model = await llamacpp.find_model(str(plain_model))
    async with llamacpp.load(model, 512) as loaded:
        prompt = Prompt(user="The sky is", answer_prefix=" blue and")
        tokens = await loaded.count_tokens("The sky is blue and")
        reply = await loaded.complete(prompt, max_tokens=4)
        assert reply.prompt_tokens == tokens


@by_signals
@pytest.mark.parametrize("when", ["prefill", "idle"])
async def test_a_killed_engine_is_a_crash(
    llamacpp: LlamaCppAdapter, demo_model: Path, when: str
) -> None:
    model = await llamacpp.find_model(str(demo_model))
    async with llamacpp.load(model, 4096) as loaded:
        pid = engine_of(loaded).pid

        def kill(progress: PrefillProgress) -> None:
            os.kill(pid, signal.SIGKILL)

        if when == "idle":
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineCrashed, match="SIGKILL"):
            await loaded.complete(LONG, max_tokens=4, on_progress=kill)
        with pytest.raises(EngineCrashed, match="SIGKILL"):
            await loaded.count_tokens("again")
    assert not alive(pid)


@by_signals
async def test_a_silent_engine_is_given_up(demo_model: Path) -> None:
    adapter = LlamaCppAdapter([], threads=1, stall_timeout_s=1.0)
    model = await adapter.find_model(str(demo_model))
    async with LlamaCppAdapter([], threads=1).load(model, 4096) as loaded:
        loaded._stall.seconds = 1.0
        pid = engine_of(loaded).pid

        def stop(progress: PrefillProgress) -> None:
            os.kill(pid, signal.SIGSTOP)

        with pytest.raises(EngineTimeout, match="no progress"):
            await loaded.complete(LONG, max_tokens=4, on_progress=stop)
    assert not alive(pid)


def engine_of(loaded: LlamaCppModel) -> Engine:
    assert loaded._engine is not None
    return loaded._engine


async def cancelled_at(loaded: LlamaCppModel, prompt: Prompt, tokens: int) -> PrefillProgress:
    """The progress of a prefill that is cancelled once `tokens` were read."""
    heard: list[PrefillProgress] = []
    with anyio.CancelScope() as scope:

        def listen(progress: PrefillProgress) -> None:
            heard.append(progress)
            if progress.processed_tokens >= tokens:
                scope.cancel()

        await loaded.complete(prompt, max_tokens=4, on_progress=listen)
    assert scope.cancelled_caught
    return heard[-1]


async def test_a_cancelled_prefill_stops_the_engine(
    llamacpp: LlamaCppAdapter, demo_model: Path
) -> None:
    model = await llamacpp.find_model(str(demo_model))
    prompt = Prompt(user="The river runs past the old mill. " * 800)
    async with llamacpp.load(model, 8192) as loaded:
        first = await cancelled_at(loaded, prompt, 1)
        assert first.processed_tokens < first.prompt_tokens
        # What was read stays in the cache: had it read on, that would be nearly all.
        again = await cancelled_at(loaded, prompt, 0)
        assert 0 < again.cached_tokens < again.prompt_tokens // 2
        assert (await loaded.complete(SHORT, max_tokens=4)).generated_tokens >= 1


@by_signals
async def test_an_interrupt_is_the_parents_to_handle(
    llamacpp: LlamaCppAdapter, demo_model: Path
) -> None:
    model = await llamacpp.find_model(str(demo_model))
    async with llamacpp.load(model, 512) as loaded:
        pid = engine_of(loaded).pid
        assert os.getpgid(pid) != os.getpgid(0)
        os.kill(pid, signal.SIGINT)
        assert (await loaded.complete(SHORT, max_tokens=2)).generated_tokens >= 1


async def test_the_key_is_wanted_and_nowhere_to_be_seen(
    llamacpp: LlamaCppAdapter, demo_model: Path
) -> None:
    model = await llamacpp.find_model(str(demo_model))
    async with llamacpp.load(model, 512) as loaded:
        key, pid = engine_of(loaded).api_key, engine_of(loaded).pid
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(
                f"{engine_of(loaded).address}/completion", json={"prompt": "x"}
            )
        assert answer.status_code == 401
        assert key not in seen_of(pid)


async def test_proxies_are_not_asked(
    llamacpp: LlamaCppAdapter, demo_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    model = await llamacpp.find_model(str(demo_model))
    async with llamacpp.load(model, 512) as loaded:
        assert await loaded.count_tokens("one two") == 2
