"""``lmstrix test``: what is skipped, what a plan says, and one size only."""

from __future__ import annotations

import json

import anyio
import attrs
import pytest
from cli_shell import CLUELESS, FINE, ScriptedAdapter, Shell

from lmstrix.models import Cause, Cost, Environment, MemoryEstimate, ModelInfo
from lmstrix.testing.samples import sample_model, sample_report
from lmstrix.testing.simulated import SimulatedModel

SHORT = SimulatedModel(key="short", declared=8192, true_context=3000)


class Tight(ScriptedAdapter):
    """Memory for 1024 tokens and no more."""

    async def estimate_memory(self, model: ModelInfo, context_length: int) -> MemoryEstimate:
        del model
        return MemoryEstimate(
            context_length=context_length,
            model_bytes=0,
            context_bytes=context_length * 10**6,
            available_bytes=1024 * 10**6,
        )


def test_what_is_known_and_unchanged_is_not_measured_again(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE, CLUELESS)
    words = ("test", "--all", "--json")
    first = shell.run(*words)
    assert "has a valid result" not in first.stderr
    again = shell.run(*words)
    assert again.stdout == first.stdout
    assert "skipped: fine (true 2,048) has a valid result; --fresh" in again.stderr
    assert "skipped: clueless (not measurable) has a valid result" in again.stderr
    assert again.exit_code == first.exit_code == 4
    assert shell.run("test", "--all", "-q").stdout == ""
    for changed in (["--fresh"], ["--seed", "2"], ["--min-speed", "1"]):
        other = shell.run(*words, "--name", "fine", *changed, code=0)
        assert "has a valid result" not in other.stderr
    # A name is an order: it is measured.
    assert shell.run("test", "fine", "--json", "-q").stdout not in first.stdout


def test_an_unconfirmed_result_does_not_stand_for_a_confirmed_one(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE)
    shell.run("test", "--all", "-q", "--no-certify", code=0)
    assert "has a valid result" in shell.run("test", "--all", "--no-certify").stderr
    assert "has a valid result" not in shell.run("test", "--all").stderr


def test_another_file_under_the_same_name_is_measured(shell: Shell) -> None:
    for digest in ("one", "two"):
        listing = [sample_model(key="fine", digest=digest, declared_context=2048)]
        shell.adapter = ScriptedAdapter(FINE, listing=listing)
        result = shell.run("test", "--all", "-q", "--no-certify")
        assert (result.exit_code, result.stderr) == (0, "")


def test_a_plan_loads_nothing_and_invents_nothing(shell: Shell) -> None:
    adapter = shell.adapter = ScriptedAdapter(FINE, SHORT)
    [fine, short] = shell.lines("test", "fine", "short", "--dry-run", "--json")
    assert (fine["largest_length"], short["largest_length"]) == (2048, 8192)
    assert (fine["usual_prompt_tokens"], fine["least_loads"], fine["known"]) == (4506, 2, False)
    assert (fine["seconds"], fine["fits"], fine["memory_bytes"]) == (None, None, None)
    assert adapter.counters.loads == 0
    shell.run("test", "fine", "-q", code=0)
    text = shell.run("test", "--all", "--dry-run", "--budget", "1h").stdout
    assert text.splitlines()[1].split()[:3] == ["fine", "skip", "2,048"]
    assert (
        "1 to measure (1 h 00 min each at most), 1 to skip.\n"
        "About 18k prompt tokens, at least 2 loads" in text
    )
    assert max(map(len, text.splitlines())) <= 80
    assert "time: unknown" in text
    [fine] = shell.lines("test", "fine", "--dry-run", "--json")
    assert fine["seconds"] > 0
    assert shell.run("test", "nosuch", "--dry-run").stdout == ""
    all_known = shell.run("test", "--all", "--name", "fine", "--dry-run").stdout
    assert "Nothing to measure: 1 stored result still valid." in all_known


