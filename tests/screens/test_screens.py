"""Every command as a user sees it: plain in a pipe, in colour on a terminal, narrow and wide."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import pytest
from rich.cells import cell_len

from lmstrix import LMStrix
from lmstrix.models import Cause, ContextReport, Environment, LoadedInstance, Status
from lmstrix.testing.samples import sample_model, sample_report
from lmstrix.testing.simulated import Beyond, SimulatedModel
from lmstrix_cli.commands import doctor
from lmstrix_cli.commands.doctor import Check, Outcome, examine, ok, problem, warning
from lmstrix_cli.main import COMMANDS
from lmstrix_cli.settings import Settings
from lmstrix_cli.testing import ScriptedAdapter

EXPECTED = Path(__file__).with_name("expected")
NOBODY = "127.0.0.1:9"
"""The port that throws everything away: nothing of ours listens there."""
WIDTHS = pytest.mark.parametrize("width", [80, 160])
CLICKS_WORDS = pytest.mark.skipif(
    version("click").split(".")[:2] != ["8", "5"],
    reason="other versions of click word it otherwise",
)
LONG = "someone/a-model-with-a-rather-long-name-that-is-hard-to-fit-8x22b-instruct-q4_k_m"
SMALL = SimulatedModel(key="small", declared=2048, true_context=10**6)
FORGETFUL = SimulatedModel(
    key="forgetful", declared=8192, true_context=1500, beyond=Beyond.FORGETS_ALL
)
CRASHING = SimulatedModel(key="crashing", declared=4096, true_context=1500, beyond=Beyond.CRASHES)
CLUELESS = SimulatedModel(key="clueless", declared=2048, knows=False)


def cells(line: str) -> int:
    """How much room a line takes on a screen."""
    return cell_len(re.sub(r"\\e\[[0-9;]*m", "", line))


def made(key: str, day: int, **changes: Any) -> ContextReport:
    finished = datetime(2026, 1, day, tzinfo=UTC)
    environment = Environment(adapter="lmstudio", engine="llama.cpp")
    return sample_report(
        model=sample_model(key=key, path=key),
        finished_at=finished,
        environment=environment,
        **changes,
    )


def reports() -> list[ContextReport]:
    sixteen = {"declared_context": 131072, "loadable_context": 32768}
    return [
        made("google/gemma-3-4b", 3),
        made(LONG, 4, **sixteen, true_context=32768, cause=Cause.LOAD_FAILED, certified=False),
        made("模型/七", 5, cause=Cause.BUDGET_SPENT, certified=False),
        made("clueless", 6, true_context=None, cause=Cause.NOT_MEASURABLE, certified=False),
    ]


@pytest.fixture
def filled(screens: Any) -> Any:
    """Four results in the store; three of the models are there."""

    async def store() -> None:
        async with LMStrix(adapter=screens.shell.adapter, store=screens.shell.store) as client:
            for number, report in enumerate(reports()):
                begun = await client.store.begin(f"key {number}", report.model)
                await client.store.finish(begun.id, report)

    anyio.run(store)
    loaded = (
        LoadedInstance(key="google/gemma-3-4b", identifier="gemma", context_length=32768),
        LoadedInstance(key=LONG, identifier=LONG, context_length=4096),
    )
    folders = ("<models>",)
    screens.shell.adapter = ScriptedAdapter(
        listing=[
            *(report.model for report in reports()[:3]),
            sample_model(key="vectors", type="embedding", declared_context=None),
        ],
        status=Status(
            adapter="lmstudio",
            engine="LM Studio 0.3.30",
            available=True,
            loaded=loaded,
            model_folders=folders,
        ),
    )
    return screens


TABLES = ("scan", "list", "list --sort true", "list --cause forgets", "status", "compare")
BESIDE = (
    "compare google/gemma-3-4b",
    "report",
    "report",
    "apply google/gemma-3-4b --dry-run --home <tmp>/lms",
    "apply google/gemma-3-4b --home <tmp>/lms",
    "apply google/gemma-3-4b --yes --home <tmp>/lms",
    "apply google/gemma-3-4b --undo --yes --home <tmp>/lms",
    "apply google/gemma-3-4b --for ollama",
    "apply clueless --dry-run --home <tmp>/lms",
    "export <tmp>/all.json",
    "export <tmp>/all.json",
    "import <tmp>/all.json",
    "list nosuch",
    "report nosuch",
    "compare nosuch",
)
FOR_PROGRAMS = (
    "scan --format csv",
    "list --format csv",
    "list --format md",
    "list --name gemma --json",
    "status --json",
    "compare --format md",
    "report google/gemma-3-4b --format md -o -",
)


@WIDTHS
def test_what_was_measured_in_a_pipe(filled: Any, width: int) -> None:
    (filled.folder / "lms" / ".internal").mkdir(parents=True)
    filled.check(f"measured-{width}", TABLES + BESIDE, width=width)


@WIDTHS
def test_what_was_measured_on_a_terminal(filled: Any, width: int) -> None:
    """Tables fit, and only heads and verdicts are painted."""
    name = f"measured-terminal-{width}"
    filled.check(name, TABLES, width=width, terminal=True)
    for command in ("scan", "list"):
        shown, _ = filled.run(command, width=width, terminal=True)
        assert max(map(cells, shown.splitlines())) <= width
    filled.patch.setenv("NO_COLOR", "1")
    assert "\\e[" not in filled.run("list", width=width, terminal=True)[0]


def test_what_programs_read_is_the_same_at_any_width(filled: Any) -> None:
    filled.check("programs", FOR_PROGRAMS, terminal=True)
    filled.check("programs", FOR_PROGRAMS, width=160)


@WIDTHS
def test_an_empty_store(screens: Any, width: int) -> None:
    screens.shell.adapter = ScriptedAdapter(listing=[])
    commands = (
        "scan",
        "list",
        "list --format csv",
        "status",
        "compare",
        "report",
        "apply google/gemma-3-4b --dry-run --home <tmp>",
        "export",
        "test --all",
        "test --all --dry-run",
        "import nothing.json",
    )
    screens.check(f"empty-{width}", commands, width=width)


def test_measuring(screens: Any) -> None:
    screens.shell.adapter = ScriptedAdapter(SMALL, FORGETFUL, CRASHING, CLUELESS)
    commands = (
        "test --all --dry-run",
        "test small --max-context 1k --no-certify",
        "-q test crashing --no-certify",
        "-q test clueless",
        "-q test small --at 1k",
        "-q test forgetful --at 4k",
        "-q test forgetful --fresh --budget-tokens 3000",
        "status",
        "-q infer small Hello",
        "infer nosuch Hello",
        "test nosuch small --at 512",
    )
    screens.check("measuring", commands)


@WIDTHS
def test_a_measurement_in_colour(screens: Any, width: int) -> None:
    screens.shell.adapter = ScriptedAdapter(FORGETFUL)
    commands = (
        "-q --color always test forgetful",
        "-q --color always bench forgetful --max-context 1k --rounds 1",
        "-q --color always map forgetful --max-context 1k",
        "-q --color always test forgetful --at 4k --json",
    )
    screens.check(f"colour-{width}", commands[:3], width=width)
    assert "\\e[" not in screens.run(*commands[3].split())[0]


@CLICKS_WORDS
@WIDTHS
def test_help(screens: Any, width: int) -> None:
    """It fits, and does not get wider than is good to read."""
    commands = ["", "--help", *(f"{name} --help" for name in sorted(COMMANDS))]
    screens.check("help", commands, width=width)
    text = (EXPECTED / "help.txt").read_text(encoding="utf-8")
    assert max(map(cells, text.splitlines())) <= 80


def test_doctor(screens: Any) -> None:
    """Findings that are made up: real ones are each machine's own."""

    def check(name: str, outcome: Outcome) -> Check:
        async def look(_: object) -> Outcome:
            return outcome

        return Check(name, look)

    made_up = (
        check("Python", ok("3.11.9 on Linux.")),
        check("embedded engine", warning(f"{'Not there. ' * 8}", f"Install it. {'Then ' * 12}")),
        check("LM Studio's server", problem("No answer at localhost:1234.", "Start LM Studio.")),
    )
    findings = anyio.run(examine, Settings(), made_up)

    async def found(_: object) -> object:
        return findings

    screens.patch.setattr(doctor, "examine", found)
    for width in (80, 160):
        screens.check(f"doctor-{width}", ["doctor", "--color always doctor"], width=width)


