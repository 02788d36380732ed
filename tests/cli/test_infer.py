"""``lmstrix infer`` and ``lmstrix demo``."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lmstrix.models import ModelInfo, Prompt, Reply, ReplyChunk, Status, StopReason
from lmstrix.testing.simulated import SimulatedModel
from lmstrix_cli.commands import demo
from lmstrix_cli.testing import ScriptedAdapter, Shell

REPLY = Reply(
    text="blue\x1b[31m\r sky",
    reasoning="hm\x07m",
    prompt_tokens=12,
    cached_tokens=3,
    generated_tokens=4,
    ttft_s=0.25,
    tokens_per_second=50.0,
    stop_reason=StopReason.END,
)
CHUNKS = (
    ReplyChunk(text="hm\x07m", is_reasoning=True),
    ReplyChunk(text="blue\x1b[3"),
    ReplyChunk(text="1m\r sky"),
)


class Talker(ScriptedAdapter):
    """An adapter whose one model says what it was told to say."""

    def __init__(self, *pieces: ReplyChunk | Reply) -> None:
        super().__init__(SimulatedModel(key="m"))
        self._pieces = pieces
        self.heard: list[tuple[str, int, int]] = []

    @asynccontextmanager
    async def load(self, model: ModelInfo, context_length: int, **_: Any) -> AsyncGenerator[Any]:
        yield _Loaded(self._pieces, lambda text, n: self.heard.append((text, n, context_length)))


class _Loaded:
    def __init__(
        self, pieces: Sequence[ReplyChunk | Reply], hear: Callable[[str, int], None]
    ) -> None:
        self._pieces, self._hear = pieces, hear

    async def stream(
        self, prompt: Prompt, *, max_tokens: int, stop: Sequence[str] = ()
    ) -> AsyncGenerator[ReplyChunk | Reply]:
        self._hear(prompt.user, max_tokens)
        for piece in self._pieces:
            yield piece


def test_the_answer_goes_to_stdout_and_the_rest_to_stderr(shell: Shell) -> None:
    shell.adapter = Talker(*CHUNKS, REPLY)
    result = shell.run("infer", "m", "Why?")
    assert result.exit_code == 0
    assert result.stdout == "blue\\x1b[31m\\x0d sky\n"
    thought, statistics = result.stderr.splitlines()
    assert thought == "hm\\x07m"
    assert statistics == (
        "[12 prompt tokens (3 cached), 4 generated, first after 0.25 s, 50.0 tok/s, stopped: end]"
    )


def test_a_reply_in_one_piece_reads_the_same(shell: Shell) -> None:
    shell.adapter = Talker(REPLY)
    assert shell.run("infer", "m", "Why?").stdout == "blue\\x1b[31m\\x0d sky\n"


@pytest.mark.parametrize("words", [("-q", "infer", "m", "Why?"), ("infer", "-q", "m", "Why?")])
def test_quiet_gives_the_answer_alone(shell: Shell, words: tuple[str, ...]) -> None:
    shell.adapter = Talker(*CHUNKS, REPLY)
    result = shell.run(*words)
    assert (result.stdout, result.stderr) == ("blue\\x1b[31m\\x0d sky\n", "")


def test_as_json(shell: Shell) -> None:
    shell.adapter = Talker(*CHUNKS, REPLY)
    result = shell.run("infer", "m", "Why?", "--json")
    assert result.stderr == ""
    assert json.loads(result.stdout)["text"] == REPLY.text


def test_the_prompt_may_come_from_stdin(shell: Shell) -> None:
    adapter = shell.adapter = Talker(REPLY)
    words = ["infer", "m", "-", "--max-tokens", "7", "--context", "2k"]
    assert shell.run(*words, typed="grüß\nGott").exit_code == 0
    assert adapter.heard == [("grüß\nGott", 7, 2048)]


@pytest.mark.parametrize("typed", ["", "  \n", b"\xff\xfe"])
def test_an_unusable_prompt_is_wrong_usage(shell: Shell, typed: str | bytes) -> None:
    assert shell.run("infer", "m", "-", typed=typed).exit_code == 2


def test_a_prompt_that_does_not_fit_is_an_error(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(SimulatedModel(key="m"))
    result = shell.run("infer", "m", "word " * 100, "--context", "64", "--max-tokens", "8")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")


def test_an_unknown_model(shell: Shell) -> None:
    assert shell.run("infer", "nosuch", "Why?").exit_code == 4


def test_demo_measures_the_fetched_model(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "my models" / "demo.gguf"

    async def fetch(*, announce: Callable[[str], None]) -> Path:
        announce("Downloading \x1b[1m")
        return path

    monkeypatch.setattr(demo, "fetch_demo_model", fetch)
    shell.adapter = ScriptedAdapter(
        SimulatedModel(key=str(path), declared=1024, true_context=10**6)
    )
    result = shell.run("--adapter", "lmstudio", "--host", "h:1", "demo")
    assert result.exit_code == 0
    assert "true 1024" in result.stdout
    assert "Downloading \\x1b[1m" in result.stderr
    assert f"lmstrix infer '{path}'" in result.stderr
    assert shell.settings is not None
    assert (shell.settings.adapter, shell.settings.host) == ("llamacpp", None)


def test_demo_downloads_nothing_without_an_engine(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch(**_: object) -> Path:
        raise AssertionError("downloaded")

    monkeypatch.setattr(demo, "fetch_demo_model", fetch)
    shell.adapter = ScriptedAdapter(
        status=Status(adapter="x", engine="y", available=False, detail="none", hint="Install it.")
    )
    result = shell.run("demo")
    assert result.exit_code == 3
    assert result.stderr == "Error: none\nHint: Install it.\n"
