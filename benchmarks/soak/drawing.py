"""What is measured, and what goes wrong meanwhile: drawn from a seed, the same every time."""

from __future__ import annotations

import enum
from collections.abc import Callable
from random import Random

import attrs

from lmstrix.models import Cause
from lmstrix.testing.simulated import Beyond, SimulatedModel

USERS_CONTEXT = 512
"""How large the user's own instance of each model is, in tokens: every model loads it."""
SHORTEST, LONGEST = 3072, 6144
"""Declared contexts, in tokens: short ones, as it is faults that cost the time here."""
GRANULARITY = 256
"""The search goes no finer."""
LOAD_TOLERANCE = 1 / 64
"""A search for what loads goes no finer."""
NEVER = 10**6
MALFORMED = 0.01
SHORTEST_TROUBLE_S, LONGEST_TROUBLE_S = 0.2, 3.0
"""Some are over before a deadline passes, some are not."""
LATEST_FAULT_S = 2.5
"""After the start of a run, or after the fault before: a run without faults takes about as long."""


class FaultKind(enum.StrEnum):
    """What goes wrong at one moment."""

    KILL = "kill"
    """SIGKILL of the process that measures."""
    KILL_ENGINE = "kill_engine"
    """SIGKILL of the server, which is then started again."""
    RESTART = "restart"
    """The server ends in good order, is away for a moment, and comes back."""
    DROP = "drop"
    """Every socket is torn down."""
    FREEZE = "freeze"
    """The server is stopped in the middle of a prediction, and goes on some time later."""
    FREEZE_AND_KILL = "freeze_and_kill"
    """Likewise, but it is killed and started again."""
    FLOOD = "flood"
    """For some time replies never end: neither at the number of tokens asked for nor when they
    are cancelled."""
    DELETE_STORE = "delete_store"
    """The store's file is deleted."""
    REPLACE_STORE = "replace_store"
    """Another store takes its place."""
    MOVE_STORE = "move_store"
    """The store's folder is not there any more."""


WEIGHTS = {
    FaultKind.KILL: 8,
    FaultKind.KILL_ENGINE: 2,
    FaultKind.RESTART: 3,
    FaultKind.DROP: 5,
    FaultKind.FREEZE: 3,
    FaultKind.FREEZE_AND_KILL: 2,
    FaultKind.FLOOD: 4,
}
STORE_FAULTS = (FaultKind.DELETE_STORE, FaultKind.REPLACE_STORE, FaultKind.MOVE_STORE)


@attrs.frozen(kw_only=True)
class Fault:
    """A fault, so many seconds after the one before it or after the start of a run."""

    kind: FaultKind
    after_s: float
    lasts_s: float
    """How long a server is frozen or floods."""


@attrs.frozen(kw_only=True)
class Draw:
    """One measurement of the soak. Lengths are tokens."""

    number: int
    model: SimulatedModel
    truth: int
    slack: int
    """How far below the truth the answer may lie."""
    cause: Cause
    certify: bool
    malformed: float
    """The share of the server's frames that are malformed."""
    slow_s: float
    """How long the disk takes for each trial, on top."""
    faults: tuple[Fault, ...]
    users_own: str
    """The identifier of the instance that the user has loaded of this model."""


_Kind = Callable[[SimulatedModel, int], tuple[SimulatedModel, Cause, int]]
"""Model and truth to the scripted model, the cause that it should have, and the slack."""


def _fails(beyond: Beyond, cause: Cause) -> _Kind:
    def make(model: SimulatedModel, truth: int) -> tuple[SimulatedModel, Cause, int]:
        return attrs.evolve(model, true_context=truth, beyond=beyond), cause, GRANULARITY

    return make


def _refused(model: SimulatedModel, truth: int) -> tuple[SimulatedModel, Cause, int]:
    slack = max(GRANULARITY, round(truth * LOAD_TOLERANCE))
    return attrs.evolve(model, refused_above=truth), Cause.LOAD_REFUSED, slack


def _too_large(model: SimulatedModel, truth: int) -> tuple[SimulatedModel, Cause, int]:
    slack = max(GRANULARITY, round(truth * LOAD_TOLERANCE))
    return attrs.evolve(model, loadable=truth), Cause.LOAD_FAILED, slack


def _clamped(model: SimulatedModel, truth: int) -> tuple[SimulatedModel, Cause, int]:
    return attrs.evolve(model, clamped_to=truth), Cause.CLAMPED, 0


def _fine(model: SimulatedModel, truth: int) -> tuple[SimulatedModel, Cause, int]:
    return attrs.evolve(model, declared=truth), Cause.DECLARED_MAXIMUM, 0


KINDS: tuple[_Kind, ...] = (
    _fails(Beyond.FORGETS_ALL, Cause.FORGETS),
    _fails(Beyond.FORGETS_ALL, Cause.FORGETS),
    _fails(Beyond.GIBBERISH, Cause.GIBBERISH),
    _fails(Beyond.EMPTY, Cause.GIBBERISH),
    _fails(Beyond.LOOPS, Cause.GIBBERISH),
    _fails(Beyond.CRASHES, Cause.CRASHED_ON_FILL),
    _refused,
    _too_large,
    _clamped,
    _fine,
)


def draw(seed: int, number: int) -> Draw:
    """Measurement `number` of the soak with that seed."""
    random = Random(f"{seed} {number}")
    declared = random.randrange(SHORTEST, LONGEST)
    # Nearer to what is declared, nothing would be found to fail.
    truth = min(random.randrange(declared // 4, declared), declared - 2 * GRANULARITY)
    blank = SimulatedModel(key=f"m{number}", declared=declared, true_context=NEVER)
    model, cause, slack = random.choice(KINDS)(blank, truth)
    return Draw(
        number=number,
        model=model,
        truth=truth,
        slack=slack,
        cause=cause,
        certify=random.random() < 0.25,
        malformed=MALFORMED if random.random() < 0.1 else 0.0,
        slow_s=random.uniform(0.005, 0.05) if random.random() < 0.3 else 0.0,
        faults=_faults(random),
        users_own=random.choice(("lmstrix-of-the-user", "users-own")) + f"-{number}",
    )


def _faults(random: Random) -> tuple[Fault, ...]:
    kinds = random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=random.randint(1, 4))
    if random.random() < 0.3:  # first, as a measurement may be over soon
        kinds.insert(0, random.choice(STORE_FAULTS))
    return tuple(
        Fault(
            kind=kind,
            after_s=random.uniform(0, LATEST_FAULT_S),  # from the very beginning on
            lasts_s=random.uniform(SHORTEST_TROUBLE_S, LONGEST_TROUBLE_S),
        )
        for kind in kinds
    )