def test_a_plan_scales_the_time_of_an_earlier_measurement(shell: Shell) -> None:
    adapter = shell.adapter = ScriptedAdapter(FINE, SHORT)
    model = anyio.run(adapter.find_model, "short")
    environment = Environment(adapter=adapter.name)
    for seconds, loadable, cause in (
        (90.0, 6144, Cause.FORGETS),
        (1.0, 8192, Cause.INTERRUPTED),  # newer, but it does not say how long a whole one takes
    ):
        cost = Cost(loads=2, prompt_tokens=5, seconds=seconds)
        of_model = sample_report(model=model, environment=environment, cost=cost, cause=cause)
        shell.remember(attrs.evolve(of_model, loadable_context=loadable))
    words = ("test", "--dry-run", "short", "fine")
    [short, fine] = shell.lines(*words, "--json")
    assert (short["seconds"], fine["seconds"]) == (120.0, None)
    [short, _] = shell.lines(*words, "--json", "--max-context", "4096")
    assert short["seconds"] == 60.0
    text = shell.run(*words).stdout
    assert [line.split()[-1] for line in text.splitlines()[1:3]] == ["s", "unknown"]
    assert "time: 2 min 00 s, and 1 unknown." in " ".join(text.split())


def test_a_plan_goes_by_the_memory_and_names_what_is_missing(shell: Shell) -> None:
    shell.adapter = Tight(SHORT)
    result = shell.run("test", "nosuch", "short", "--dry-run", "--json", "--no-certify", code=4)
    assert "nosuch" in result.stderr
    [short] = shell.lines("test", "short", "--dry-run", "--json", "--no-certify")
    assert (short["fits"], short["memory_length"], short["largest_length"]) == (False, 8192, 1024)
    assert short["least_loads"] == 1
    small = ("test", "short", "--dry-run", "--json", "--max-memory", "1M")
    assert [plan["fits"] for plan in shell.lines(*small, "--max-context", "512")] == [False]
    [forced] = shell.lines("test", "short", "--dry-run", "--json", "--force")
    assert forced["largest_length"] == 8192


@pytest.mark.parametrize(
    ("model", "length", "outcome", "cause", "code"),
    [
        ("short", "2k", "pass", None, 0),
        ("short", "6000", "fail", "forgets", 1),
        ("short", "16k", "fail", "declared_maximum", 1),
        ("clueless", "1k", "inconclusive", "not_measurable", 4),
        ("nosuch", "1k", "inconclusive", "model_not_found", 4),
    ],
)
def test_one_size(
    shell: Shell, model: str, length: str, outcome: str, cause: str | None, code: int
) -> None:
    adapter = shell.adapter = ScriptedAdapter(SHORT, CLUELESS)
    result = shell.run("test", model, "--at", length, "-q", "--json")
    check = json.loads(result.stdout)
    assert (result.exit_code, check["outcome"], check["cause"]) == (code, outcome, cause)
    assert adapter.counters.loads <= 1
    assert "true_context" not in check
    assert shell.run("list", "--json").stdout == ""


def test_a_length_that_was_not_tried_did_not_fail(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(SHORT)
    result = shell.run("test", "short", "--at", "999k", "-q", code=1)
    assert "short at 1,022,976 tokens: not tried\n" in result.stdout
    assert "fail" not in result.stdout
    assert "Nothing was stored" in result.stdout
    passed = shell.run("test", "short", "--at", "1k", "-q").stdout
    assert passed.startswith("short at 1,024 tokens: passed\n")
    assert "coherence: passed\n" in passed


def test_one_size_is_loaded_at_that_size_or_not_at_all(shell: Shell) -> None:
    adapter = shell.adapter = Tight(SHORT)
    result = shell.run("test", "short", "--at", "2k", "-q", code=1)
    assert "short at 2,048 tokens: failed\ncause: load refused" in result.stdout
    assert "It was refused before it was loaded: it may not fit" in result.stdout
    assert adapter.counters.loads == 0


def test_one_content_is_one_model_under_every_name(shell: Shell) -> None:
    """A file that was measured by its path is known by its key as well."""
    by_path = SimulatedModel(key="/models/fine.gguf", declared=2048, true_context=10**6)
    shell.adapter = ScriptedAdapter(by_path, listing=[attrs.evolve(by_path.info, digest="d1")])
    shell.run("test", "--all", "--no-certify", "-q", code=0)
    renamed = attrs.evolve(by_path, key="fine")
    shell.adapter = ScriptedAdapter(renamed, listing=[attrs.evolve(renamed.info, digest="d1")])
    assert "2,048  2,048" in " ".join(shell.run("scan").stdout.split()).replace(" ", "  ")
    [plan] = shell.lines("test", "--all", "--dry-run", "--no-certify", "--json")
    assert plan["known"] is True
