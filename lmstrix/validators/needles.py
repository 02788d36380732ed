"""The facts in a document: needles, and a crowd of similar facts or chains if a validator asks.

A needle is a fact that cannot be guessed and differs from all others in subject and kind of value.
Needles of one kind would also measure how well a model tells them apart: of three or four codes in
one document, SmolLM2-135M at 5k missed two or three and mostly gave one for another. So no two
stems end alike: each names a unit or an object of its own just before the value, and there are two
codes, of different shapes. Every stem also announces its kind of value ("under the code", "in
pounds is"): one that a model tends to finish with a word of its own ("was invented by Professor")
measures that habit, not memory. All numbers have five digits: with four to six, SmolLM2-135M at 5k
stopped a digit too early or added two (8311 for 83118, 299507 for 2995): 16 of 20 instead of 19.

The places of needles and the choice of the next one are pure functions of numbers, which a
simulation uses without any text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import count, takewhile
from random import Random

import attrs

from lmstrix.models import Region
from lmstrix.problem import DOCUMENTS, LIKE_THE_FIRST, REGION_ORDER

# Stems: the sentence of a needle up to its value -------------------------------------------------

NUMBERS: tuple[str, ...] = (
    "The weight of the great bronze bell in pounds is",
    "The lighthouse lamp burned for a number of hours equal to",
    "The choir of Saint Ives rehearses in room",
    "The royal library keeps the treaty on shelf",
    "The spring marathon was won by the runner wearing bib",
    "The subway train to the airport consists of carriage",
    "The arctic station measured a snow depth in millimetres of",
    "The freight elevator can carry a load in kilograms of",
    "The concert grand was tuned by technician",
    "The submarine can dive to a pressure in millibars of",
    "The tea plantation lies on survey square",
    "The chess champion's rating rose to",
    "The quartz mine was closed at shaft",
    "The vault of the Osprey Hotel opens with the number",
    "The comet will return to our sky on day",
    "The glacier lost a volume in cubic metres of",
    "The summit of Harrow Peak has an altitude in feet of",
    "The oldest oak in Fenwick forest stands on parcel",
    "The telescope in the tower is engraved with the serial",
    "The first edition of the almanac is stored in crate",
    "The winning yacht sailed with the registration",
    "The documentary film was shot on negative roll",
    "The vaccine was delivered to the clinic in batch",
    "The spice caravan made camp at desert well",
    "The stolen violin was insured under policy",
    "The volcano was mapped on chart",
    "The satellite weighs in grams",
    "The pearl divers anchored above reef",
    "The whale was tagged with transmitter",
    "The population of Eastmoor at the last census was",
    "To reach Doctor Ellwood by telephone, dial",
    "The opera house keeps its costumes in locker",
    "The space probe sends on a frequency in kilohertz of",
    "The embassy's parcel is tracked as consignment",
    "The missing bicycle has the frame engraving",
    "The jury sealed its verdict in envelope",
    "The lottery's first prize went to ticket",
    "The hydroelectric dam produces a power in kilowatts of",
    "The museum lists the dinosaur skull as exhibit",
    "The prime minister's speech is kept on magnetic tape",
    "The desert railway has a length in furlongs of",
    "The ice rink is flooded with water in litres of",
    "The canal tunnel was dug to a width in centimetres of",
    "The iron bridge at Corwen rests on pier",
    "The parachute regiment keeps its flag in cabinet",
    "The cello was sold at auction as item",
    "The airship was moored to mast",
    "The polar bear at the zoo is listed as animal",
    "The national archive holds the census on microfilm",
    "The tunnel fire was fought by brigade",
    "The moon rock is sealed in capsule",
    "The swimming champion's cap bears the digits",
    "The crossword prize was sent to household",
    "The tram depot parks its oldest tram on track",
    "The ballet premiere was reviewed on folio",
    "The emerald necklace was pawned under receipt",
    "The cheese cellar ripens its best wheel on rack",
    "The weather balloon rose to a height in yards of",
    "The rescue helicopter refuels at landing pad",
    "The marble statue was shipped in container",
    "The fire engine draws water from hydrant",
    "The police found the stolen car in garage",
    "The wolf pack was filmed by camera",
    "The dictionary explains its rarest word on column",
    "The kangaroo was born as zoo entry",
    "The gold coin was dug up in trench",
    "The bank robber was last seen on platform",
    "The rocket engine gives a thrust in newtons of",
    "The linen factory weaves with a thread count of",
    "The ferry to Skarholm departs from berth",
    "The postcard from Lisbon bears the postmark",
    "The diary of Admiral Keane begins on leaf",
    "The salt lake covers an area in hectares of",
    "The circus tent was raised on plot",
    "The sewing machine was patented under filing",
    "The toy train is listed on catalogue line",
    "The bird sanctuary ringed the falcon with band",
    "The tax office files the brewery under account",
    "The library card of Miss Penrose shows the member number",
    "The sugar refinery burns coal in tonnes of",
    "The dentist orders gold crowns from laboratory",
    "The cable car hangs from pylon",
    "The judge's wig is kept in box",
    "The cooperage sold its finest cask as stock number",
    "The school bus is parked in bay",
    "The tennis final was watched by a crowd of",
    "The mosaic floor was laid with tiles to a total of",
    "The shipwreck lies at a depth in fathoms of",
    "The power plant cools its rods in basin",
    "The tortoise has reached an age in days of",
    "The crown jewels are watched by sentry",
    "The potato field yields a harvest in kilos of",
    "The stamp collector paid a price in crowns of",
    "The fossil fern was split from slab",
    "The jazz club recorded its last session on reel",
    "The lake monster was photographed on exposure",
    "The fortress wall was breached at tower",
    "The steam tractor won the county fair as entrant",
    "The Roman villa was excavated in quadrant",
    "The typewriter was returned to workshop",
    "The lemon grove is watered by canal",
    "The medal of Sergeant Boyle is stamped with the figure",
    "The racing pigeon wore the ring",
    "The astronaut trained in simulator",
    "The soap factory mixes its lavender oil in vat",
    "The border with Norland begins at stone",
    "The reindeer herd grazes on pasture",
    "The ambulance log lists the broken leg as case",
    "The plague mask is displayed in showcase",
    "The whisky distillery works under licence",
    "The river Orla carries water in gallons of",
    "The oil tanker was anchored to buoy",
    "The sumo wrestler eats a daily meal in calories of",
    "The abbey honey comes from hive",
    "The cinema reserves for the mayor the seat",
    "The thunderstorm cut the power on line",
    "The rubber plantation was bought for a sum in florins of",
    "The grain silo has a capacity in bushels of",
    "The aqueduct was repaired at arch",
    "The trout hatchery breeds its fish in tank",
    "The hammer thrower competed with the start number",
    "The harbour crane was approved under certificate",
    "The bus to Penhale runs as route",
    "The queen's coach stands in coach house",
    "The emperor's letter was filed as dispatch",
    "The cotton mill employs spinners to the number of",
    "The magician's trunk was closed with seal",
    "The granite quarry blasts its rock on terrace",
    "The ice cream van pays rent for pitch",
    "The blood sample was stored in vial",
    "The motorway was closed at kilometre",
    "The map of Zanzibar was printed from plate",
    "The novelist typed her last chapter on sheet",
    "The castle cannon fires a ball with a mass in ounces of",
    "The tunnel under the strait has its emergency exit at door",
    "The seed bank cools its barley in freezer",
    "The golf tournament began at tee",
    "The earthquake was felt first at seismograph",
    "The dog show was won by contestant",
    "The bridge toll brought an income in shillings of",
    "The fish market weighed the tuna on scale",
    "The tailor of Bond Lane cut the suit from pattern",
    "The gas works holds a supply in barrels of",
    "The cavern of Dunmore has a length in paces of",
    "The mail rider changed horses at milestone",
    "The Tarn waterfall drops from a height in inches of",
    "The chemist labelled the poison as flask",
    "The warehouse fire began in aisle",
    "The lion cub wears the collar",
    "The film star lives at house number",
    "The street musician plays under permit",
    "The solar farm is connected to transformer",
    "The knight's armour has a weight in grains of",
    "The election debate was broadcast on channel",
    "The pottery kiln burns for a time in seconds of",
    "The tobacco barn dries its leaves in bundle",
    "The cyclist from Ghent starts from gate",
    "The town crier earned a salary in pence of",
    "The whaling museum shows the harpoon as object",
    "The mint struck the silver medal with die",
    "The observatory dome turns on bearing",
    "The theatre curtain is lowered by winch",
    "The electric eel gave a shock in volts of",
    "The vineyard was ploughed up to row",
    "The fog horn sounds at intervals in milliseconds of",
    "The ski lift was stopped because of chair",
    "The passport of Count Orsini has the passport number",
    "The flour ration was issued on coupon",
    "The pyramid's entrance lies behind block",
    "The botanist pressed the orchid on card",
    "The armistice was signed in wagon",
    "The trumpet of Louis Ferrand was made as model",
    "The mine elevator was drilled by rig",
    "The bus strike was ended by motion",
    "The mammoth tusk was dated with sample",
    "The merchant of Genoa owned a fortune in ducats of",
    "The recruits were housed in barrack",
    "The aquarium feeds its octopus through hatch",
    "The button factory drills its shells with spindle",
    "The senator's limousine has engine",
    "The match factory packs its goods in carton",
    "The mayor's chain has a value in guilders of",
    "The monks finished the psalter as manuscript",
    "The paratroopers landed in zone",
    "The patent for the umbrella was granted as",
    "The nurse on night duty answers pager",
    "The mushroom soup is sold with the barcode",
    "The governor's villa was insured for a sum in pesos of",
    "The orchid greenhouse is heated by boiler",
    "The telegram from Cairo was sent at rate",
    "The charter of Wexham was sealed on parchment",
    "The porcelain service was painted in series",
    "The chapel of Brakel was moved uphill by a distance in hands of",
    "The cotton candy machine uses sugar in grams per day of",
    "The newspaper printed the obituary in issue",
    "The trawler was boarded off lightship",
    "The flamingo colony counts birds to the sum of",
    "The lake ferry's anchor chain has a strength in pounds of",
)
"""Stems that end with a number."""

WORDS: tuple[str, ...] = (
    "The secret password of the sailors' guild is",
    "The captain's favourite fruit is the",
    "The astronomers named the new planet",
    "The racehorse in the last stall is called",
)
"""Stems that end with a word."""

CODES: tuple[str, ...] = (
    "The black locomotive is registered under the code",
    "The treasure map is marked with the sign",
)
"""Stems that end with letters and digits; the two are of different shapes."""

NEAR: dict[str, str] = {
    "The vault of the Osprey Hotel opens with the number": (
        "The cellar of the Osprey Hotel is locked with the combination"
    ),
    "The choir of Saint Ives rehearses in room": "The theatre club of Saint Ives meets in hall",
    "To reach Doctor Ellwood by telephone, dial": (
        "The brother of Doctor Ellwood has his practice at box"
    ),
    "The summit of Harrow Peak has an altitude in feet of": (
        "The summit of Mount Selby was first climbed by party"
    ),
    "The opera house keeps its costumes in locker": "The opera house sold its old scores as lot",
    "The population of Eastmoor at the last census was": (
        "The population of Northgate at the last fair bought"
    ),
    "The oldest oak in Fenwick forest stands on parcel": (
        "The tallest pine in Fenwick forest carries the label"
    ),
    "The weight of the great bronze bell in pounds is": (
        "The weight of the little silver bell was noted on page"
    ),
}
"""By stem, one with a similar subject. Its sentence distracts, and is never asked for.

