"""The Ollama adapter over a stand-in, and how it counts without a tokenizer."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path

import anyio
import anyio.lowlevel
import attrs
import httpx
import pytest
from loads import load_error, loading

from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.adapters.ollama import OllamaAdapter, ollama_host
from lmstrix.errors import LoadFailed, ModelInUse, OutOfMemory, PromptTruncated
from lmstrix.json_values import as_count, as_object
from lmstrix.models import Prompt
from lmstrix.testing import simulated
from lmstrix.testing.contracts.adapter import AdapterContract
from lmstrix.testing.http_server import Answer, Request, StandInError
from lmstrix.testing.ollama import OllamaScript, OllamaServer
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel
from lmstrix.validators import haystack
from lmstrix.validators.haystack import WITH_CROWD, filler_sentences
from lmstrix.validators.recall import Recall

QUESTION = Prompt(user="What runs past the mill?", answer_prefix="The")
on_one_loop = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@asynccontextmanager
async def serving(*, preload: bool = False) -> AsyncGenerator[tuple[OllamaServer, OllamaAdapter]]:
    engine = SimulatedAdapter(SimulatedModel(key="m:latest"))
    users = [("m:latest", 4096)] if preload else ()
    async with OllamaServer(engine, preload=users) as server:
        yield server, OllamaAdapter(server.host, busy_s=5)
        assert server.left_behind == []


# The contract of simulated models runs on every event loop; here one is enough.
@on_one_loop
@pytest.mark.engine
@pytest.mark.slow
class TestContractOverTheRealEngine(AdapterContract):
    @pytest.fixture
    async def adapter(self, demo_model: Path) -> AsyncGenerator[OllamaAdapter, None]:  # pyright: ignore[reportIncompatibleMethodOverride] - a fixture
        async with OllamaServer(LlamaCppAdapter([demo_model.parent], threads=1)) as server:
            yield OllamaAdapter(server.host)

    @pytest.fixture
    def model_name(self, demo_model: Path) -> str:
        return demo_model.stem


async def test_every_request_forbids_truncation_in_the_same_words() -> None:
    async with serving() as (server, adapter), loading(adapter) as loaded:
        await loaded.complete(QUESTION, max_tokens=4)
        sent = [r.body for r in server.requests if "options" in r.body]
    assert {(r["truncate"], r["shift"], r["options"]["num_ctx"]) for r in sent} == {  # pyright: ignore[reportIndexIssue, reportUnknownVariableType]
        (False, False, 8192)
    }
    assert server.loads == 1


async def test_the_users_model_is_left_alone_or_with_force_loaded_again() -> None:
    async with serving(preload=True) as (server, adapter):
        error = await load_error(adapter, ModelInUse, match="4,096")
        assert "--force" in error.hint
        assert (server.loaded, server.loads) == ({"m:latest": 4096}, 0)
        (instance,) = (await adapter.status()).loaded
        assert not instance.ours
        async with loading(OllamaAdapter(server.host, force=True)) as loaded:
            assert loaded.effective_context == 8192
        assert server.loaded == {"m:latest": 4096}
        await server.close()


async def test_what_is_loaded_again_is_not_loaded_at_the_users_next_request() -> None:
    async with serving(preload=True) as (server, _):
        async with loading(OllamaAdapter(server.host, force=True)):
            pass
        (again,) = (
            r.body for r in server.requests if as_object(r.body.get("options")) == AS_IT_WAS
        )
        assert not again.keys() & {"truncate", "shift"}  # another `shift` would load it once more
        await server.close()


AS_IT_WAS = {"num_ctx": 4096}


class Small(OllamaServer):
    """Has room for one model: whoever loads another one unloads it. The user's may embed only."""

    embeds = False

    async def handle(self, request: Request, answer: Answer) -> None:
        name = request.body.get("model")
        if self.embeds and (request.path, name) == ("/api/generate", "users"):
            raise StandInError(400, {"error": '"users" does not support generate'})
        if request.path == "/api/embed":
            assert request.body["input"] == ""
            await self._load("users", 2048, users_own=True)
            await answer.whole({"embeddings": []})
            return
        if request.path == "/api/generate" and request.body.get("keep_alive") != 0:
            for key in [key for key in self.loaded if key != request.body["model"]]:
                await self._unload(key)
        await super().handle(request, answer)


