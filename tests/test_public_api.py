"""The public names, pinned: adding one is a decision, losing one breaks somebody."""

from __future__ import annotations

from types import ModuleType

import lmstrix
from lmstrix import errors, events, ports

PUBLIC = """
DEFAULT_ADAPTER DEFAULT_LEVELS DEFAULT_STRATEGY EMBEDDED_ADAPTER REPLY_TOKENS THIS_MACHINE
UNFINISHED Adapter Archive Ask Baseline BaselineMeasured BenchFinished BenchOptions BenchPoint
BenchSample BracketChanged Bracketing Cause ComparingValidator ConfigurationError ConnectionLost
ContextMap ContextOverflow ContextReport Cost CostModel CurvePoint DepthSource DepthTally Done
EngineCrashed
EngineTimeout EngineUnavailable Environment Event Forecast FormatError GradedValidator HasNotes
InfrastructureError Interval InvalidModel Judgement LMStrix LMStrixError Layer Level LevelReport
LoadError LoadFailed LoadFinished LoadHung LoadProgress LoadProgressed LoadRefused LoadStarted
LoadedInstance LoadedModel MapCell MapFinished MapOptions MeasureOptions MeasurementFinished
MeasurementStarted MemoryEstimate Merged Method ModelError ModelInUse ModelInfo ModelNotFound
NotMeasured Noted Observation Observer OutOfMemory Outcome OwnsEngine PassRule PhaseStarted
PluginNotFound PredictionError PredictionTooSlow PrefillProgress PrefillProgressed Probe
ProbeFinished ProbeStarted Prompt PromptTruncated Proportion Question QuestionSource Region
RegionReport Reply ReplyChunk ReplyTimed ReportSummary RetryPolicy Retrying Reuse SearchProblem
SearchStrategy SettingsError SeveralSource SeveralValidator SizeCheck SpeedBench SqliteStore
Status StopReason Store StoreContents StoreError StoredMeasurement StoredReport TakesTurns Trial
TrialFinished UnsupportedModel Usable Validator Verdict WaitingForTurn check_of dump_contents
dump_report is_store judge_reply load_contents load_map load_report missing_at plugin_names
reports_of suggestion to_json
""".split()


def test_the_public_names() -> None:
    assert lmstrix.__all__ == PUBLIC


def defined_in(module: ModuleType) -> set[str]:
    """The public classes that a module defines."""
    return {
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def test_every_error_is_public_and_has_the_one_root() -> None:
    names = defined_in(errors)
    assert len(names) > 20
    assert names <= set(lmstrix.__all__)
    for name in names:
        assert issubclass(getattr(errors, name), lmstrix.LMStrixError)


def test_every_event_and_port_is_public() -> None:
    assert defined_in(events) | defined_in(ports) <= set(lmstrix.__all__)