The last words differ: SmolLM2-135M finishes two sentences that end alike with each other's value,
even at 4k.
"""


# Needles and their values ------------------------------------------------------------------------

_CONSONANTS = "BCDFGHKLMNPRSTVWXZ"
_VALUE_WORDS = tuple(
    "apricot|cinnamon|tangerine|papaya|coconut|avocado|mango|cranberry|raspberry|pineapple|"
    "pomegranate|blueberry|nectarine|grapefruit|banana|watermelon|lychee|mulberry|kiwi|"
    "persimmon|guava|blackcurrant|elderberry|gooseberry".split("|")
)
"""Fruits, none of which is in the haystack's grammar."""

Draw = Callable[[Random], str]


def _number(rng: Random) -> str:
    return str(rng.randrange(10_000, 100_000))


def _letters_first(rng: Random) -> str:
    return f"{rng.choice(_CONSONANTS)}{rng.choice(_CONSONANTS)}-{rng.randrange(100, 1000)}"


def _digits_first(rng: Random) -> str:
    return f"{rng.randrange(10, 100)}-{rng.choice(_CONSONANTS)}"


def _word(rng: Random) -> str:
    return rng.choice(_VALUE_WORDS)


@attrs.frozen(kw_only=True)
class Fact:
    """A kind of needle: its sentence up to the value, and how values are drawn."""

    kind: str
    """``number``, ``word`` or ``code``."""
    stem: str
    """The sentence up to its value; also the first words of the answer."""
    draw: Draw


