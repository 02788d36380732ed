"""How often the classification of free writing errs, on text that it was not calibrated on.

    python benchmarks/coherence.py [--half calibration|evaluation] [--show]

Good and bad texts come from ``tests/validators/coherence/data``; half of the groups of each,
chosen by a hash, set the thresholds, the other half is counted here. Each text is assessed without
a yardstick, and with good writing of the same make as the model's own. Exits with 1 where more than
1 % of the good texts are called broken, or more than 5 % of the bad texts of one kind are not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from lmstrix.validators.coherence.kinds import Kind
from lmstrix.validators.coherence.short import looks_broken
from lmstrix.validators.coherence.text import assess

DATA = Path(__file__).parent.parent / "tests" / "validators" / "coherence" / "data"
MOST_FALSE_ALARMS = 0.01
MOST_MISSES = 0.05
OWN_CHARACTERS = 250
"""Writing up to the limit of 64 tokens or more, as a validator records it."""
NOT_BROKEN = frozenset({Kind.FINE, Kind.TOO_SHORT, Kind.LIKE_OWN})


@attrs.frozen(kw_only=True)
class Sample:
    """One text, and what it is."""

    kind: Kind
    what: str
    group: str
    text: str
    ended: bool = False

    @property
    def half(self) -> str:
        """``calibration`` or ``evaluation``: the same for all texts of one group."""
        odd = hashlib.sha256(self.group.encode()).digest()[0] % 2
        return "evaluation" if odd else "calibration"

    @property
    def language(self) -> str:
        """What its text was made from."""
        return self.what.split(" ")[0]


@attrs.define(kw_only=True)
class Row:
    """One line of the table."""

    name: str
    n: int = 0
    errors: int = 0
    with_own: int = 0
    """Errors where the model's own writing is known."""
    other_kind: int = 0
    """Bad texts that are called broken, by another name."""
    most: float = 0.0

    @property
    def is_bad(self) -> bool:
        """Whether it errs more than it may, as the validator uses it: with a yardstick."""
        return self.with_own > self.most * self.n

    def __str__(self) -> str:
        rate = f"{self.with_own / self.n:7.1%}" if self.n else "      -"
        flag = "  <- too many" if self.is_bad else ""
        head = f"{self.name:<28}{self.n:>6}{self.errors:>12}{self.with_own:>10}"
        return f"{head}{rate}{self.other_kind:>12}{flag}"


HEAD = f"{'':<28}{'n':>6}{'errors':>12}{'with own':>10}{'':>7}{'other kind':>12}"


def samples(name: str) -> list[Sample]:
    """The lines of one file of the data."""
    path = DATA / f"{name}.jsonl"
    # not splitlines(): the texts hold other line ends
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [
        Sample(
            kind=Kind(row["kind"]),
            what=row["what"],
            group=row["group"],
            text=row["text"],
            ended=row["ended"],
        )
        for row in rows
        if row["kind"] != "unclear"
    ]


def own_writing(sample: Sample, good: Sequence[Sample]) -> str | None:
    """Good writing of the same make, from another group; English prose where there is none."""
    full = [g for g in good if len(g.text) >= OWN_CHARACTERS or g.language in {"zh", "ja"}]
    alike = [g for g in full if g.language == sample.language and g.group != sample.group]
    choice = alike or [g for g in good if g.language == "en" and g.group != sample.group]
    at = int.from_bytes(hashlib.sha256(sample.text.encode("utf-8", "replace")).digest()[:4], "big")
    return choice[at % len(choice)].text if choice else None


def count(texts: Iterable[Sample], good: Sequence[Sample], *, show: bool = False) -> list[Row]:
    """Rows by kind and by make."""
    rows: dict[str, Row] = {}
    for sample in texts:
        fine = sample.kind is Kind.FINE
        alone = assess(sample.text, ended=sample.ended)
        beside = assess(sample.text, own=own_writing(sample, good), ended=sample.ended)
        wrong = [(a.kind in NOT_BROKEN) is not fine for a in (alone, beside)]
        if show and any(wrong):
            sys.stderr.write(f"{sample.what}: {alone} {beside}\n{sample.text!r}\n")
        for name in (f"all {sample.kind}", f"  {sample.kind}, {sample.what}"):
            row = rows.setdefault(name, Row(name=name))
            row.n += 1
            row.errors += wrong[0]
            row.with_own += wrong[1]
            row.other_kind += not wrong[1] and beside.kind is not sample.kind
            whole = name.startswith("all")
            row.most = (MOST_FALSE_ALARMS if fine else MOST_MISSES) if whole else 1.0
    return [
        *(r for n, r in rows.items() if n[0] == "a"),
        *(r for n, r in rows.items() if n[0] == " "),
    ]


def count_short(texts: Iterable[Sample]) -> list[Row]:
    """The same for replies of 16 tokens; word salad is caught where it is certain."""
    rows: dict[str, Row] = {}
    for sample in texts:
        found = looks_broken(sample.text)
        fine = sample.kind is Kind.FINE
        name = f"short {sample.kind}" + ("" if fine else f", {sample.what}")
        row = rows.setdefault(name, Row(name=name))
        row.n += 1
        wrong = (found is None) is not fine
        row.errors += wrong
        row.with_own += wrong
        row.other_kind += not fine and found is not None and found is not sample.kind
        row.most = MOST_FALSE_ALARMS if fine else MOST_MISSES
        if sample.kind is Kind.WORD_SALAD:
            row.most = 1.0  # not reliable at this length, and said so
    return list(rows.values())


def table(half: str, *, show: bool = False) -> list[Row]:
    """All rows for one half of the data."""
    model = samples("model")
    good = [*samples("good"), *(s for s in model if s.kind is Kind.FINE)]
    bad = [*samples("bad"), *(s for s in model if s.kind is not Kind.FINE)]
    chosen = [s for s in (*good, *bad) if s.half == half]
    short = [s for s in (*samples("short_good"), *samples("short_bad")) if s.half == half]
    return [*count(chosen, good, show=show), *count_short(short)]


def main() -> int:
    """Print the table; 1 where a row errs too often."""
    parser = argparse.ArgumentParser(description="Error rates of the classification.")
    parser.add_argument("--half", choices=("calibration", "evaluation"), default="evaluation")
    parser.add_argument("--show", action="store_true", help="write the texts that it errs on")
    arguments = parser.parse_args()
    rows = table(arguments.half, show=arguments.show)
    print(f"Coherence, {arguments.half} half: false alarms on fine text, misses on the rest\n")
    print(HEAD, *rows, sep="\n")
    return int(any(row.is_bad for row in rows))


if __name__ == "__main__":
    sys.exit(main())
