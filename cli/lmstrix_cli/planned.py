"""``lmstrix test --dry-run``: what would be measured, and what that is expected to cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import attrs

from lmstrix import LMStrix, MeasureOptions
from lmstrix.errors import ConfigurationError, LMStrixError, StoreError
from lmstrix.measure import Forecast
from lmstrix.models import ContextReport, ModelInfo
from lmstrix.reports.words import say_bytes, say_seconds
from lmstrix_cli import safe_text
from lmstrix_cli.exit_codes import ExitCode
from lmstrix_cli.failures import explain_known
from lmstrix_cli.formats import Column, show_rows

__all__ = ["Plan", "plan_models", "show_plans"]

UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class Plan:
    """One model; `known` is its result where that stands, else the forecast counts."""

    model: ModelInfo
    forecast: Forecast
    known: ContextReport | None = None
    seconds_per_token: float | None = None
    """By an earlier measurement of this very model with this adapter; None: there is none."""

    @property
    def fits(self) -> bool | None:
        """Whether memory is expected to hold the largest wanted length; None: not known."""
        return self.forecast.memory.fits if self.forecast.memory else None

    @property
    def seconds(self) -> float | None:
        """Expected time, where there is a speed to go by."""
        speed = self.seconds_per_token
        return None if speed is None else speed * self.forecast.usual_prompt_tokens


async def plan_models(
    client: LMStrix,
    models: Sequence[str | ModelInfo],
    options: MeasureOptions,
    known: Mapping[str, ContextReport],
) -> tuple[list[Plan], list[ExitCode]]:
    """A plan for each of `models` that is there; what is not is told, with its exit code."""
    plans: list[Plan] = []
    codes: list[ExitCode] = []
    speeds = await _speeds(client)
    for model in models:
        try:
            measurement = await client.measurement(model, options)
            found = measurement.model
            adapter = client.adapter_for(model).name
            plans.append(
                Plan(
                    model=found,
                    forecast=await measurement.forecast(),
                    known=known.get(found.key),
                    seconds_per_token=speeds.get((adapter, found.key, found.digest)),
                )
            )
        except (ConfigurationError, StoreError):
            raise
        except LMStrixError as error:
            codes.append(explain_known(error))
    return plans, codes


async def _speeds(client: LMStrix) -> dict[tuple[str, str, str], float]:
    """Seconds for each prompt token that was read, all included, in the newest measurements."""
    speeds: dict[tuple[str, str, str], float] = {}
    for stored in await client.reports():
        report, cost = stored.report, stored.report.cost
        if cost.prompt_tokens > 0 and cost.seconds > 0:
            of = (report.environment.adapter, report.model.key, report.model.digest)
            speeds.setdefault(of, cost.seconds / cost.prompt_tokens)
    return speeds


def show_plans(plans: Sequence[Plan], options: MeasureOptions, *, as_json: bool) -> None:
    """Print them: a table, or one object for each model."""
    if as_json:
        for plan in plans:
            safe_text.json_line(json.dumps(_facts(plan, options), ensure_ascii=False))
        return
    if not plans:
        return  # what is wrong with each of them was said
    show_rows("table", _COLUMNS, plans)
    safe_text.out("\n" + "\n".join(_sum_up(plans, options)) + "\nNothing was loaded.")


def _sum_up(plans: Sequence[Plan], options: MeasureOptions) -> Iterator[str]:
    fresh = [plan for plan in plans if plan.known is None]
    if not fresh:
        yield f"Nothing to measure: {len(plans)} known. --fresh measures again."
        return
    tokens = sum(plan.forecast.usual_prompt_tokens for plan in fresh)
    times = [plan.seconds for plan in fresh]
    time = UNKNOWN if None in times else say_seconds(sum(filter(None, times)))
    budget = "" if options.budget_s is None else f" ({say_seconds(options.budget_s)} each at most)"
    loads = sum(plan.forecast.loads for plan in fresh)
    yield f"{len(fresh)} to measure{budget}, {len(plans) - len(fresh)} known."
    yield f"About {_say_count(tokens)} prompt tokens, {loads} loads or more, time: {time}."
    yield "TOKENS: where the answer is LARGEST and the engine reuses what it has read;"
    yield "the worst case is behind it. An engine that reuses nothing reads several times"
    yield "as much."


def _facts(plan: Plan, options: MeasureOptions) -> dict[str, object]:
    forecast, memory = plan.forecast, plan.forecast.memory
    return {
        "model": plan.model.key,
        "known": plan.known is not None,
        "true_context": plan.known.true_context if plan.known else None,
        "largest_length": forecast.largest_length,
        "memory_length": memory.context_length if memory else None,
        "memory_bytes": memory.total_bytes if memory else None,
        "available_bytes": memory.available_bytes if memory else None,
        "fits": plan.fits,
        "usual_prompt_tokens": forecast.usual_prompt_tokens,
        "most_prompt_tokens": forecast.most_prompt_tokens,
        "least_loads": forecast.loads,
        "seconds": plan.seconds,
        "budget_s": options.budget_s,
    }


def _say_memory(plan: Plan) -> str:
    memory = plan.forecast.memory
    return say_bytes(memory.total_bytes) if memory else UNKNOWN


def _say_fits(plan: Plan) -> str:
    return UNKNOWN if plan.fits is None else "yes" if plan.fits else "no"


def _say_known(plan: Plan) -> str:
    return "measure" if plan.known is None else "known"


def _say_tokens(plan: Plan) -> str:
    usual, most = plan.forecast.usual_prompt_tokens, plan.forecast.most_prompt_tokens
    if plan.known is not None:
        return "0"
    return _say_count(usual) if usual == most else f"{_say_count(usual)} to {_say_count(most)}"


def _say_count(tokens: int) -> str:
    """It is an estimate: no more digits than that, and the same unit in all rows."""
    return f"{max(1, round(tokens / 1024))}k" if tokens else "0"


def _say_time(plan: Plan) -> str:
    if plan.known is not None:
        return "-"
    return UNKNOWN if plan.seconds is None else say_seconds(plan.seconds)


_COLUMNS: list[Column[Plan]] = [
    Column(head="MODEL", least=14, text=lambda plan: plan.model.key),
    Column(head="PLAN", text=_say_known),
    Column(head="LARGEST", right=True, text=lambda plan: str(plan.forecast.largest_length)),
    Column(head="MEMORY", right=True, text=_say_memory),
    Column(head="FITS", text=_say_fits),
    Column(head="TOKENS", right=True, text=_say_tokens),
    Column(head="TIME", text=_say_time),
]