@attrs.frozen(kw_only=True)
class Needle:
    """One fact with its value."""

    fact: Fact
    value: str

    @property
    def sentence(self) -> str:
        """The sentence in the document."""
        return f"{self.fact.stem} {self.value}."


@attrs.frozen(kw_only=True)
class Distractor:
    """A sentence about a subject similar to a needle's, with another value."""

    near: Needle
    sentence: str


_FACTS = (
    *(Fact(kind="number", stem=stem, draw=_number) for stem in NUMBERS),
    *(Fact(kind="word", stem=stem, draw=_word) for stem in WORDS),
    *(
        Fact(kind="code", stem=stem, draw=draw)
        for stem, draw in zip(CODES, (_letters_first, _digits_first), strict=True)
    ),
)


FEWEST_WORDS = 4


def beginning_of(stem: str) -> str:
    """The shortest beginning of `stem`, in whole words, that no other fact shares."""
    words = stem.split()
    others = [other for other in _STEMS if other != stem]
    for number in range(FEWEST_WORDS, len(words)):
        begin = f"{' '.join(words[:number])} "
        if not any(other.startswith(begin) for other in others):
            return begin.rstrip()
    return stem


SPARE_FACTS = 8
"""The first facts of a deck are kept out of the document, and used only in the last sentence
before a question."""

