"""Every command as a user sees it: plain in a pipe, in colour on a terminal, narrow and wide."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import anyio
import attrs
import pytest

from lmstrix import LMStrix
from lmstrix.models import Cause, ContextReport, Environment, LoadedInstance, Status
from lmstrix.testing.samples import sample_model, sample_report
from lmstrix.testing.simulated import Beyond, SimulatedModel
from lmstrix_cli.doctor import lm_studio as lm_studio_checks
from lmstrix_cli.main import COMMANDS
from lmstrix_cli.testing import ScriptedAdapter

NOBODY = "127.0.0.1:9"
"""The port that throws everything away: nothing of ours listens there."""
WIDTHS = pytest.mark.parametrize("width", [80, 160])
LONG = "someone/a-model-with-a-rather-long-name-that-is-hard-to-fit-8x22b-instruct-q4_k_m"
SMALL = SimulatedModel(key="small", declared=2048, true_context=10**6)
FORGETFUL = SimulatedModel(
    key="forgetful", declared=8192, true_context=1500, beyond=Beyond.FORGETS_ALL
)
CRASHING = SimulatedModel(
    key="crashing", declared=4096, true_context=1500, beyond=Beyond.CRASHES
)
CLUELESS = SimulatedModel(key="clueless", declared=2048, knows=False)


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


LOOKING = (
    "scan",
    "list",
    "list --sort true",
    "list --format csv",
    "list --format md",
    "status",
    "compare",
    "compare google/gemma-3-4b",
    "report --format md -o -",
    "report",
    "apply google/gemma-3-4b --dry-run --home <tmp>",
    "apply google/gemma-3-4b --home <tmp>",
    "apply google/gemma-3-4b --for llama.cpp",
    "export <tmp>/all.json",
    "import <tmp>/all.json",
)
ENDLESS = {"list --format csv", "list --format md", "report --format md -o -"}
"""Their lines are as long as they are: for programs."""


@WIDTHS
def test_what_was_measured(filled: Any, width: int) -> None:
    filled.check(f"measured-{width}", LOOKING, width=width, fits=False)


@WIDTHS
def test_what_was_measured_on_a_terminal(filled: Any, width: int) -> None:
    commands = [one for one in LOOKING if one not in ENDLESS][:6]
    filled.check(f"measured-terminal-{width}", commands, width=width, terminal=True, fits=False)
    filled.patch.setenv("NO_COLOR", "1")
    filled.check(f"measured-no-color-{width}", ["list"], width=width, terminal=True)


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
    screens.check(f"empty-{width}", commands, width=width, fits=False)


@WIDTHS
def test_measuring(screens: Any, width: int) -> None:
    screens.shell.adapter = ScriptedAdapter(SMALL, FORGETFUL, CRASHING, CLUELESS)
    commands = (
        "test small --dry-run",
        "test small --no-certify",
        "-q test forgetful",
        "-q test crashing --no-certify",
        "-q test clueless",
        "-q test small --at 1k",
        "-q test forgetful --at 4k",
        "-q test forgetful --fresh --budget-tokens 3000",
        "-q bench small --max-context 1k --rounds 1 --format csv",
        "-q map small --max-context 1k",
        "-q infer small Hello",
        "-q test nosuch",
        "infer nosuch Hello",
        "bench nosuch",
        "map nosuch",
    )
    screens.check(f"measuring-{width}", commands, width=width, fits=False)


@WIDTHS
def test_a_report_in_colour(screens: Any, width: int) -> None:
    screens.shell.adapter = ScriptedAdapter(FORGETFUL)
    commands = ("-q --color always test forgetful --no-certify", "-q test nosuch")
    screens.check(f"colour-{width}", commands, width=width)


@WIDTHS
def test_help(screens: Any, width: int) -> None:
    commands = ["", "--help", *(f"{name} --help" for name in sorted(COMMANDS))]
    screens.check(f"help-{width}", commands, width=width)


def test_wrong_usage(screens: Any) -> None:
    commands = (
        "--nosuch",
        "nosuch",
        "tst",
        "test",
        "test --all small",
        "test small --nosuch",
        "test small --tolerance 1",
        "test small --strategy nosuch",
        "test small --validator nosuch",
        "test small --max-context 0",
        "test small --at 1k --max-context 2k",
        "test small --budget soon",
        "list --sort nosuch",
        "report nosuch",
        "compare nosuch",
        "compare a b",
        "apply",
        "apply nosuch",
        "infer small",
        "completion tcsh",
        "import",
        "--adapter nosuch scan",
        "--adapter llamacpp --host localhost:1 scan",
        "--log-file <tmp>/no/such/log scan",
    )
    screens.check("wrong-usage", commands, fits=False)


def test_completion(screens: Any) -> None:
    screens.check("completion", ["completion bash", "completion fish"], fits=False)


@WIDTHS
def test_without_lm_studio(live: Any, width: int) -> None:
    live.patch.setattr(lm_studio_checks, "GREETING_S", 0.2)
    at = f"--host {NOBODY}"
    commands = [f"{at} {words}" for words in ("scan", "status", "test m", "test --all", "infer m x")]
    live.check(f"no-lm-studio-{width}", commands, width=width, fits=False)


@WIDTHS
def test_with_the_stand_in(live: Any, stand_in: str, width: int) -> None:
    commands = [
        f"--host {stand_in} {words}"
        for words in (
            "scan",
            "status",
            "test --all --dry-run",
            "-q test simulated --max-context 1k --no-certify",
            "list",
            "infer simulated Hello",
            "test simulatde",
        )
    ]
    live.check(f"stand-in-{width}", commands, width=width, fits=False)