@pytest.mark.parametrize(("loadable", "embeds"), [(None, False), (None, True), (4096, False)])
async def test_what_ollama_unloads_to_make_room_is_loaded_again(
    loadable: int | None, *, embeds: bool
) -> None:
    """Also if the load fails; if it does not, that is said."""
    ours = SimulatedModel(key="m:latest", loadable=loadable)
    engine = SimulatedAdapter(ours, SimulatedModel(key="users"))
    async with Small(engine, preload=[("users", 2048)]) as server:
        server.embeds = embeds
        adapter = OllamaAdapter(server.host)
        if loadable:
            await load_error(adapter, LoadFailed)
        else:
            async with loading(adapter):
                assert set(server.loaded) == {"m:latest"}
            assert "unloaded users to load m:latest" in " ".join(adapter.warnings)
        assert "users" not in server.loaded
        await adapter.aclose()
        assert server.loaded == {"users": 2048}
        await server.close()


async def test_cached_tokens_are_what_ollama_says() -> None:
    async with serving() as (server, adapter):
        server.script = OllamaScript(tells_cached=True, reuses=False)  # its times say otherwise
        async with loading(adapter) as loaded:
            replies = [await loaded.complete(QUESTION, max_tokens=4) for _ in range(2)]
    assert replies[1].cached_tokens


async def test_a_reply_that_repeats_one_token_is_a_reply() -> None:
    async with serving() as (server, adapter), loading(adapter) as loaded:
        server.script = OllamaScript(repeats_token=True)
        reply = await loaded.complete(QUESTION, max_tokens=200)
    assert reply.text.split() == ["and"] * 100


async def somebody_loads(server: OllamaServer, context: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://{server.host}") as client:
        other = {"model": "m:latest", "options": {"num_ctx": context}}
        await client.post("/api/generate", json=other)


class OneFile(OllamaServer):
    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path == "/api/show":
            weights = f"/Users/Jo Doe/models/blobs/sha256-{'0' * 64}"
            await answer.whole({"modelfile": f"# by Ollama\nFROM {weights}\nTEMPLATE x\n"})
            return
        await super().handle(request, answer)


async def test_the_users_model_of_another_name_has_the_same_weights() -> None:
    """Ollama holds the weights once, so a load would replace it."""
    models = [SimulatedModel(key="m:latest"), SimulatedModel(key="long:latest")]
    async with OneFile(SimulatedAdapter(*models), preload=[("long:latest", 4096)]) as server:
        match = "same weights as 'm:latest'"
        await load_error(OllamaAdapter(server.host), ModelInUse, match=match)
        assert (server.loaded, server.loads) == ({"long:latest": 4096}, 0)
        adapter = OllamaAdapter(server.host, force=True)
        async with loading(adapter):
            assert list(server.loaded) == ["m:latest"]
        assert server.loaded == {"long:latest": 4096}
        assert not adapter.warnings  # Ollama itself has unloaded nothing
        await server.close()


async def test_what_could_not_be_loaded_again_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmstrix.adapters.ollama.LOAD_S", 0.2)
    async with serving(preload=True) as (server, _):
        adapter = OllamaAdapter(server.host, force=True)
        async with loading(adapter):
            server.script = attrs.evolve(server.script, load_s=3)
        await adapter.aclose()
        assert any("4,096 tokens" in warning for warning in adapter.warnings)
        await server.close()


class Refusing(OllamaServer):
    def __init__(self) -> None:
        super().__init__(SimulatedAdapter(SimulatedModel(key="m:latest")))
        self.refuses: Callable[[Request], bool] = lambda _: False
        self.status, self.words = 500, "no"

    async def handle(self, request: Request, answer: Answer) -> None:
        if self.refuses(request):
            raise StandInError(self.status, {"error": self.words})
        await super().handle(request, answer)


async def test_what_was_not_unloaded_may_be_the_users_by_now() -> None:
    async with Refusing() as server:
        adapter = OllamaAdapter(server.host, busy_s=0.1)
        async with loading(adapter):
            server.status = 404
            server.refuses = lambda _: True
        server.refuses = lambda _: False
        await somebody_loads(server, 2048)
        await load_error(adapter, ModelInUse)
        await adapter.aclose()
        assert server.loaded == {"m:latest": 2048}
        await server.close()


def in_a_large_context(request: Request) -> bool:
    context = as_count(as_object(request.body.get("options")).get("num_ctx")) or 0
    return request.path == "/api/chat" and context > 4096


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("llama runner process has terminated: CUDA error", LoadFailed),
        ("CUDA error: out of memory", OutOfMemory),
    ],
)
async def test_a_runner_that_dies_of_any_prompt(words: str, kind: type[LoadFailed]) -> None:
    async with Refusing() as server:
        server.words, server.refuses = words, in_a_large_context
        adapter = OllamaAdapter(server.host)
        assert type(await load_error(adapter)) is kind
        async with loading(adapter, context=4096) as loaded:
            assert loaded.effective_context == 4096