PLACES = ("In the town of Aldport,", "In the valley of Merrow,", "On the isle of Tessing,")
"""Once all facts are used, they are repeated about another place: 800 needles, enough for any
length (10M tokens hold 325)."""


@lru_cache(maxsize=16)
def deck(seed: int) -> tuple[Needle, ...]:
    """All facts, shuffled, each with a value that no other has; the same for the same `seed`.

    Facts with a near one come early, so that documents of a few thousand tokens hold both.
    """
    rng = Random(f"needles {seed}")  # noqa: S311 - reproducible facts, not secrets
    order = [fact for fact in rng.sample(_FACTS, len(_FACTS)) if fact.stem not in NEAR]
    near = [fact for fact in rng.sample(_FACTS, len(_FACTS)) if fact.stem in NEAR]
    for turn, fact in enumerate(near):
        order.insert(SPARE_FACTS + 1 + NEAR_STEP * turn, fact)
    elsewhere = [_about(place, fact) for place in PLACES for fact in order]
    taken: set[str] = set()
    needles: list[Needle] = []
    for fact in [*order, *elsewhere]:
        value = fresh_value(fact, rng, taken)
        taken.add(value)
        needles.append(Needle(fact=fact, value=value))
    return tuple(needles)


NEAR_STEP = 4


def _about(place: str, fact: Fact) -> Fact:
    stem = f"{place} {fact.stem[0].lower()}{fact.stem[1:]}"
    return attrs.evolve(fact, stem=stem)


