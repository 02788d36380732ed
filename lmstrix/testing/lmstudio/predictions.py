"""Predictions: the channel that asks a model and streams its reply."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import anyio
import attrs

from lmstrix.errors import ContextOverflow, EngineCrashed
from lmstrix.json_values import Json, as_list
from lmstrix.models import PrefillProgress, Prompt, Reply, StopReason
from lmstrix.ports import LoadedModel
from lmstrix.testing.lmstudio.calls import Channel
from lmstrix.testing.lmstudio.script import Step
from lmstrix.testing.lmstudio.state import Instance, PredictionRecord, instance_entry, load_config
from lmstrix.testing.lmstudio.wire import (
    UNLOADED,
    WireError,
    chat_prompt,
    config_fields,
    config_pairs,
    parsed_prompt,
    unboxed,
)
from lmstrix.testing.serving import cut_prompt

DEFAULT_REPLY = 512
"""Longest reply if the client sets no bound; LM Studio itself has none."""
PREFILL_SLICES = 4
STOP_REASONS = {
    StopReason.END: "eosFound",
    StopReason.STOP_STRING: "stopStringFound",
    StopReason.MAX_TOKENS: "maxPredictedTokensReached",
    StopReason.CONTEXT_LENGTH: "contextLengthReached",
    StopReason.CANCELLED: "userStopped",
    StopReason.UNKNOWN: "eosFound",
}
_PIECE = re.compile(r"\s*\S+|\s+$")


@attrs.define(kw_only=True)
class _Job:
    """One prediction."""

    channel: Channel
    instance: Instance
    record: PredictionRecord
    prompt: Prompt
    number: int
    hidden_tokens: int = 0
    """Added to the reported count of prompt tokens."""
    stats: dict[str, object] = attrs.field(factory=dict[str, object])
    """The stats so far."""

    @property
    def loaded(self) -> LoadedModel:
        return self.instance.loaded

    def field(self, name: str) -> object:
        """The client's setting, or None."""
        return unboxed(self.record.fields.get(f"llm.prediction.{name}"))


async def predict(channel: Channel, parameter: Json) -> None:
    """`predict`: a chat, or the raw text of a completion."""
    state = channel.state
    fields = config_fields(parameter["predictionConfigStack"])
    raw = "llm.prediction.promptTemplate" in fields
    prompt = chat_prompt(parameter["history"])
    instance = state.touch(state.instances.find(parameter["modelSpecifier"]))
    record = PredictionRecord(fields=fields, raw=raw)
    state.predictions.append(record)
    job = _Job(
        channel=channel,
        instance=instance,
        record=record,
        prompt=parsed_prompt(prompt.user) if raw else prompt,
        number=len(state.predictions),
        hidden_tokens=state.script.raw_prompt_offset if raw else 0,
    )
    await channel.step(Step.PREDICT_CREATED)
    channel.send_odd()
    with anyio.CancelScope() as scope:
        channel.scope = scope
        instance.running.add(scope)
        try:
            async with instance.turn:
                await _answer(job)
        except EngineCrashed:
            instance.running.discard(scope)
            instance.let_go()
            raise
        finally:
            instance.running.discard(scope)
            instance.last_used = anyio.current_time()
    if scope.cancelled_caught:
        if instance.unloading:
            raise UNLOADED
        _succeed(job, "userStopped")


async def _answer(job: _Job) -> None:
    try:
        reply = await _reply(job)
    except ContextOverflow as error:
        if error.prompt_tokens is not None:
            job.stats["promptTokensCount"] = error.prompt_tokens + job.hidden_tokens
        script = job.channel.state.script
        if script.overflow_error:
            raise WireError("Prediction error", cause=script.overflow_error) from error
        _succeed(job, "eosFound" if script.overflow_empty else "contextLengthReached")
        return
    _note(job, reply)
    await _fragments(job, reply)
    _succeed(job, STOP_REASONS[reply.stop_reason])


