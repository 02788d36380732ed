"""The child process: how it starts, fails, is cancelled, and never outlives its parent."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from lmstrix.adapters.llamacpp import engine as engine_module
from lmstrix.adapters.llamacpp.engine import EngineSettings, running_engine
from lmstrix.errors import (
    EngineUnavailable,
    LMStrixError,
    LoadFailed,
    LoadHung,
    OutOfMemory,
)

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes"),
]


def gone(pid: int) -> bool:
    """Whether no process of that number is left, but for a zombie that nobody reaps."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


async def until_gone(pid: int) -> bool:
    with anyio.move_on_after(15):
        while not gone(pid):  # noqa: ASYNC110 - a process of another parent sends no event
            await anyio.sleep(0.05)
    return gone(pid)


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
    """Wait until the engine has the pipe open, so that its load is under way."""
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
    assert gone(pids[0])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows what a process does")
async def test_a_load_that_does_nothing_is_given_up(endless_load: Path, pids: list[int]) -> None:
    assert isinstance(await failure(endless_load, stall_s=2.0), LoadHung)
    assert gone(pids[0])


async def test_what_the_system_does_not_show_counts_as_work_for_a_while(
    endless_load: Path, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(pid: int) -> str:
        del pid
        return ""

    monkeypatch.setattr(engine_module.child, "work_of", blind)
    signs: list[int] = []
    with pytest.raises(LoadHung):
        async with running_engine(
            settings(endless_load), stall_s=1, unseen_s=3, on_work=lambda: signs.append(1)
        ):
            pass
    assert len(signs) > 1
    assert gone(pids[0])


PARENT = """
import sys, anyio
from lmstrix.adapters.llamacpp import LlamaCppAdapter, engine
from lmstrix.adapters.llamacpp.engine import EngineSettings, running_engine
from lmstrix.models import Prompt

spawn = engine._spawn

async def noting():
    started = await spawn()
    print(started.pid, flush=True)
    return started

engine._spawn = noting

async def load_for_ever(model):
    settings = EngineSettings(model=model, n_ctx=512, batch_tokens=256, threads=1)
    async with running_engine(settings, stall_s=60):
        raise AssertionError

async def read_for_long(model):
    adapter = LlamaCppAdapter([], threads=1)
    prompt = Prompt(user="The river runs past the old mill. " * 800)
    async with adapter.load(await adapter.find_model(model), 8192) as loaded:
        await loaded.complete(prompt, max_tokens=1, on_progress=lambda _: print("busy", flush=True))

anyio.run({"loading": load_for_ever, "reading": read_for_long}[sys.argv[3]],
          sys.argv[1], backend=sys.argv[2])
"""


@pytest.mark.parametrize("phase", ["loading", "reading"])
async def test_a_killed_parent_leaves_nothing(
    endless_load: Path, demo_model: Path, anyio_backend: str, phase: str
) -> None:
    model = endless_load if phase == "loading" else demo_model
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PARENT, str(model), anyio_backend, phase]
    async with await anyio.open_process(
        command, stdout=subprocess.PIPE, stderr=None, stdin=None, cwd=root
    ) as parent:
        assert parent.stdout is not None
        with anyio.fail_after(30):
            said = b""
            while b"\n" not in said or (phase == "reading" and b"busy" not in said):
                said += await parent.stdout.receive()
        pid = int(said.split()[0])
        writer = await opened_by_the_child(endless_load) if phase == "loading" else None
        assert not gone(pid)
        parent.send_signal(signal.SIGKILL)
        with anyio.fail_after(10):
            await parent.wait()
        assert await until_gone(pid)
        if writer is not None:
            os.close(writer)


FAKES = {
    "missing": "raise ModuleNotFoundError('no engine here')",
    "broken": "raise OSError('libgomp.so.1: cannot open shared object file')",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "crashing": "import os; print('noise on stdout', flush=True); os.abort()",
    "leaving": "import os; os._exit(7)",
    "lying": "import os; os.write(2, b'x' * 3_000_000 + b'\\n'); os._exit(7)",
    "memory": """
class CommonParams:
    class model: path = ''
    class cpuparams: n_threads = 1
    class cpuparams_batch: n_threads = 1
class llama_flash_attn_type: LLAMA_FLASH_ATTN_TYPE_ENABLED = 1
def Server(parameters): raise MemoryError('std::bad_alloc')
""",
    "elsewhere": """
class CommonParams:
    class model: path = ''
    class cpuparams: n_threads = 1
    class cpuparams_batch: n_threads = 1
class llama_flash_attn_type: LLAMA_FLASH_ATTN_TYPE_ENABLED = 1
class Server:
    listening_address = 'http://192.0.2.1:80'
    def __init__(self, parameters): print('noise on stdout', flush=True)
""",
}


@pytest.mark.parametrize(
    ("fake", "kind", "words"),
    [
        ("missing", EngineUnavailable, "no engine here"),
        ("broken", EngineUnavailable, "libgomp"),
        ("killed", OutOfMemory, "SIGKILL"),
        ("crashing", LoadFailed, "SIGABRT"),
        ("leaving", LoadFailed, "exit status 7"),
        ("lying", LoadFailed, "exit status 7"),
        ("memory", OutOfMemory, "bad_alloc"),
    ],
)
async def test_every_way_to_fail_has_its_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pids: list[int],
    fake: str,
    kind: type[LMStrixError],
    words: str,
) -> None:
    (tmp_path / "xllamacpp.py").write_text(FAKES[fake])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    error = await failure(tmp_path / "any.gguf")
    assert type(error) is kind
    assert words in str(error)
    assert gone(pids[0])
    if kind is EngineUnavailable:
        assert "pip install xllamacpp" in error.hint


async def test_only_our_own_machine_is_spoken_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pids: list[int]
) -> None:
    (tmp_path / "xllamacpp.py").write_text(FAKES["elsewhere"])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(engine_module, "START_S", 1.0)
    assert isinstance(await failure(tmp_path / "any.gguf"), LoadFailed)
    assert gone(pids[0])


def test_the_child_ends_without_settings() -> None:
    command = [sys.executable, "-P", engine_module.child.__file__]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
