"""What a measurement has found out so far, and what its result depends on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from datetime import datetime

import attrs

from lmstrix.measure.ledger import Ledger
from lmstrix.measure.level import Level
from lmstrix.measure.loading import Loadable
from lmstrix.measure.options import MeasureOptions
from lmstrix.models import Cause, Judgement, Method, ModelInfo, Status, Trial
from lmstrix.ports import SearchStrategy, Validator
from lmstrix.problem import SearchProblem

__all__ = ["Findings", "limit_of"]


@attrs.define(kw_only=True)
class Findings:
    """Everything that a report is made of, filled in as the measurement goes on."""

    model: ModelInfo
    strategy: SearchStrategy
    validator: Validator
    levels: tuple[Level, ...] = ()
    options: MeasureOptions
    started_at: datetime
    status: Status | None = None
    ledger: Ledger | None = None
    loadable: Loadable | None = None
    problem: SearchProblem | None = None
    level_problems: dict[str, SearchProblem] = attrs.field(factory=dict[str, SearchProblem])
    """By level; one that the model cannot do at short length either has none."""
    certified: bool = False
    notes: list[str] = attrs.field(factory=list[str])

    @property
    def main(self) -> Level:
        """The measurement's own validator as a level."""
        return Level(validator=self.validator, required=True, is_main=True)

    def document(self, number: int) -> int:
        """A seed of its own for each document of a measurement; -1 is the baseline's own."""
        return self.options.seed * 1000 + number + 1

    @property
    def method(self) -> Method:
        """How the number is being found."""
        return Method(
            strategy=self.strategy.name,
            validator=self.validator.name,
            tolerance=self.options.tolerance,
            ratio=self.options.ratio,
            seed=self.options.seed,
            max_context=self.options.max_context,
            absolute=self.options.absolute,
            levels=tuple(level.validator.name for level in self.levels),
        )

    def key(self, status: Status) -> str:
        """What a result depends on: under another key it is another result."""
        depends: dict[str, object] = {
            "adapter": status.adapter,
            "versions": dict(sorted(status.versions.items())),
            "model": [self.model.key, self.model.digest, self.model.size_bytes],
            "declared": self.model.declared_context,
            "method": attrs.asdict(self.method),
        }
        if self.options.max_memory_bytes is not None:
            depends["memory"] = self.options.max_memory_bytes
        return json.dumps(depends, sort_keys=True)


def limit_of(trials: Iterable[Trial]) -> Cause:
    """What the wrong answers at a failed length have in common."""
    judged = Counter(t.judgement for t in trials)
    broken = judged[Judgement.GIBBERISH] + judged[Judgement.EMPTY]
    return Cause.GIBBERISH if broken > judged[Judgement.WRONG] else Cause.FORGETS