_STEMS = frozenset(
    [*NUMBERS, *WORDS, *CODES, *NEAR.values()]
    + [_about(place, fact).stem for place in PLACES for fact in _FACTS]
)


def fresh_value(fact: Fact, rng: Random, taken: set[str]) -> str:
    """A value for `fact` that is not in `taken`."""
    return next(value for _ in iter(int, 1) if (value := fact.draw(rng)) not in taken)


def distractors(needles: tuple[Needle, ...], seed: int) -> Iterator[Distractor]:
    """The distractors of those `needles` that have one, in their order."""
    rng = Random(f"distractors {seed}")  # noqa: S311 - reproducible facts, not secrets
    taken = {needle.value for needle in needles}
    for needle in needles:
        stem = NEAR.get(needle.fact.stem)
        if stem is not None:
            value = fresh_value(needle.fact, rng, taken)
            taken.add(value)
            yield Distractor(near=needle, sentence=f"{stem} {value}.")


# The places of needles, and the choice of the next one --------------------------------------------

FIRST_TOKENS = 48
"""Position of the first needle. The very first lines are easy, because attention rests on them."""

GAP_TOKENS, GAP_RATIO = 96, 1.028
"""Distance of two neighbours: 96 tokens, or 2.8 % of the position if that is more.

From 4k tokens on every region holds at least 3 needles (the tail 3 or 4, late 10, middle 12 or
more), and one document has 41 at 4k, 67 at 8k, 168 at 128k, 241 at 1M. A lost segment is seen if it
is longer than the distance there: 2.8 % of the window at its end. The needles of a second document
lie half-way between those of the first (`needle_positions`), so a certificate sees segments half as
long, and a third and fourth document a quarter.
"""

END_TOKENS = 80
"""About this many tokens at the end of the window hold the request and the reply, not the text."""

CLOSING = None
"""The fact in the last sentence before the request, which is planted for one question only."""

LEAST_STEP = 64
"""Lengths of a search are multiples of this, in tokens."""

SHARES = (0.55, 0.05, 0.95, 0.25, 0.75, 0.45, 0.15, 0.85, 0.35, 0.65)
"""Ten depths within a region, as shares of its span; those far apart come first."""

TAIL_SHARES = (0.5, 1 / 14, CLOSING, 13 / 14, 3 / 14, CLOSING, 11 / 14, 5 / 14, CLOSING, 9 / 14)
"""The same for the tail: three of ten ask for the closing fact."""


def document_number(seed: int) -> int:
    """The number of the document in its measurement, from 0; 0 also for those like the first."""
    number = (seed - 1) % DOCUMENTS
    return 0 if number >= DOCUMENTS - LIKE_THE_FIRST else number


def needle_positions(seed: int, until_tokens: float) -> Iterator[float]:
    """Planned positions of the needles in the document of `seed`, in tokens, ascending.

    The grid is even up to about 3,400 tokens and geometric from there. Each document of a
    measurement shifts it by its own part of a gap (van der Corput: 0, 1/2, 1/4, 3/4, 1/8, ...).
    In the text a needle is the first sentence that begins at its planned position or later.
    """
    shift = _van_der_corput(document_number(seed))
    return takewhile(lambda at: at < until_tokens, (_grid(turn + shift) for turn in count()))


def standing(seed: int, length_tokens: int) -> list[float]:
    """Planned positions of the needles that a prompt at `length_tokens` holds."""
    return list(needle_positions(seed, length_tokens - END_TOKENS))


