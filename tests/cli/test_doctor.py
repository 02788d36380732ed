"""``lmstrix doctor``: every check, what it finds, and that it changes nothing."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from pathlib import Path

import anyio
import pytest
from cli_shell import NOBODY, Shell

from lmstrix_cli.commands import doctor
from lmstrix_cli.commands.doctor import CHECKS, Check, Finding, Verdict, examine, ok
from lmstrix_cli.settings import Settings


@pytest.fixture
def home(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home of its own, without anything in it."""
    made = tmp_path / "home"
    made.mkdir()
    for variable in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(made))
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(doctor, "GREETING_S", 0.2)
    return made


def look(name: str, settings: Settings | None = None) -> Finding:
    """What one check finds."""
    [check] = [check for check in CHECKS if check.name == name]
    [found] = anyio.run(examine, settings or Settings(), [check])
    return found


def test_a_bare_machine(shell: Shell, home: Path) -> None:
    """Warnings, but no problem other than the server that was named and does not answer."""
    result = shell.run("--host", NOBODY, "doctor", "--json")
    document = json.loads(result.stdout)
    found = {one["check"]: one for one in document["checks"]}
    assert list(found) == [check.name for check in CHECKS]
    problems = [name for name, one in found.items() if one["verdict"] == Verdict.PROBLEM]
    assert problems == ["LM Studio's server"]
    assert NOBODY in found["LM Studio's server"]["found"]
    assert (result.exit_code, document["problems"]) == (1, 1)
    for name in ("models", "LM Studio's folder"):
        assert found[name]["verdict"] == Verdict.WARNING
        assert found[name]["advice"]
    assert not list(home.iterdir())
    assert not shell.store.exists()


def test_without_a_problem_the_code_is_0(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fine(settings: Settings) -> Finding:
        return ok("all is well\x1b[2J.")

    def only_that(settings: Settings) -> Awaitable[tuple[Finding, ...]]:
        return examine(settings, [Check("x", fine)])

    monkeypatch.setattr("lmstrix_cli.commands.doctor.examine", only_that)
    result = shell.run("doctor")
    assert (result.exit_code, "\x1b" in result.stdout) == (0, False)
    assert result.stdout.endswith("0 problems, 0 warnings.\n")


async def test_a_check_that_fails_or_hangs_does_not_end_the_others() -> None:
    async def hangs(settings: Settings) -> Finding:
        await anyio.sleep_forever()
        raise AssertionError

    async def fails(settings: Settings) -> Finding:
        raise RuntimeError("oops")

    async def fine(settings: Settings) -> Finding:
        return ok("fine.")

    checks = [Check("a", hangs, 0.01), Check("b", fails), Check("c", fine)]
    found = await examine(Settings(), checks)
    assert [one.verdict for one in found] == [Verdict.PROBLEM, Verdict.PROBLEM, Verdict.OK]
    assert "No answer within" in found[0].found
    assert "RuntimeError: oops" in found[1].found


def test_lm_studios_folders_and_models(home: Path) -> None:
    assert look("LM Studio's settings").verdict is Verdict.WARNING
    config = home / ".lmstudio" / ".internal" / "user-concrete-model-default-config"
    config.mkdir(parents=True)
    assert look("LM Studio's folder").verdict is Verdict.OK
    assert str(config) in look("LM Studio's settings").found
    model = home / ".lmstudio" / "models" / "a" / "b" / "c.gguf"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"")
    assert "1 GGUF file" in look("models").found


def test_the_store(shell: Shell, tmp_path: Path) -> None:
    assert "none yet" in look("store").found
    shell.run("list")
    assert "0 results" in look("store").found
    damaged = shell.store.read_bytes()[:100] + b"\xff" * 4096
    shell.store.write_bytes(damaged)
    found = look("store")
    assert (found.verdict, "damaged" in found.found) == (Verdict.PROBLEM, True)
    assert shell.store.read_bytes() == damaged
    shell.store = tmp_path
    assert look("store").verdict is Verdict.PROBLEM