async def test_what_is_loaded_is_unloaded_although_the_server_no_longer_lists_it() -> None:
    async with Refusing() as server:
        adapter = OllamaAdapter(server.host, busy_s=5)
        with anyio.CancelScope() as scope:
            async with loading(adapter):
                server.refuses = lambda request: request.path == "/api/ps"
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        assert server.loaded == {}


async def test_what_somebody_else_loads_meanwhile_is_left_alone() -> None:
    async with serving() as (server, adapter):
        async with loading(adapter):
            await somebody_loads(server, 2048)
        assert server.loaded == {"m:latest": 2048}
        await adapter.aclose()
        assert server.loaded == {"m:latest": 2048}
        await server.close()


KILLED = """
import os, sys, anyio
from lmstrix.adapters.ollama import OllamaAdapter

async def main():
    adapter = OllamaAdapter(sys.argv[1])
    async with adapter.load(await adapter.find_model("m"), 1024):
        os._exit(0)

anyio.run(main)
"""


@on_one_loop
async def test_what_a_killed_process_left_is_taken_over() -> None:
    async with serving() as (server, adapter):
        await anyio.run_process([sys.executable, "-c", KILLED, server.host])
        assert server.loaded == {"m:latest": 1024}
        async with loading(adapter) as loaded:
            assert loaded.effective_context == 8192
        assert server.loaded == {}


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("", ""),
        ("box", "http://box:11434"),
        (":8000", "http://127.0.0.1:8000"),
        ("0.0.0.0:11435", "http://127.0.0.1:11435"),
        ("[::]:1", "http://[::1]:1"),
        ("http://10.0.0.5", "http://10.0.0.5:80"),
        ("https://example.invalid/ollama/", "https://example.invalid:443/ollama"),
        ("::1", "http://[::1]:11434"),
        ("box:port", "http://box:11434"),
        ("tcp://box:1", ""),
    ],
)
def test_ollamas_own_variable_names_the_server(
    monkeypatch: pytest.MonkeyPatch, told: str, address: str
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", told)
    assert ollama_host() == address


@pytest.mark.parametrize("since", [None, 2048])
async def test_after_an_interruption_the_users_model_is_loaded_again(since: int | None) -> None:
    """At the end; unless somebody has loaded it since."""
    async with serving(preload=True) as (server, _):
        adapter = OllamaAdapter(server.host, force=True)
        with anyio.CancelScope() as scope:
            async with loading(adapter):
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        if since:
            await somebody_loads(server, since)
        await adapter.aclose()
        assert server.loaded == {"m:latest": since or 4096}
        assert adapter.warnings == ()
        await server.close()


@pytest.mark.parametrize("ignores", [False, True])
async def test_a_prompt_that_is_cut_without_a_word_is_found_out(*, ignores: bool) -> None:
    sentence = "The river runs past the old mill. "
    async with serving() as (server, adapter):
        server.script = OllamaScript(window=2048, ignores_flags=ignores)
        async with loading(adapter) as loaded:
            await loaded.complete(Prompt(user=sentence * 200), max_tokens=4)
            with pytest.raises(PromptTruncated) as caught:
                await loaded.complete(Prompt(user=sentence * 500), max_tokens=4)
    assert caught.value.read_tokens <= 1026
    assert abs(caught.value.sent_tokens - 8 * 500) < 16


# Sizes: what is asked for, by the server's own count ---------------------------------------------

LENGTHS = (512, 768, 1024, 1536, 2048, 3072, 4096, 5120, 8192, 16384, 32768)


async def asked(
    validator: Recall, times: int = 1, seed: int = 3
) -> tuple[list[tuple[int, int, int, int]], int]:
    """For each question its length, by how much the reply's count differs from the last one in the
    server's record, the tokens of its prompt, and the room for its reply; and how many tokens the
    engine read for all of them.
    """
    engine = SimulatedAdapter(SimulatedModel(key="m", declared=65536, true_context=65536))
    found: list[tuple[int, int, int, int]] = []
    async with (
        OllamaServer(engine) as server,
        loading(OllamaAdapter(server.host), context=65536) as loaded,
    ):
        questions = validator.questions(loaded, seed)
        for length, index in product(LENGTHS, range(times)):
            question = await questions.question(length, index)
            reply = await loaded.complete(
                question.prompt, max_tokens=question.max_tokens, stop=question.stop
            )
            tokens = reply.prompt_tokens
            found.append((length, tokens - server.prompt_tokens[-1], tokens, question.max_tokens))
    return found, engine.counters.prompt_tokens


@on_one_loop
@pytest.mark.parametrize("validator", [Recall(), Recall(spec=WITH_CROWD)], ids=["prose", "numbers"])
@pytest.mark.parametrize("seed", [3, 8])
async def test_prompts_fill_the_length_and_never_exceed_it(validator: Recall, seed: int) -> None:
    for length, difference, tokens, room in (await asked(validator, 3, seed))[0]:
        assert difference == 0
        assert 0.97 * length <= tokens
        assert tokens + room <= length


def in_capitals_now_and_then(seed: int) -> Iterator[str]:
    for index, sentence in enumerate(filler_sentences(seed)):
        yield sentence.upper() if index // 60 % 2 else sentence


@pytest.fixture
def other_tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Capitals take twice as many tokens. Texts are tokenised once, so they are forgotten."""
    monkeypatch.setattr(simulated, "TOKEN", re.compile(r"[A-Z]{1,2}|[A-Za-z][a-z]*|\d|[^\w\s]"))
    monkeypatch.setattr(haystack, "filler_sentences", in_capitals_now_and_then)
    simulated.forget_texts()
    yield
    simulated.forget_texts()


@on_one_loop
@pytest.mark.usefixtures("other_tokens")
async def test_text_that_becomes_denser_never_exceeds_the_length() -> None:
    for length, _, tokens, room in (await asked(Recall()))[0]:
        assert 0.93 * length - 60 <= tokens + room <= length


@on_one_loop
async def test_counting_reads_little_more_than_the_prompts() -> None:
    """On a server with a prefix cache."""
    assert (await asked(Recall()))[1] < 1.25 * LENGTHS[-1]
