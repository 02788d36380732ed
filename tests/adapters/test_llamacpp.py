"""The embedded engine: its child process, failed loads, and the adapter over the demo model."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import anyio
import httpx
import pytest
from loads import load_error, loading
from processes import alive, until

from lmstrix import errors
from lmstrix.adapters.llamacpp import LlamaCppAdapter, LlamaCppModel
from lmstrix.adapters.llamacpp import engine as engine_module
from lmstrix.adapters.llamacpp.engine import Engine, EngineSettings, running_engine
from lmstrix.errors import ConfigurationError, EngineCrashed, EngineUnavailable, LMStrixError
from lmstrix.models import LoadProgress, PrefillProgress, Prompt, ReplyChunk
from lmstrix.ports import Adapter
from lmstrix.testing.contracts.adapter import AdapterContract

pytestmark = pytest.mark.engine
by_signals = pytest.mark.skipif(sys.platform == "win32", reason="no signals and pipes of that kind")
on_one_loop = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the contract runs on both

LONG = Prompt(user="The river runs past the old mill. " * 200)
SHORT = Prompt(user="Count from one to ten in words.", answer_prefix="One, two,")


class TestContract(AdapterContract):
    @pytest.fixture
    def adapter(self, llamacpp: LlamaCppAdapter) -> Adapter:
        return llamacpp

    @pytest.fixture
    def model_name(self, demo_model: Path) -> str:
        return str(demo_model)


@by_signals
@on_one_loop
async def test_a_capped_context_is_told(llamacpp: LlamaCppAdapter, demo_model: Path) -> None:
    model = await llamacpp.find_model(demo_model.stem)
    heard: list[LoadProgress] = []
    async with llamacpp.load(model, 20_000, on_progress=heard.append) as loaded:
        assert loaded.effective_context == 8192
        assert loaded.model == model
        pid = engine_of(loaded).pid
        assert alive(pid)
    assert not alive(pid)
    assert sorted({progress.fraction for progress in heard}) == [0.0, 1.0]


@pytest.fixture
async def loaded(llamacpp: LlamaCppAdapter, demo_model: Path) -> AsyncGenerator[LlamaCppModel]:
    async with loading(llamacpp, str(demo_model), 512) as loaded:
        yield loaded


@on_one_loop
async def test_room_for_the_reply_is_wanted_beforehand(loaded: LlamaCppModel) -> None:
    tokens = await loaded.count_prompt_tokens(SHORT)
    with pytest.raises(errors.ContextOverflow) as caught:
        await loaded.complete(SHORT, max_tokens=512 - tokens + 1)
    assert (caught.value.prompt_tokens, caught.value.context_length) == (tokens, 512)
    with pytest.raises(ConfigurationError):
        await loaded.complete(SHORT, max_tokens=0)
    with pytest.raises(ConfigurationError, match="surrogate"):
        await loaded.complete(Prompt(user="\udcff"), max_tokens=1)


async def test_requests_at_the_same_time_take_turns(loaded: LlamaCppModel) -> None:
    prompts = [SHORT, Prompt(user="Name a colour.", answer_prefix="A colour is")]
    expected = [(await loaded.complete(prompt, max_tokens=6)).text for prompt in prompts]
    texts: dict[int, str] = {}

    async def ask(number: int) -> None:
        texts[number] = (await loaded.complete(prompts[number], max_tokens=6)).text

    async with anyio.create_task_group() as group:
        for number in range(len(prompts)):
            group.start_soon(ask, number)
    assert [texts[number] for number in range(2)] == expected


@on_one_loop
async def test_a_thought_is_closed_first(llamacpp: LlamaCppAdapter, thinking_model: Path) -> None:
    async with loading(llamacpp, str(thinking_model), 512) as loaded:
        formatted = await loaded._formatted(SHORT)
        assert formatted.endswith("<think>\n\n</think>\n\nOne, two,")
        answer = await loaded.complete(SHORT, max_tokens=4)
        assert (bool(answer.text), answer.reasoning) == (True, "")
        prompt = Prompt(user="Count from one to ten.")
        chunks = [c async for c in loaded.stream(prompt, max_tokens=4) if isinstance(c, ReplyChunk)]
        assert chunks
        assert all(chunk.is_reasoning for chunk in chunks)


@on_one_loop
async def test_without_a_template_the_text_goes_as_it_is_and_to_no_proxy(
    llamacpp: LlamaCppAdapter, plain_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with loading(llamacpp, str(plain_model), 512) as loaded:
        prompt = Prompt(user="The sky is", answer_prefix=" blue and")
        tokens = await loaded.count_tokens("The sky is blue and")
        reply = await loaded.complete(prompt, max_tokens=4)
        assert reply.prompt_tokens == tokens


@by_signals
@pytest.mark.parametrize("when", ["prefill", "idle"])
async def test_a_killed_engine(llamacpp: LlamaCppAdapter, demo_model: Path, when: str) -> None:
    async with loading(llamacpp, str(demo_model), 4096) as loaded:
        pid = engine_of(loaded).pid
        if when == "idle":
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineCrashed, match="SIGKILL"):
            await loaded.complete(
                LONG, max_tokens=4, on_progress=lambda _: os.kill(pid, signal.SIGKILL)
            )
        with pytest.raises(EngineCrashed, match="SIGKILL"):
            await loaded.count_tokens("again")
    assert not alive(pid)


@by_signals
async def test_a_silent_engine_is_given_up(llamacpp: LlamaCppAdapter, demo_model: Path) -> None:
    async with loading(llamacpp, str(demo_model), 4096) as loaded:
        loaded._stall.seconds = 1.0
        pid = engine_of(loaded).pid
        with pytest.raises(errors.EngineTimeout, match="no progress"):
            await loaded.complete(
                LONG, max_tokens=4, on_progress=lambda _: os.kill(pid, signal.SIGSTOP)
            )
    assert not alive(pid)


def engine_of(loaded: LlamaCppModel) -> Engine:
    assert loaded._engine is not None
    return loaded._engine


async def test_a_cancelled_prefill_stops(llamacpp: LlamaCppAdapter, demo_model: Path) -> None:
    prompt = Prompt(user="The river runs past the old mill. " * 800)

    async def cancelled_at(tokens: int) -> PrefillProgress:
        heard: list[PrefillProgress] = []
        with anyio.CancelScope() as scope:

            def listen(progress: PrefillProgress) -> None:
                heard.append(progress)
                if progress.processed_tokens >= tokens:
                    scope.cancel()

            await loaded.complete(prompt, max_tokens=4, on_progress=listen)
        assert scope.cancelled_caught
        return heard[-1]

    async with loading(llamacpp, str(demo_model)) as loaded:
        first = await cancelled_at(1)
        assert first.processed_tokens < first.prompt_tokens
        # What was read stays in the cache: had it read on, that would be nearly all.
        again = await cancelled_at(0)
        assert 0 < again.cached_tokens < again.prompt_tokens // 2
        assert (await loaded.complete(SHORT, max_tokens=4)).generated_tokens >= 1


@by_signals
@on_one_loop
async def test_an_interrupt_is_the_parents_to_handle(loaded: LlamaCppModel) -> None:
    pid = engine_of(loaded).pid
    assert os.getpgid(pid) != os.getpgid(0)
    os.kill(pid, signal.SIGINT)
    assert (await loaded.complete(SHORT, max_tokens=2)).generated_tokens >= 1


@on_one_loop
async def test_the_key_is_wanted_and_nowhere_to_be_seen(loaded: LlamaCppModel) -> None:
    engine = engine_of(loaded)
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{engine.address}/completion", json={"prompt": "x"})
    assert answer.status_code == 401
    files = [Path(f"/proc/{engine.pid}/{name}") for name in ("cmdline", "environ")]
    seen = [file.read_text("utf-8", "replace") for file in files if file.exists()]
    assert engine.api_key not in "".join(seen)


# The child process: how it starts, fails, is cancelled, and never outlives its parent ------------


def settings(model: Path) -> EngineSettings:
    return EngineSettings(model=str(model), n_ctx=512, batch_tokens=256, threads=1)


async def failure(model: Path, stall_s: float = 30.0) -> LMStrixError:
    with pytest.raises(LMStrixError) as caught:
        async with running_engine(settings(model), stall_s=stall_s):
            pass
    return caught.value


@pytest.fixture
def endless_load(tmp_path: Path) -> Path:
    """A model that loads for ever: a pipe that nobody writes to."""
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    return pipe


async def opened_by_the_child(pipe: Path) -> int:
    with anyio.fail_after(30):
        while True:
            try:
                return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                await anyio.sleep(0.05)


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Process ids of the children that are started, before they have loaded."""
    started: list[int] = []
    spawn = engine_module._spawn

    async def noting() -> engine_module.Engine:
        engine = await spawn()
        started.append(engine.pid)
        return engine

    monkeypatch.setattr(engine_module, "_spawn", noting)
    return started