@CLICKS_WORDS
def test_wrong_usage(live: Any) -> None:
    commands = (
        "--nosuch",
        "nosuch",
        "test",
        "test --all small",
        "test small --nosuch",
        "test small --tolerance 1",
        "test small --strategy nosuch",
        "test small --max-context 0",
        "test small --at 1k --max-context 2k",
        "test small --budget soon",
        "list --sort nosuch",
        "report nosuch --from nothing.jsonl",
        "apply",
        "apply nosuch",
        "infer small",
        "completion tcsh",
        "import",
        "test nosuch.gguf",
        "--adapter nosuch scan",
        "--adapter llamacpp --host localhost:1 scan",
        "--log-file <tmp>/no/such/log scan",
        "--color pink scan",
    )
    live.check("wrong-usage", commands)


def test_completion(screens: Any) -> None:
    """The scripts are click's own; here it is who they call."""
    for shell in ("bash", "zsh", "fish"):
        text, code = screens.run("completion", shell)
        assert code == 0
        assert "_LMSTRIX_COMPLETE" in text
        shown, _ = screens.run("completion", shell, terminal=True)
        assert "-- stderr\nTo install it: " in shown


@WIDTHS
def test_without_lm_studio(live: Any, width: int) -> None:
    words = ("scan", "status", "test m", "test --all", "infer m x", "bench m", "map m")
    live.check(f"no-lm-studio-{width}", [f"--host {NOBODY} {w}" for w in words], width=width)


def test_with_the_stand_in(live: Any, stand_in: str) -> None:
    words = (
        "scan",
        "status",
        "test --all --dry-run",
        "test simulated --max-context 1k --no-certify",
        "list",
        "infer simulated Hello",
        "test simulatde",
    )
    live.check("stand-in", [f"--host {stand_in} {one}" for one in words])
