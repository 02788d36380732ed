"""How often the classification of free writing is wrong.

    python benchmarks/coherence.py [--seed N] [--show]

Good and bad texts are made from those in ``tests/validators/texts``: every seed draws others. The
last rows are texts of a real model. Each long text is assessed by itself and beside good writing
of the same kind as the model's own. Exits with 1 if more than 1 % of the good texts are called
broken, or if more than 1 % of the loops, symbols or empty replies are missed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

from lmstrix.validators.judging import Kind, assess, is_broken

TEXTS = Path(__file__).parent.parent / "tests" / "validators" / "texts"
MOST_ERRORS = 0.01
SPACED, UNSPACED = ("en", "en_small", "de", "fr"), ("zh", "ja")
SURE = frozenset({Kind.FINE, Kind.LOOP, Kind.SYMBOLS, Kind.EMPTY})
"""Kinds with hardly any errors. Word salad and instant stops are found less surely."""
BROKEN = frozenset({Kind.LOOP, Kind.SYMBOLS, Kind.EMPTY, Kind.WORD_SALAD, Kind.INSTANT_STOP})


@attrs.frozen
class Sample:
    """One text: its right kind, what it was made from, and whether its model ended it."""

    kind: Kind
    source: str
    text: str
    ended: bool = False


@attrs.define
class Row:
    """One line of the table."""

    kind: Kind
    name: str
    n: int = 0
    alone: int = 0
    """Errors without the model's own writing."""
    beside: int = 0
    """Errors with it."""

    @property
    def is_bad(self) -> bool:
        """Whether there are more errors than allowed."""
        whole = self.kind in SURE and not self.name.startswith(" ")
        return whole and max(self.alone, self.beside) > self.n * MOST_ERRORS

    def __str__(self) -> str:
        flag = "  <- too many" if self.is_bad else ""
        return f"{self.name:<28}{self.n:>6}{self.alone:>8}{self.beside:>8}{flag}"


# Texts ------------------------------------------------------------------------------------------


def paragraphs(name: str) -> list[str]:
    """The texts of one file."""
    between = {"code": "\n%%\n", "en_lists": "\n%%\n", "filler": "\n"}.get(name, "\n\n")
    text = (TEXTS / f"{name}.txt").read_text(encoding="utf-8")
    return [p for part in text.split(between) if (p := part.strip("\n"))]


def pieces(name: str, text: str) -> list[str]:
    """Words with the space before them; single characters if there are no spaces."""
    return list(text) if name in UNSPACED else re.findall(r"\s*\S+", text)


def window(rng: random.Random, name: str, text: str, low: int = 45, high: int = 90) -> str:
    """About 64 to 128 tokens of `text`, from its beginning or from anywhere."""
    parts = pieces(name, text)
    size = rng.randint(low, high) * (2 if name in UNSPACED else 1)
    start = rng.choice([0, rng.randint(0, max(0, len(parts) - size))])
    return "".join(parts[start : start + size])


def good(rng: random.Random) -> Iterator[Sample]:
    """Writing as it should be."""
    for name in (*SPACED, *UNSPACED, "code", "en_lists"):
        for text in paragraphs(name):
            for _ in range(3):
                yield Sample(Kind.FINE, name, window(rng, name, text))
    filler = paragraphs("filler")
    for i in range(40):
        yield Sample(Kind.FINE, "filler", window(rng, "en", " ".join(rng.sample(filler, 10))))
        yield Sample(Kind.FINE, "json", json_text(rng, i)[: rng.randint(250, 500)])
    for name in ("en", "de", "fr", *UNSPACED):
        sentences = [s for t in paragraphs(name) for s in re.findall(r"[^.!?。]+[.!?。]", t)]
        for _ in range(12):
            yield Sample(Kind.FINE, name, window(rng, name, "".join(rng.sample(sentences, 10))))


def json_text(rng: random.Random, i: int) -> str:
    """JSON of several kinds."""
    names = "Anna Bruno Carla David Emil Fatima Greta Hugo Ines Jonas Kim Lars Mona Nils".split()
    places = "Bergen Porto Lille Gent Turin Graz Brno Cork Bath Vigo Kiel Metz Pisa Linz".split()
    rows: list[dict[str, object]] = [
        {
            "id": rng.randint(1, 9999),
            "name": rng.choice(names),
            "city": rng.choice(places),
            "age": rng.randint(18, 90),
            "active": rng.random() < 0.5,
            "scores": [round(rng.random() * 10, 1) for _ in range(rng.randint(1, 4))],
        }
        for _ in range(8)
    ]
    if i % 4 == 3:
        nested = {row["name"]: {"address": {"city": row["city"]}, "tags": None} for row in rows}
        return json.dumps({"version": 2, "people": nested, "next": f"/p?page={i}"}, indent=2)
    keep = rng.sample(sorted(rows[0]), rng.randint(3, 6))
    return json.dumps([{k: row[k] for k in keep} for row in rows], indent=(None, 2, None)[i % 3])