async def _reply(job: _Job) -> Reply:
    """The adapter's reply; raises `ContextOverflow` if the policy forbids cutting the prompt."""
    script, context = job.channel.state.script, job.instance.context
    asked = _bound(job.field("maxPredictedTokens"))
    count = await job.loaded.count_prompt_tokens(job.prompt)
    if script.crash_drops_all_above is not None and count > script.crash_drops_all_above:
        await job.channel.state.crash()
    if count >= context:
        if job.field("contextOverflowPolicy") == "stopAtLimit" and not script.truncates:
            raise ContextOverflow("too long", prompt_tokens=count, context_length=context)
        job.prompt = await cut_prompt(
            job.loaded, job.prompt, context - min(asked, context // 2), middle=True
        )
        kept = await job.loaded.count_prompt_tokens(job.prompt)
        job.hidden_tokens += count - kept if script.hides_truncation else 0
        count = kept
    room = max(1, min(asked, context - count))

    def on_progress(progress: PrefillProgress) -> None:
        if not script.prefill_s:
            _tell_progress(job, progress.cached_tokens, progress.processed_tokens, count)

    reply = await job.loaded.complete(
        job.prompt, max_tokens=room, stop=_stops(job), on_progress=on_progress
    )
    cached = reply.cached_tokens or 0
    for number in range(PREFILL_SLICES if script.prefill_s else 0):
        part = (reply.prompt_tokens - cached) * (number + 1) // PREFILL_SLICES
        await anyio.sleep(script.prefill_s / PREFILL_SLICES)
        _tell_progress(job, cached, cached + part, reply.prompt_tokens)
    if reply.stop_reason is StopReason.MAX_TOKENS and room < asked:
        return attrs.evolve(reply, stop_reason=StopReason.CONTEXT_LENGTH)
    return reply


def _bound(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        return DEFAULT_REPLY
    return int(value)


def _stops(job: _Job) -> list[str]:
    return [text for text in as_list(job.field("stopStrings")) if isinstance(text, str)]


def _tell_progress(job: _Job, cached: int, processed: int, total: int) -> None:
    details = {
        "cachedTokenCount": cached,
        "totalPromptTokenCount": total,
        "processedPromptTokenCount": processed - cached,
        "unprocessedPromptTokenCount": total - processed,
    }
    share = processed / total if total else 1.0
    job.channel.send({"type": "promptProcessingProgress", "progress": share, "details": details})


def _note(job: _Job, reply: Reply) -> None:
    prompt_tokens = reply.prompt_tokens + job.hidden_tokens
    job.stats = {
        "tokensPerSecond": reply.tokens_per_second,
        "timeToFirstTokenSec": reply.ttft_s,
        "promptTokensCount": prompt_tokens,
        "predictedTokensCount": reply.generated_tokens,
        "totalTokensCount": prompt_tokens + reply.generated_tokens,
    }


async def _fragments(job: _Job, reply: Reply) -> None:
    script = job.channel.state.script
    pieces: Iterable[tuple[str, str]] = [
        *((text, "reasoning") for text in _PIECE.findall(reply.reasoning)),
        *((text, "none") for text in _PIECE.findall(reply.text)),
    ]
    if script.endless_from is not None and job.number >= script.endless_from:
        pieces = itertools.cycle([*pieces, (" on and on", "none")])
    for number, (text, kind) in enumerate(pieces):
        await anyio.sleep(script.fragment_s)
        fragment = {
            "content": text,
            "tokensCount": 1,
            "containsDrafted": False,
            "reasoningType": kind,
            "isStructural": False,
        }
        job.channel.send({"type": "fragment", "fragment": fragment})
        if number == 0:
            await job.channel.step(Step.PREDICT_MID_STREAM)
            if job.number == script.drop_in_prediction:
                await job.channel.drop()


def _succeed(job: _Job, stop_reason: str) -> None:
    job.record.stop_reason = stop_reason
    job.channel.send(
        {
            "type": "success",
            "stats": {k: v for k, v in job.stats.items() if v is not None}
            | {"stopReason": stop_reason},
            "modelInfo": instance_entry(job.instance, job.channel.state.script),
            "loadModelConfig": config_pairs(load_config(job.instance)),
            "predictionConfig": config_pairs(job.record.fields),
        }
    )
