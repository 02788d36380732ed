"""A small English grammar: varied sentences without end, from word lists of our own.

Nothing here is quoted from anywhere. One constant block repeated over and over would be a
regime of its own (a model may compress it, or loop on it), so every sentence is drawn anew:
the grammar has some 10^9 of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

__all__ = ["filler_sentences"]

_PEOPLE = tuple(
    "the miller|the ferryman|a young surveyor|the harbour clerk|an old gardener|the night porter|"
    "the glazier|a travelling tailor|the librarian|the beekeeper|the mason|a quiet student|"
    "the baker's apprentice|the weaver|the postmaster|the cooper|the stable hand|the potter|"
    "a retired pilot|the innkeeper|a patient fisherman|the organ builder|two of the carpenters|"
    "the shepherd's daughter|a cheerful carter|the bookbinder|the lamplighter|her elder brother|"
    "the schoolteacher|a wandering painter|the basket maker|the toll keeper".split("|")
)
_DEEDS = tuple(
    "carried|repaired|measured|borrowed|painted|counted|admired|sorted|wrapped|delivered|polished|"
    "inspected|stacked|sketched|returned|cleaned|weighed|labelled|traded|hid|mended|lifted|"
    "examined|bought|dried|unloaded|covered|arranged|collected|lost and found".split("|")
)
_QUALITIES = tuple(
    "heavy|narrow|bright|broken|wooden|copper|faded|round|ancient|plain|striped|hollow|damp|"
    "polished|crooked|sturdy|silver|woollen|dusty|gentle|painted|rusty|slender|borrowed|"
    "half-finished|clumsy|elegant|weathered|spotless|curious".split("|")
)
_THINGS = tuple(
    "lantern|barrel|ladder|ledger|basket|clock|blanket|kettle|map|window frame|saddle|mirror|"
    "wheel|jar|rope|bench|coat|spoon|cart|drum|chest|shutter|churn|anvil|broom|stool|sail|"
    "wheelbarrow|candlestick|fence post".split("|")
)
_PLACES = tuple(
    "near the river|behind the chapel|at the market|under the bridge|in the upper meadow|"
    "beside the old mill|along the harbour wall|by the orchard gate|on the hill road|"
    "inside the long barn|at the crossroads|in the quiet square|below the waterfall|"
    "across the common|outside the town gate|in the shade of the elms".split("|")
)
_TIMES = tuple(
    "before sunrise|in the late afternoon|during the first frost|after the rain|"
    "on a windy morning|towards evening|at noon|while the others slept|early in spring|"
    "on market day|when the fog had cleared|soon after the harvest|on the shortest day|"
    "between two showers".split("|")
)
_ENDINGS = tuple(
    "and nobody asked why|because the weather was turning|so the work could go on|"
    "although it took most of the day|and then walked home|while a dog watched from the step|"
    "as the season required|and thought no more about it|with great care|for a fair price|"
    "which surprised everyone a little|until the light was gone|as had always been the custom|"
    "and whistled all the while|without saying a word|just as the letter had asked".split("|")
)


def _sentence(rng: Random) -> str:
    who, did = rng.choice(_PEOPLE), rng.choice(_DEEDS)
    what = f"{rng.choice(_QUALITIES)} {rng.choice(_THINGS)}"
    where, when, end = rng.choice(_PLACES), rng.choice(_TIMES), rng.choice(_ENDINGS)
    shapes = (
        f"{who} {did} the {what} {where} {when}",
        f"{when}, {who} {did} the {what} {where}, {end}",
        f"{where}, {who} {did} the {what} {end}",
        f"{who} {did} the {what}, {end}",
        f"{when} {who} came by and {did} the {what}",
        f"it was {who} who {did} the {what} {where}",
    )
    text = rng.choice(shapes)
    return f"{text[0].upper()}{text[1:]}."


def filler_sentences(seed: int) -> Iterator[str]:
    """Endless sentences; the same ones for the same `seed`."""
    rng = Random(f"filler {seed}")  # noqa: S311 - reproducible text, not a secret
    while True:
        yield _sentence(rng)