def bad(rng: random.Random) -> Iterator[Sample]:
    """Writing as it should not be."""
    yield from loops(rng)
    yield from salads(rng)
    yield from symbols(rng)
    for text in ("", " ", "\n\n\n\n", " \t ", "\u00a0", "\u3000", "\u200b"):
        yield Sample(Kind.EMPTY, "empty", text, ended=True)
    for text in (".", " The", "\n\nI", " a", "Yes.", "1", "-", "The end.", "\u3002", "Der", "OK"):
        yield Sample(Kind.INSTANT_STOP, "stop", text, ended=True)


def loops(rng: random.Random) -> Iterator[Sample]:
    """A fine beginning of up to a third, then a phrase over and over."""
    for name in (*SPACED, *UNSPACED, "code"):
        for text in paragraphs(name):
            parts, wide = pieces(name, text), 2 if name in UNSPACED else 1
            period, size = rng.choice((1, 2, 3, 5, 8, 12, 20)) * wide, rng.randint(60, 90) * wide
            start = rng.randint(0, size // 3)
            phrase = parts[start : start + period] or parts[-period:]
            endless = parts[:start] + phrase * (size // len(phrase) + 1)
            yield Sample(Kind.LOOP, name, "".join(endless[:size]))
    for text in paragraphs("en"):
        words = text.split()
        at = rng.randint(0, len(words) - 12)
        phrase = " ".join(words[at : at + rng.randint(5, 11)]).strip(".,;")
        counted = "\n".join(f"{n}. {phrase}." for n in range(1, 14))
        yield Sample(Kind.LOOP, "en, numbered", counted[:500])
    for unit in ("ha", "lorem", "ab", "xyz", "no", "blah", "\u54c8", "\u306e", "1", "na"):
        yield Sample(Kind.LOOP, "en, without spaces", unit * (300 // len(unit)))


def salads(rng: random.Random) -> Iterator[Sample]:
    """Words in no order: with and without marks, in pieces, and function words alone."""
    for name in (*SPACED, *UNSPACED):
        for text in paragraphs(name):
            yield Sample(Kind.WORD_SALAD, name, shuffled(rng, name, text))
            bare = re.sub(r"[^\w\s]|_", " " if name in SPACED else "", text)
            yield Sample(Kind.WORD_SALAD, f"{name}, no marks", shuffled(rng, name, bare))
    for text in paragraphs("en"):
        torn = [w[a : a + 3] for w in re.findall("[a-z]+", text) for a in range(0, len(w), 3)]
        rng.shuffle(torn)
        mess = "".join(p + rng.choice(("", " ", " ")) for p in torn[:110])
        yield Sample(Kind.WORD_SALAD, "en, pieces", mess)
        few = rng.sample("the of and a to in last past that was it is on".split(), 7)
        odd = rng.sample(re.findall(r"[a-z]{4,}", text), 5)
        mess = " ".join(rng.choice(few if rng.random() < 0.75 else odd) for _ in range(80))
        yield Sample(Kind.WORD_SALAD, "en, few words", mess)


def shuffled(rng: random.Random, name: str, text: str) -> str:
    """The words of `text` in any order; runs of one to three characters without spaces."""
    parts = re.findall(".{1,2}", text) if name in UNSPACED else text.split()
    rng.shuffle(parts)
    return ("" if name in UNSPACED else " ").join(parts[: rng.randint(55, 90)])


def symbols(rng: random.Random) -> Iterator[Sample]:
    """Marks, marks among letters, several scripts, and text decoded as something else."""
    for _ in range(18):
        noise = "".join(rng.choices(string.punctuation + " ", k=rng.randint(80, 300)))
        yield Sample(Kind.SYMBOLS, "marks", noise)
        pool = string.punctuation * 2 + string.ascii_letters + " " * 8
        noise = "".join(rng.choices(pool, k=rng.randint(150, 300)))
        yield Sample(Kind.SYMBOLS, "marks and letters", noise)
    firsts = (0x61, 0x430, 0x4E00, 0x627, 0xAC00, 0xE01, 0x905, 0x3B1)
    for _ in range(24):
        chosen = rng.sample(firsts, rng.randint(3, 6))
        words = [
            "".join(chr(first + rng.randrange(19)) for _ in range(rng.randint(1, 5)))
            for first in rng.choices(chosen, k=rng.randint(40, 70))
        ]
        yield Sample(Kind.SYMBOLS, "scripts", rng.choice(("", " ")).join(words))
    for name, codec in (("de", "latin-1"), ("fr", "cp1252"), ("zh", "latin-1"), ("ja", "cp1252")):
        for text in paragraphs(name):
            broken = text.encode()[: rng.randint(200, 400)].decode(codec, "replace")
            if name == "de":
                broken = broken.replace("\u00c3", "\u00c3\u0083\u00c2")
            if sum(ord(c) > 127 for c in broken) > 8:
                yield Sample(Kind.SYMBOLS, "wrongly decoded", broken)


def recorded() -> list[Sample]:
    """Texts of a real model, labelled by hand."""
    lines = (TEXTS / "model.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]  # splitlines() would cut the texts
    return [Sample(Kind(r["kind"]), "model", r["text"], r["ended"]) for r in rows]


def short_good(rng: random.Random) -> Iterator[Sample]:
    """Wrong answers of up to 16 tokens that are language."""
    plain = (
        " something else.| 4821| forty-eight thousand|I do not know.| nothing that I know of.|"
        " BK-418| the blue one| 12, 34, 56 and 78| it is not said in the text.|"
        "Sorry, I cannot help with that.| 48,213 or 48,231, I am not sure| Amber| 1111|"
        " the number that is written on the door of the vault.| 7| 2024-11-03| very, very old|"
        " red, green, blue, yellow, black, white, grey| the miller and the miller's son|"
        " no, no, it was the other one| 0000 0000| on and on| one by one by one| a|The|**4821**|"
        " the number of the number on the door|`4821`| (see above)|A: 4821\nB: 5532| 4821 4821|"
        " that is that| John Smith, 12 Mill Lane"
    )
    for text in plain.split("|"):
        yield Sample(Kind.FINE, "answers", text)
    for name in (*SPACED, *UNSPACED, "filler"):
        for text in paragraphs(name):
            for _ in range(1 if name == "filler" else 3):
                yield Sample(Kind.FINE, name, window(rng, name, text, 8, 13))


def short_bad(rng: random.Random) -> Iterator[Sample]:
    """Replies of 16 tokens that are not language."""
    words = re.findall(r"\w+", " ".join(paragraphs("filler")))
    for _ in range(40):
        yield Sample(Kind.WORD_SALAD, "random words", " ".join(rng.choices(words, k=16)))
        at = rng.randrange(len(words) - 8)
        yield Sample(Kind.LOOP, "eight words twice", " ".join(words[at : at + 8] * 2))
        phrase = words[at : at + rng.randint(1, 4)]
        yield Sample(Kind.LOOP, "phrase", " ".join((phrase * 16)[:16]))
        yield Sample(Kind.SYMBOLS, "marks", " ".join(rng.choices("#$%&*+=@^~|<>", k=16)))


# The table --------------------------------------------------------------------------------------


def table(seed: int = 0, *, show: bool = False) -> list[Row]:
    """All rows: first by kind, then by kind and source."""
    rng = random.Random(seed)
    fine = list(good(rng))
    rows: dict[str, Row] = {}
    for sample in (*fine, *bad(rng), *recorded()):
        language = sample.source.split(",")[0]
        alike = [s for s in fine if s.source == language and s.text != sample.text]
        own = rng.choice(alike or [s for s in fine if s.source == "en"]).text
        found = [assess(sample.text, own=o, ended=sample.ended) for o in (None, own)]
        wrong = [(kind in BROKEN) is (sample.kind is Kind.FINE) for kind in found]
        if show and any(wrong):
            print(f"{sample.kind}, {sample.source}: {found}\n{sample.text!r}")
        for name in (f"all {sample.kind}", f"  {sample.kind}, {sample.source}"):
            row = rows.setdefault(name, Row(sample.kind, name))
            row.n, row.alone, row.beside = row.n + 1, row.alone + wrong[0], row.beside + wrong[1]
    for sample in (*short_good(rng), *short_bad(rng)):
        wrong_one = is_broken(sample.text) is (sample.kind is Kind.FINE)
        if show and wrong_one:
            print(f"short {sample.kind}, {sample.source}: {sample.text!r}")
        row = rows.setdefault(f"short {sample.kind}", Row(sample.kind, f"short {sample.kind}"))
        row.n, row.alone, row.beside = row.n + 1, row.alone + wrong_one, row.beside + wrong_one
    return sorted(rows.values(), key=lambda row: row.name.startswith(" "))


def main() -> int:
    """Print the table; 1 if a row has too many errors."""
    parser = argparse.ArgumentParser(description="Error rates of the classification of writing.")
    parser.add_argument("--seed", type=int, default=0, help="draw other texts")
    parser.add_argument("--show", action="store_true", help="print the texts it is wrong about")
    arguments = parser.parse_args()
    rows = table(arguments.seed, show=arguments.show)
    print("Coherence: false alarms on fine text, misses on the rest\n")
    print(f"{'':<28}{'n':>6}{'alone':>8}{'own':>8}", *rows, sep="\n")
    return int(any(row.is_bad for row in rows))


if __name__ == "__main__":
    sys.exit(main())