@by_signals
async def test_a_load_can_be_cancelled(endless_load: Path, pids: list[int]) -> None:
    async def load() -> None:
        async with running_engine(settings(endless_load), stall_s=60):
            pytest.fail("it cannot have loaded")

    writers: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(load)
        writers.append(await opened_by_the_child(endless_load))
        group.cancel_scope.cancel()
    os.close(writers[0])
    assert len(pids) == 1
    assert not alive(pids[0])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows what a process does")
async def test_a_load_that_does_nothing_is_given_up(endless_load: Path, pids: list[int]) -> None:
    assert isinstance(await failure(endless_load, stall_s=2.0), errors.LoadHung)
    assert not alive(pids[0])


@by_signals
async def test_what_the_system_does_not_show_counts_as_work_for_a_while(
    endless_load: Path, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_work(_pid: int) -> str:
        return ""

    monkeypatch.setattr(engine_module.child, "work_of", no_work)
    signs: list[int] = []
    with pytest.raises(errors.LoadHung):
        async with running_engine(
            settings(endless_load), stall_s=1, unseen_s=3, on_work=lambda: signs.append(1)
        ):
            pass
    assert len(signs) > 1
    assert not alive(pids[0])


PARENT = """
import sys, anyio
from lmstrix.adapters.llamacpp import engine

spawn = engine._spawn

async def noting():
    started = await spawn()
    print(started.pid, flush=True)
    return started

engine._spawn = noting

async def load_for_ever(model):
    settings = engine.EngineSettings(model=model, n_ctx=512, batch_tokens=256, threads=1)
    async with engine.running_engine(settings, stall_s=60):
        raise AssertionError

anyio.run(load_for_ever, sys.argv[1], backend=sys.argv[2])
"""


@by_signals
async def test_a_killed_parent_leaves_nothing(endless_load: Path, anyio_backend: str) -> None:
    command = [sys.executable, "-c", PARENT, str(endless_load), anyio_backend]
    async with await anyio.open_process(
        command, stdout=subprocess.PIPE, stderr=None, stdin=None, cwd=Path(__file__).parents[2]
    ) as parent:
        assert parent.stdout is not None
        with anyio.fail_after(30):
            said = b""
            while b"\n" not in said:
                said += await parent.stdout.receive()
        pid = int(said.split()[0])
        writer = await opened_by_the_child(endless_load)
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
        with anyio.fail_after(10):
            await parent.wait()
        await until(lambda: not alive(pid))
        os.close(writer)


API = """
class CommonParams:
    class model: path = ''
    class cpuparams: n_threads = 1
    class cpuparams_batch: n_threads = 1
class llama_flash_attn_type: LLAMA_FLASH_ATTN_TYPE_ENABLED = 1
"""
ELSEWHERE = """
class Server:
    listening_address = 'http://192.0.2.1:80'
    def __init__(self, parameters): print('noise on stdout', flush=True)
"""
FAKES = {
    "raise ModuleNotFoundError('no engine here')": (EngineUnavailable, "no engine here"),
    "raise OSError('libgomp.so.1: cannot open shared object file')": (EngineUnavailable, "libgomp"),
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": (errors.OutOfMemory, "SIGKILL"),
    "import os; print('noise on stdout', flush=True); os.abort()": (errors.LoadFailed, "SIGABRT"),
    "import os; os._exit(7)": (errors.LoadFailed, "exit status 7"),
    "import os; os.write(2, b'x' * 3_000_000 + b'\\n'); os._exit(7)": (
        errors.LoadFailed,
        "status 7",
    ),
    f"{API}def Server(parameters): raise MemoryError('std::bad_alloc')": (
        errors.OutOfMemory,
        "bad_alloc",
    ),
}


@by_signals
@on_one_loop
@pytest.mark.parametrize(("fake", "expected"), FAKES.items(), ids=range(len(FAKES)))
async def test_every_way_to_fail_has_its_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pids: list[int],
    fake: str,
    expected: tuple[type[LMStrixError], str],
) -> None:
    (tmp_path / "xllamacpp.py").write_text(fake)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    error = await failure(tmp_path / "any.gguf")
    kind, words = expected
    assert type(error) is kind
    assert words in str(error)
    assert not alive(pids[0])
    if kind is EngineUnavailable:
        assert "pip install xllamacpp" in error.hint