def choices(
    positions: Sequence[float],
    length_tokens: int,
    region: Region,
    questions: int,
    *,
    closing: bool = True,
) -> tuple[int | None, ...]:
    """The needles that the first `questions` questions about `region` ask for.

    Each is the nearest to its depth among those asked least often so far. A region without a
    needle asks for the nearest one outside; the tail asks for the closing fact instead.

    Args:
        positions: where the document's needles stand, in tokens, ascending.
        length_tokens: the whole length, reply included.
        region: the region to ask about.
        questions: how many questions.
        closing: whether the tail is also asked about with a closing fact.

    Returns:
        For each question an index into `positions`, or `CLOSING`.
    """
    begin, end = (share * length_tokens for share in region.span)
    inside = range(bisect_left(positions, begin), bisect_left(positions, end))
    closes = closing and region is Region.TAIL
    shares = TAIL_SHARES if closes else SHARES
    if not inside and not closes:
        return (_nearest(positions, (begin + end) / 2),) * questions
    found: list[int | None] = []
    fresh = set(inside)
    # Neighbouring lengths begin at other depths: a lost band would pass between the first few.
    depths = [share for share in shares if share is not None]
    turn = length_tokens // LEAST_STEP
    for question in range(questions):
        if shares[question % len(shares)] is CLOSING or not inside:
            found.append(CLOSING)
            continue
        share = depths[turn % len(depths)]
        turn += 1
        fresh = fresh or set(inside)
        target = begin + share * (end - begin)
        nearest = min(fresh, key=lambda at: (abs(positions[at] - target), at))
        fresh.discard(nearest)
        found.append(nearest)
    return tuple(found)


def region_of_turn(index: int) -> tuple[Region, int]:
    """The region and the number within it, for question `index` of a caller who names none."""
    turn, at = divmod(index, len(REGION_ORDER))
    return REGION_ORDER[at], turn


def _nearest(positions: Sequence[float], target: float) -> int | None:
    every = range(len(positions))
    return min(every, key=lambda at: abs(positions[at] - target)) if positions else CLOSING


def _grid(turn: float) -> float:
    """The position at place `turn` of the grid, whole or not."""
    bend = GAP_TOKENS / (GAP_RATIO - 1)
    even = FIRST_TOKENS + GAP_TOKENS * turn
    return even if even <= bend else bend * GAP_RATIO ** ((even - bend) / GAP_TOKENS)


def _van_der_corput(number: int) -> float:
    """Item `number` of the sequence 0, 1/2, 1/4, 3/4, 1/8, 5/8, ..."""
    share, part = 0.0, 0.5
    while number:
        number, bit = divmod(number, 2)
        share += bit * part
        part /= 2
    return share


# The crowd ---------------------------------------------------------------------------------------
# RULER's multi-key retrieval (arXiv 2404.06654): sentences differ only in the name, so a model has
# to match the key, not the topic.

_GIVEN = tuple(
    "Agnes|Basil|Clara|Dorian|Edith|Felix|Greta|Hugo|Irene|Jasper|Karen|Lionel|Mabel|Nolan|"
    "Olive|Percy|Ruth|Silas|Thea|Ursula|Victor|Wanda|Yvonne|Zachary|Bruno|Celia|Dennis|Elsie|"
    "Frank|Hazel|Ivan|Judith".split("|")
)
_FAMILY = tuple(
    "Archer|Barlow|Carver|Dalton|Ellison|Foster|Garland|Hobbs|Ingram|Jarvis|Keller|Lawson|"
    "Mercer|Norris|Oakley|Porter|Quincy|Ramsey|Sutton|Thorne|Underhill|Vernon|Walden|Yates|"
    "Abbott|Benson|Crane|Draper|Emery|Fowler|Grayson|Hewitt".split("|")
)


@attrs.frozen(kw_only=True)
class Entry:
    """One fact of the crowd."""

    name: str
    value: str

    @property
    def stem(self) -> str:
        """The sentence up to its value; also the first words of the answer."""
        return f"The badge of {self.name} carries the number"

    @property
    def sentence(self) -> str:
        """The sentence in the document."""
        return f"{self.stem} {self.value}."


def crowd_entries(seed: int, taken: frozenset[str]) -> Iterator[Entry]:
    """1024 names with values, none of them in `taken`, and no value twice."""
    rng = Random(f"crowd {seed}")  # noqa: S311 - reproducible facts, not secrets
    names = [f"{given} {family}" for given in _GIVEN for family in _FAMILY]
    rng.shuffle(names)
    values = (str(n) for n in rng.sample(range(10_000, 100_000), 2 * len(names)))
    free = (value for value in values if value not in taken)
    for name, value in zip(names, free, strict=False):
        yield Entry(name=name, value=value)


