"""Makes good.jsonl, bad.jsonl, short_good.jsonl and short_bad.jsonl from the texts in `written`.

    python tests/validators/coherence/data/make.py

The texts were written for these tests. Each line has a `group`: lines made from the same
paragraph share it, so that calibration and evaluation never see the same text.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lmstrix.validators.haystack import filler_sentences

HERE = Path(__file__).parent
SPACED = ("en", "en_small", "de", "fr")
UNSPACED = ("zh", "ja")
WORD_OR_GAP = re.compile(r"\s*\S+")
Line = dict[str, object]


def paragraphs(name: str) -> list[str]:
    """The texts of one file."""
    text = (HERE / "written" / f"{name}.txt").read_text(encoding="utf-8")
    return [p.strip("\n") for p in text.split("\n%%\n" if name in ("code", "en_lists") else "\n\n")]


def pieces(name: str, text: str) -> list[str]:
    """Words with the space before them; single characters where there are no spaces."""
    return list(text) if name in UNSPACED else WORD_OR_GAP.findall(text)


def window(rng: random.Random, name: str, text: str, low: int = 45, high: int = 90) -> str:
    """About 64 to 128 tokens of `text`, from its beginning or from anywhere."""
    parts = pieces(name, text)
    size = rng.randint(low, high) * (2 if name in UNSPACED else 1)
    start = rng.choice([0, rng.randint(0, max(0, len(parts) - size))])
    return "".join(parts[start : start + size])


def line(kind: str, what: str, group: str, text: str, *, ended: bool = False) -> Line:
    """One sample."""
    return {"kind": kind, "what": what, "group": group, "ended": ended, "text": text}


def good(rng: random.Random) -> Iterator[Line]:
    """Writing as it should be."""
    for name in (*SPACED, *UNSPACED, "code"):
        for i, text in enumerate(paragraphs(name)):
            for _ in range(2 if name in ("code", "en_lists") else 3):
                yield line("fine", name, f"{name} {i}", window(rng, name, text))
    for i, text in enumerate(paragraphs("en_lists")):
        yield line("fine", "lists", f"lists {i}", window(rng, "en", text, 40, 90))
        yield line("fine", "lists", f"lists {i}", text[:600])
    for i in range(40):
        text = " ".join(islice(filler_sentences(7000 + i), 10))
        yield line("fine", "grammar", f"grammar {i}", window(rng, "en", text))
    for i in range(40):
        yield line("fine", "json", f"json {i}", json_text(rng, i)[: rng.randint(250, 500)])
    for name in ("en", "de", "fr", "zh", "ja"):
        sentences = [s for t in paragraphs(name) for s in re.findall(r"[^.!?。]+[.!?。]", t)]
        for i in range(12):
            text = "".join(rng.sample(sentences, 10))
            yield line("fine", f"{name} mixed", f"{name} mixed {i}", window(rng, name, text))


NAMES = "Anna Bruno Carla David Emil Fatima Greta Hugo Ines Jonas Kim Lars Mona Nils Olga".split()
PLACES = "Bergen Porto Lille Gent Turin Graz Brno Cork Bath Vigo Kiel Metz Pisa Linz".split()


def json_text(rng: random.Random, i: int) -> str:
    """JSON of several makes."""
    rows: list[dict[str, object]] = [
        {
            "id": rng.randint(1, 9999),
            "name": rng.choice(NAMES),
            "city": rng.choice(PLACES),
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
    data = [{k: row[k] for k in keep} for row in rows]
    return json.dumps(data, indent=[None, 2, None][i % 3])


def bad(rng: random.Random) -> Iterator[Line]:
    """Writing as it should not be."""
    yield from loops(rng)
    yield from salads(rng)
    yield from symbols(rng)
    for text in ("", " ", "\n", "\n\n\n\n", " \t ", "\u00a0", "\u3000", "\u200b"):
        yield line("empty", "empty", f"empty {text!r}", text, ended=True)
    stops = (".", " The", "\n\nI", "In", " a", "Yes.", "1", "-", "The end.", "\u3002", "Der", "OK")
    for text in stops:
        yield line("instant_stop", "instant stop", f"stop {text}", text, ended=True)


def loops(rng: random.Random) -> Iterator[Line]:
    """A fine beginning of up to a third, then a phrase over and over."""
    for name in ("en", "en_small", "de", "fr", "zh", "ja", "code"):
        for i, text in enumerate(paragraphs(name)):
            parts = pieces(name, text)
            period = rng.choice((1, 2, 3, 5, 8, 12, 20)) * (2 if name in UNSPACED else 1)
            size = rng.randint(60, 90) * (2 if name in UNSPACED else 1)
            start = rng.randint(0, size // 3)
            phrase = parts[start : start + period] or parts[-period:]
            endless = parts[:start] + phrase * (size // len(phrase) + 1)
            yield line("loop", f"{name}", f"{name} {i}", "".join(endless[:size]))
    for i, text in enumerate(paragraphs("en")):
        words = text.split()
        at = rng.randint(0, len(words) - 12)
        phrase = " ".join(words[at : at + rng.randint(5, 11)]).strip(".,;")
        counted = "\n".join(f"{n}. {phrase}." for n in range(1, 14))
        yield line("loop", "numbered", f"en {i}", counted[:500])
    for i, unit in enumerate(
        ("ha", "lorem", "ab", "xyz", "no", "blah", "\u54c8", "\u306e", "1", "na")
    ):
        yield line("loop", "unbroken", f"unbroken {i}", unit * (300 // len(unit)))


def salads(rng: random.Random) -> Iterator[Line]:
    """Words without order: with their marks, without, in pieces, and function words alone."""
    for name in ("en", "en_small", "de", "fr", *UNSPACED):
        for i, text in enumerate(paragraphs(name)):
            yield line("word_salad", name, f"{name} {i}", shuffled(rng, name, text, marks=True))
            if i % 2 or name == "en":
                bare = shuffled(rng, name, text, marks=False)
                yield line("word_salad", f"{name} bare", f"{name} {i}", bare)
    for i, text in enumerate(paragraphs("en")):
        word_pieces = [
            w[a : a + 3] for w in re.findall(r"[a-z]+", text) for a in range(0, len(w), 3)
        ]
        rng.shuffle(word_pieces)
        parts = [p + rng.choice(("", " ", " ")) for p in word_pieces]
        yield line("word_salad", "pieces", f"en {i}", "".join(parts[:110]))
        few = rng.sample("the of and a to in last past that was it is on".split(), 7)
        odd = rng.sample(re.findall(r"[a-z]{4,}", text), 5)
        mess = " ".join(rng.choice(few if rng.random() < 0.75 else odd) for _ in range(80))
        yield line("word_salad", "few words", f"en {i}", mess)


def shuffled(rng: random.Random, name: str, text: str, *, marks: bool) -> str:
    """The words of `text` in any order; runs of one to three characters without spaces."""
    if name in UNSPACED:
        chunks: list[str] = []
        rest = text if marks else re.sub(r"\W", "", text)
        while rest:
            size = rng.choice((1, 1, 2, 2, 2, 3))
            chunks.append(rest[:size])
            rest = rest[size:]
        rng.shuffle(chunks)
        return "".join(chunks)[: rng.randint(100, 180)]
    words = text.split() if marks else re.findall(r"[^\W_]+", text)
    rng.shuffle(words)
    return " ".join(words[: rng.randint(55, 90)])


def symbols(rng: random.Random) -> Iterator[Line]:
    """Marks, marks among letters, several scripts, and text decoded as what it is not."""
    for i in range(20):
        noise = "".join(rng.choice(string.punctuation + " ") for _ in range(rng.randint(80, 300)))
        yield line("symbols", "marks", f"marks {i}", noise)
    for i in range(16):
        pool = string.punctuation * 2 + string.ascii_letters + " " * 8
        noise = "".join(rng.choice(pool) for _ in range(rng.randint(150, 300)))
        yield line("symbols", "marks and letters", f"mixed marks {i}", noise)
    ranges = (
        (0x61, 0x7A),
        (0x430, 0x44F),
        (0x4E00, 0x5500),
        (0x627, 0x63A),
        (0xAC00, 0xAF00),
        (0xE01, 0xE20),
        (0x905, 0x928),
        (0x3B1, 0x3C9),
    )
    for i in range(24):
        chosen = rng.sample(ranges, rng.randint(3, 6))
        words: list[str] = []
        for _ in range(rng.randint(40, 70)):
            first, last = rng.choice(chosen)
            words.append("".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 5))))
        yield line("symbols", "scripts", f"scripts {i}", rng.choice(("", " ")).join(words))
    for name, codec in (("de", "latin-1"), ("fr", "cp1252"), ("zh", "latin-1"), ("ja", "cp1252")):
        for i, text in enumerate(paragraphs(name)):
            broken = text.encode()[: rng.randint(200, 400)].decode(codec, "replace")
            if name == "de":
                broken = broken.replace("\u00c3", "\u00c3\u0083\u00c2")
            if sum(ord(c) > 127 for c in broken) > 8:
                yield line("symbols", "mojibake", f"{name} {i}", broken)


def short_good(rng: random.Random) -> Iterator[Line]:
    """Replies of up to 16 tokens that are no right answer, and yet language."""
    plain = (
        " something else.| 4821| forty-eight thousand|I do not know.| nothing that I know of.|"
        " BK-418| the blue one| 12, 34, 56 and 78| it is not said in the text.|"
        "Sorry, I cannot help with that.| 48,213 or 48,231, I am not sure| Amber|"
        " the number that is written on the door of the vault.| 7|"
        " red, green, blue, yellow, black, white, grey| the miller and the miller's son| 1111|"
        " 2024-11-03| no, no, it was the other one| very, very old| 0000 0000| on and on|"
        " one by one by one| the number of the number on the door| a| ...| ?| -|The|**4821**|"
        "`4821`| (see above)|A: 4821\nB: 5532| that is that| 4821 4821|"
        " John Smith, 12 Mill Lane"
    )
    for i, text in enumerate(plain.split("|")):
        yield line("fine", "plain", f"plain {i}", text)
    for name in ("en", "en_small", "de", "fr", "zh", "ja"):
        for i, text in enumerate(paragraphs(name)):
            for _ in range(3):
                cut = window(rng, name, text, 8, 13)
                yield line("fine", name, f"{name} {i}", cut)
    for i in range(120):
        text = next(filler_sentences(9000 + i))
        words = text.split()
        start = rng.choice((0, rng.randint(0, len(words) // 2)))
        yield line("fine", "document", f"document {i}", " " + " ".join(words[start:][:14]))


def short_bad(rng: random.Random) -> Iterator[Line]:
    """Replies of 16 tokens that are none."""
    for i in range(100):
        document = " ".join(islice(filler_sentences(20000 + i), 40))
        words = re.findall(r"\w+", document)
        salad = "".join(f" {rng.choice(words)}" for _ in range(16))
        yield line("word_salad", "document", f"salad {i}", salad)
        if i >= 40:
            continue
        end = words[-8:]
        yield line("loop", "last words twice", f"twice {i}", "".join(f" {w}" for w in end * 2))
        short = rng.randint(1, 4)
        phrase = words[i : i + short]
        yield line("loop", "phrase", f"phrase {i}", "".join(f" {w}" for w in (phrase * 16)[:16]))
        marks = "".join(f" {rng.choice('#$%&*+=@^~|<>')}" for _ in range(16))
        yield line("symbols", "marks", f"marks {i}", marks)


def write(name: str, lines: Iterator[Line]) -> None:
    """Write one file."""
    rows = [json.dumps(row, ensure_ascii=False) for row in lines]
    (HERE / name).write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for maker in (good, bad, short_good, short_bad):
        write(f"{maker.__name__}.jsonl", maker(random.Random(maker.__name__)))