@by_signals
@on_one_loop
async def test_only_our_own_machine_is_spoken_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pids: list[int]
) -> None:
    (tmp_path / "xllamacpp.py").write_text(API + ELSEWHERE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(engine_module, "START_S", 1.0)
    assert isinstance(await failure(tmp_path / "any.gguf"), errors.LoadFailed)
    assert not alive(pids[0])


@by_signals
def test_the_child_ends_without_settings() -> None:
    command = [sys.executable, "-P", engine_module.child.__file__]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


# Failed loads ----------------------------------------------------------------------------------


@on_one_loop
async def test_what_cannot_be_loaded_is_a_clean_error(long_model: Path) -> None:
    adapter = LlamaCppAdapter([], threads=1, memory_limit_bytes=1_500_000_000)
    model = await adapter.find_model(str(long_model))
    assert model.declared_context == 131072
    error = await load_error(adapter, name=model, context=131072)
    assert type(error) is errors.OutOfMemory
    assert "allocate" in str(error)
    await load_error(adapter, name=model, context=2**40)
    await load_error(adapter, ConfigurationError, model, 0)


@on_one_loop
async def test_a_file_that_changed_is_noticed(
    tmp_path: Path, llamacpp: LlamaCppAdapter, make_gguf: Callable[..., bytes]
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(make_gguf({"general.architecture": "llama"}))
    model = await llamacpp.find_model(str(path))
    path.write_bytes(path.read_bytes()[:-9])
    await load_error(llamacpp, errors.InvalidModel, model, 512)
    path.write_bytes(make_gguf({"general.architecture": "bert"}))
    await load_error(llamacpp, errors.UnsupportedModel, model, 512)
    path.unlink()
    await load_error(llamacpp, errors.ModelNotFound, model, 512)


@pytest.mark.parametrize("architecture", ["llama", "never-heard-of"])
@on_one_loop
async def test_what_the_engine_cannot_load_is_told(
    tmp_path: Path, llamacpp: LlamaCppAdapter, make_gguf: Callable[..., bytes], architecture: str
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(make_gguf({"general.architecture": architecture}))
    error = await load_error(llamacpp, name=str(path), context=512)
    assert isinstance(
        error, errors.UnsupportedModel if architecture == "never-heard-of" else LMStrixError
    )
    assert not isinstance(error, EngineUnavailable)
    assert (await llamacpp.status()).loaded == ()