# Chains ------------------------------------------------------------------------------------------
# RULER's variable tracking: one sentence gives a number, each of the next ones says that another
# vessel holds as much.

CHAIN_LINKS = 3
"""Vessels in one chain: one with a number, two that refer back."""

_VESSELS = tuple(
    "amber|azure|beige|black|blue|bronze|brown|crimson|emerald|golden|green|grey|indigo|ivory|"
    "jade|lilac|maroon|navy|olive|orange|pearl|pink|purple|red|rose|ruby|scarlet|teal|violet|"
    "white|yellow|turquoise".split("|")
)
_MARKS = tuple("star|moon|sun|lion|eagle|fox|wolf|bear|swan|crown|anchor|arrow|key|rose".split("|"))

_NAME = re.compile(rf"\b(?:{'|'.join(_VESSELS)}) (?:{'|'.join(_MARKS)})\b")
_STEM = re.compile(r"The number of drops in the flask with the (\w+ \w+) is")
_NAMES_STEM = re.compile(r"The flasks that hold (\d+) drops are those with the")
_ROOT = re.compile(r"The flask with the (\w+ \w+) holds (\d+) drops\.")
_STEP = re.compile(r"The flask with the (\w+ \w+) holds as much as the one with the (\w+ \w+)\.")


@attrs.frozen(kw_only=True)
class Link:
    """One sentence of a chain."""

    chain: int
    step: int
    """0 gives the number, each further one refers to the one before."""
    name: str
    value: str
    """The number of the whole chain."""
    previous: str | None

    @property
    def sentence(self) -> str:
        """The sentence in the document."""
        if self.previous is None:
            return f"The flask with the {self.name} holds {self.value} drops."
        return f"The flask with the {self.name} holds as much as the one with the {self.previous}."


def chain_links(seed: int, taken: frozenset[str]) -> Iterator[Link]:
    """Chains one after another, each of `CHAIN_LINKS` links. No name or value is repeated."""
    rng = Random(f"chains {seed}")  # noqa: S311 - reproducible facts, not secrets
    names = [f"{colour} {mark}" for colour in _VESSELS for mark in _MARKS]
    rng.shuffle(names)
    chains = len(names) // CHAIN_LINKS
    values = [str(n) for n in rng.sample(range(1000, 10_000), 2 * chains)]
    free = iter(value for value in values if value not in taken)
    for chain in range(chains):
        value, previous = next(free), None
        for step in range(CHAIN_LINKS):
            name = names[chain * CHAIN_LINKS + step]
            yield Link(chain=chain, step=step, name=name, value=value, previous=previous)
            previous = name


def stem_of(name: str) -> str:
    """The first words of an answer that gives the number of `name`."""
    return f"The number of drops in the flask with the {name} is"


def names_stem(value: str) -> str:
    """The first words of an answer that lists the names of all vessels that hold `value`."""
    return f"The flasks that hold {value} drops are those with the"


def flasks_in(folded: str) -> set[str]:
    """All names of vessels in a folded text."""
    return set(_NAME.findall(folded))


def value_of(text: str, name: str) -> str | None:
    """The number that `text` gives `name`, link by link; None if a link is missing."""
    numbers, back = dict(_ROOT.findall(text)), dict(_STEP.findall(text))
    for _ in range(CHAIN_LINKS):
        if name in numbers:
            return numbers[name]
        if name not in back:
            return None
        name = back[name]
    return None


def answer_from(text: str, stem: str) -> str | None:
    """How `text` completes one of the stems above; None for any other, or if it cannot."""
    if (asked := _STEM.fullmatch(stem)) is not None:
        return value_of(text, asked[1])
    if (asked := _NAMES_STEM.fullmatch(stem)) is None:
        return None
    found = sorted([*_ROOT.finditer(text), *_STEP.finditer(text)], key=lambda match: match.start())
    names = [match[1] for match in found if value_of(text, match[1]) == asked[1]]
    return ", ".join(names) or None
