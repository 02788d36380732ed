"""Judges a reply: does it hold the value, and if not, what kind of text is it?

`judge_reply` looks for a value, `is_refusal` for words that decline; `assess` and `is_broken`
distinguish language from loops, word salad and symbols. They count words and characters, and ask no
second model.
"""

from __future__ import annotations

import enum
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby, pairwise

import attrs

from lmstrix.models import Judgement, Question, Reply

_SEPARATED_DIGITS = re.compile(
    r"(?<=\d)[\s,.'\u2019\u066c_](?=\d{3}(?!\d))"  # groups of three
    r"|(?<!\d\d)(?<=\d)[\s\-](?=\d(?!\d))"  # digit by digit
)
_CODE = re.compile(r"(?<![^\W_])(?=\w*[a-z])(?=\w*\d)[a-z\d]{3,8}(?![^\W_])")
_AROUND_HYPHEN = re.compile(r"(?<=\w)\s*-\s*(?=\w)")
_LISTED = re.compile(r"[,;/|\n]|\band\b|\bor\b")

MOST_CANDIDATES = 2
"""A reply that offers more values than this is a list, not an answer."""

ECHO_CHARACTERS = 48
"""A value after a verbatim piece of the prompt that is this long was found by repeating the text,
not by recalling. Stems are shorter without the part that was shown as the answer's beginning."""

ECHO_READ_CHARACTERS = 1000
"""How far before a value the reply is searched, to bound the time."""


def judge_reply(question: Question, reply: Reply) -> Judgement:
    """Pass, or the kind of failure.

    Digits may be grouped and codes may lose their hyphen; case and look-alike letters do not
    matter. A reply that ended inside its thought, was cancelled or declines is not an answer, so
    it is inconclusive. One that lists values, or repeats the prompt up to the value, is wrong.
    """
    wanted = fold(question.expected)

    def passes(text: str) -> bool:
        return _has_value(question.kind, wanted, text) and not _is_echo(question, text)

    return judge_by(reply, passes)


def judge_by(reply: Reply, passes: Callable[[str], bool]) -> Judgement:
    """Judge by any other rule; `passes` gets the folded text of the reply."""
    said = reply.answer
    if said is None:
        return Judgement.INCONCLUSIVE
    text = fold(said)
    if not words_of(text):
        return Judgement.EMPTY if not text.strip() else Judgement.GIBBERISH
    if passes(text):
        return Judgement.PASS
    if is_broken(said):
        return Judgement.GIBBERISH
    return Judgement.INCONCLUSIVE if is_refusal(said) else Judgement.WRONG


def _has_value(kind: str, wanted: str, text: str) -> bool:
    if kind == "number":
        found = re.findall(r"\d+", _SEPARATED_DIGITS.sub("", text))
        return wanted in found and len(set(found)) <= MOST_CANDIDATES
    if kind == "code":
        joined = _AROUND_HYPHEN.sub("", text)
        if wanted.replace("-", "") not in words_of(joined):
            return False
        return len(set(_CODE.findall(joined))) <= MOST_CANDIDATES
    return wanted in words_of(text) and not _lists(text)


def _lists(text: str) -> bool:
    """Whether a text offers words one after another: each a word or two between separators."""
    offered = {part.strip(" .") for part in _LISTED.split(text) if 0 < len(part.split()) <= 2}
    return len(offered - {""}) > MOST_CANDIDATES


def _is_echo(question: Question, text: str) -> bool:
    """Whether a long piece of the prompt is repeated before the value comes."""
    before = text.partition(fold(question.expected).split("-")[0])[0]
    before = " ".join(before.replace(fold(question.prompt.answer_prefix), " ").split())
    before = before[-ECHO_READ_CHARACTERS:]
    if len(before) < ECHO_CHARACTERS:
        return False
    prompt = " ".join(fold(question.prompt.user).split())
    pieces = range(len(before) - ECHO_CHARACTERS + 1)
    return any(before[at : at + ECHO_CHARACTERS] in prompt for at in pieces)


# One form for characters that look alike ---------------------------------------------------------

HYPHENS = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\ufe58\ufe63\uff0d"
"""Every character that is written for a hyphen."""

_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u034f\u180e\u200b\u200c\u200d\u2060\ufeff"))
_ALIKE = str.maketrans(
    # Cyrillic, then Greek capitals and small letters, that look like Latin ones
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0423\u0406\u0408\u0405"
    "\u0430\u0435\u043e\u0440\u0441\u0445\u0443\u0456\u0458\u0455"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"
    "\u03b1\u03bf\u03bd",
    "ABEKMHOPCTXYIJSaeopcxyijsABEZHIKMNOPTYXaov",
)
_WORDS = re.compile(r"[^\W_]+")


def fold(text: str) -> str:
    """`text` in one form for everything that looks alike: compatibility forms (NFKC), invisible
    characters, digits of other scripts, Cyrillic and Greek letters that look Latin, hyphens, case.
    """
    plain = unicodedata.normalize("NFKC", text).translate(_INVISIBLE)
    plain = "".join(_as_ascii_digit(c) for c in plain).translate(_ALIKE)
    return "".join("-" if c in HYPHENS else c for c in plain).casefold()


def words_of(folded: str) -> list[str]:
    """Runs of letters and digits."""
    return _WORDS.findall(folded)


def _as_ascii_digit(character: str) -> str:
    if character.isascii():
        return character
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)


# Refusals ----------------------------------------------------------------------------------------
# A refusal says nothing about the model's memory. "I cannot find that in the text" is not a refusal
# but a wrong answer.

_DECLINED = (
    "(?:help|assist|comply|fulfil+|do that|do this|provide|share|disclose|discuss|"
    "answer (?:that|this)|continue with|engage|participate|respond)"
)
_PHRASES = (
    rf"\bi (?:cannot|can't|can not|won't|will not|must decline to) {_DECLINED}",
    rf"\bi(?:'m| am) (?:not able|unable) to {_DECLINED}",
    r"\bi'?m sorry,? (?:but|i can)",
    r"\bi am sorry,? (?:but|i can)",
    r"\bsorry,? (?:but )?i (?:can't|cannot)",
    r"\bi apologi[sz]e,? but",
    r"\bas an? (?:ai|artificial intelligence|language model)\b",
    r"\bich kann (?:dir|ihnen|dabei|damit|da) .{0,20}nicht",
    r"\bes tut mir leid",
    r"\btut mir leid,? (?:aber|ich)",
    r"\bje (?:ne peux pas|suis desole|suis désolé)",
    r"\bdésolée?,? (?:mais|je)",
    r"\blo siento,? (?:pero|no)",
    r"\bno puedo (?:ayudar|hacer|proporcionar|compartir)",
    r"\bmi dispiace,? (?:ma|non)",
    r"\bnon posso (?:aiutar|fornir)",
    r"\bdesculpe,? (?:mas|não)|\bnão posso (?:ajudar|fornecer)",
)
_REFUSES = re.compile("|".join(_PHRASES))
_REFUSES_ELSEWHERE = re.compile(
    r"я не могу (?:помочь|ответить|предоставить)|извините,? (?:но|я)|к сожалению,? я не могу|"
    r"抱歉|对不起|我(?:无法|不能)(?:提供|帮助|回答|协助)|申し訳(?:ありません|ございません)|"
    r"お(?:答え|手伝い)(?:する(?:こと)?は?)?できません|죄송합니다"
)
_MISSES = re.compile(
    r"\b(?:text|passage|document|story|mention\w*|find|found|contain|remember|recall|know|"
    r"information|specif\w*|given|provided|stated|listed|available|see|appears?|"
    r"text(?:e|o)|erwähnt|finde|weiss|angegeben|genannt|trouve|mentionné\w*|indiqué\w*|"
    r"encuentro|menciona\w*|trovo|menzionat\w*)\b|"
    r"文中|文本|本文|文章|找到|提到|見つか|찾을|텍스트|текст|упомян"
)


def is_refusal(text: str) -> bool:
    """Whether `text` declines, in one of about ten languages, for another reason than that the
    answer is not there.
    """
    plain = text.casefold().replace("\u2019", "'")
    if _MISSES.search(plain):
        return False
    found = (_REFUSES.search(plain), _REFUSES.search(fold(plain)), _REFUSES_ELSEWHERE.search(plain))
    return any(found)


# Is it language? ---------------------------------------------------------------------------------
# `assess` is for free writing of 64 tokens or more, `is_broken` for short answers. Each threshold
# lies between the worst good text and most of the bad ones of ``benchmarks/coherence.py``, nearer
# to the bad ones: a false alarm costs a model its context. The two numbers in a comment are
# (worst good text; median of the bad kind).


class Kind(enum.StrEnum):
    """Kinds of text. `TOO_SHORT` and `LIKE_OWN` say nothing about the model."""

    FINE = "fine"
    LOOP = "loop"
    """The same words again and again."""
    WORD_SALAD = "word_salad"
    """Words in no order, or words of no known language."""
    SYMBOLS = "symbols"
    """Marks instead of words, several scripts mixed up, or undecodable characters."""
    EMPTY = "empty"
    INSTANT_STOP = "instant_stop"
    """The model ended its reply after a few words."""
    TOO_SHORT = "too_short"
    """Too little text for any statistic."""
    LIKE_OWN = "like_own"
    """Broken, in the same way as the model's own writing at a short length."""


READ_CHARACTERS = 4000
"""Only the end of a longer text is read: failures grow towards the end, and time is bounded."""
LEAST_WORDS, LEAST_CHARACTERS = 24, 100
"""A text with fewer of both is too short to tell (measured on English and on real failures)."""
INSTANT_WORDS, INSTANT_SHARE = 6, 1 / 8
"""A reply stopped at once if it ended with at most this many words, or this share of the model's
own. If its own writing is not much longer, a third of that is the limit."""


def assess(text: str, *, own: str | None = None, ended: bool = False) -> Kind:
    """The kind of `text`.

    Args:
        text: free writing of 64 tokens or more.
        own: the same model's writing at a short length. A text that is broken in the same way is
            `Kind.LIKE_OWN`.
        ended: whether the model ended the reply itself, rather than a limit.
    """
    counts, yardstick = _count(text), _count(own) if own else None
    if counts.characters == 0:
        return Kind.EMPTY
    short = counts.words < LEAST_WORDS and counts.characters < LEAST_CHARACTERS
    if short and not _is_symbols(counts) and not (counts.words >= 8 and _is_loop(counts)):
        least = float(INSTANT_WORDS)
        if yardstick:
            least = max(yardstick.words * INSTANT_SHARE, min(least, yardstick.words / 3))
        return Kind.INSTANT_STOP if ended and counts.words <= least else Kind.TOO_SHORT
    kind = _kind(counts, yardstick)
    if yardstick and kind is not Kind.FINE and _kind(yardstick, None) is kind:
        return Kind.LIKE_OWN
    return kind


def is_broken(text: str) -> bool:
    """Whether `text`, an answer of a few tokens that is not the right one, is not language.

    Sixteen tokens are too few for statistics, so only certain signs count: symbols, tight loops,
    and forbidden neighbours in a text without punctuation (a sentence of prose mostly has some).
    Other broken text counts as a wrong answer; only the reported cause depends on it.
    """
    c = _count(text)
    if c.words == 0 or c.garbled > 0.1:
        return c.characters > 0
    if c.letters < 0.5:
        return True
    if (c.words >= 4 and c.different_words == 1) or (
        c.words >= 6 and c.cover >= 0.85 and c.rounds >= 3
    ):
        return True
    if c.words >= 12 and c.cover >= 0.95 and c.rounds >= 2:
        return True
    unmarked = c.words >= 10 and not re.search(r"[.,;:!?]", text)
    return c.clashes > 0 if unmarked else c.words >= 8 and c.clashes >= max(2, c.words // 16)


# Verdicts ---------------------------------------------------------------------------------------

CODE_MARKS = 0.6
"""Marks per word of code and JSON (0.67 and more; prose 0.42), which repeat more of themselves."""
PROSE_MARKS = 0.3
"""Marks per word up to which a text may be prose."""


def _kind(c: _Counts, own: _Counts | None) -> Kind:
    if _is_symbols(c):
        return Kind.SYMBOLS
    if _is_loop(c):
        return Kind.LOOP
    return Kind.WORD_SALAD if _is_salad(c, own) else Kind.FINE


def _is_symbols(c: _Counts) -> bool:
    if c.characters < 8:
        return False
    if c.garbled > 0.02:  # (0; 0.5)
        return True
    # JSON: 0.52 with 8 marks, code: 0.71 with 21; marks: 0, marks and letters: 0.43 with 31
    if c.letters < 0.2 or (c.letters < 0.55 and c.different_marks >= 16):
        return True
    if c.plain_letters < 0.2 and c.characters >= 40:  # (JSON 0.4; 0.1)
        return True
    mixed = sum(share >= 0.05 for _, share in c.scripts) >= 3
    return mixed and c.switches >= 0.08  # (0; 0.2)


def _is_loop(c: _Counts) -> bool:
    # A sentence that comes three times in between is bad style, and no loop: 0.46.
    least = 0.4 if c.at_end or c.rounds >= 4 else 0.5
    if c.cover >= 0.6 or (c.cover >= least and c.rounds >= 2.2):  # (0.13, 3; 0.88, 15)
        return True
    # Compression (2.8; 4.3). The 2.4 that Whisper uses would condemn JSON.
    return c.compression >= (5.0 if c.marks >= CODE_MARKS else 3.1)


def _is_salad(c: _Counts, own: _Counts | None) -> bool:
    unmarked = c.marks < 0.02  # (0.06; 0)
    least, rate = (2, 0.02) if unmarked else (5, 0.12) if c.marks >= CODE_MARKS else (3, 0.04)
    if c.clashes >= least and c.clashes > rate * c.words:  # (2, 0.04; 9, 0.13)
        return True
    if c.words < LEAST_WORDS or c.marks >= PROSE_MARKS:
        return False
    if unmarked and c.script == "Latin" and c.common < 0.3:  # (0.38; 0.17)
        return True
    if own is None or own.common < 0.35 or c.script != own.script:
        return False
    return c.language in {"", own.language} and c.common < 0.45 * own.common


# Counts -----------------------------------------------------------------------------------------
_MOJIBAKE = re.compile(
    "[\u00c2\u00c3][\u0080-\u00bf\u20ac\u2122\u0152\u0153\u0178\u0161\u017e\u2013-\u2022]"
    "|[\u00e0-\u00ef][\u0080-\u00bf\u20ac\u2122\u0152\u0153\u0178\u0161\u017e\u2013-\u203a]{2}"
    "|[\ufffd\u0080-\u009f\ue000-\uf8ff]"
)
"""UTF-8 read as Latin-1 or Windows-1252, replacement characters, controls, private use."""
_CJ = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH", "IDEOGRAPHIC"})
_NO_SCRIPT = frozenset({"COMBINING", "MODIFIER", "FEMININE", "MASCULINE", "MICRO", "FULLWIDTH"})
LONGEST_WORD = 32
"""A longer run of letters is taken apart into its characters, so that loops in it show."""


@attrs.frozen(kw_only=True)
class _Counts:
    """Counts of a text. Shares lie between 0 and 1."""

    characters: int = 0  # without white space
    words: int = 0  # each character of Chinese and Japanese is one
    different_words: int = 0
    marks: float = 0.0  # marks and line ends per word
    different_marks: int = 0
    letters: float = 0.0  # share of letters and digits, with a run of one mark counted once
    plain_letters: float = 0.0  # the same with every mark counted
    garbled: float = 0.0  # share of characters that `_MOJIBAKE` finds
    scripts: Sequence[tuple[str, float]] = ()  # with their shares of the letters, largest first
    switches: float = 0.0  # changes of script per letter
    cover: float = 0.0  # share of the words in the longest run that repeats itself exactly
    rounds: float = 0.0  # how often that run repeats itself
    at_end: bool = False  # whether the text ends with it
    compression: float = 0.0  # bytes over bytes compressed by zlib
    language: str = ""  # the one with the most common words; empty if there are few of any
    common: float = 0.0  # share of that language's common words
    clashes: int = 0  # neighbours that the language forbids

    @property
    def script(self) -> str:
        """The commonest script; empty if there are no letters."""
        return self.scripts[0][0] if self.scripts else ""


def _count(text: str) -> _Counts:
    text = "".join(c for c in text[-READ_CHARACTERS:] if unicodedata.category(c) != "Cf")
    text = text.strip().rstrip("\ufffd")  # the limit may have cut a character in two
    characters = [c for c in text if not c.isspace()]
    if not characters:
        return _Counts()
    words = _words(text)
    marks = [c for c in characters if not _is_letter(c)]
    runs = sum(1 for c, _ in groupby(characters) if not _is_letter(c))
    scripts = [s for c in characters if (s := _script(c))]
    data = " ".join(text.split()).encode("utf-8", "replace")
    language, common = _language(words)
    unnumbered = re.sub(r"(?m)^\s*\d+[.)]\s", "", text)  # "1. Yes. 2. Yes. 3. Yes."
    cover, rounds, at_end = max(_loop(_words(unnumbered)), _loop(unnumbered.split()))
    letters = len(characters) - len(marks)
    return _Counts(
        characters=len(characters),
        words=len(words),
        different_words=len(set(words)),
        marks=(len(marks) + text.count("\n")) / max(1, len(words)),
        different_marks=len(set(marks)),
        letters=letters / (letters + runs),
        plain_letters=letters / len(characters),
        garbled=sum(len(m) for m in _MOJIBAKE.findall(text)) / len(text),
        scripts=[(s, n / len(scripts)) for s, n in Counter(scripts).most_common()],
        switches=sum(a != b for a, b in pairwise(scripts)) / max(1, len(scripts)),
        cover=cover,
        rounds=rounds,
        at_end=at_end,
        compression=len(data) / len(zlib.compress(data, 9)),
        language=language,
        common=common,
        clashes=_clashes(text, language),
    )


@lru_cache(maxsize=4096)
def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    """``Latin``, ``Cyrillic``...; Han and kana are one script; empty for a mark of no script."""
    if unicodedata.category(character)[0] not in "LM":
        return ""
    name = unicodedata.name(character, "").split(" ")[0]
    return "CJ" if name in _CJ else "" if name in _NO_SCRIPT else name.title()


def _words(text: str) -> list[str]:
    spaced = (f" {c} " if _script(c) == "CJ" else c if _is_letter(c) else " " for c in text)
    words: list[str] = []
    for word in "".join(spaced).casefold().split():
        words += [word] if len(word) <= LONGEST_WORD else word
    return words


def _loop(words: Sequence[str]) -> tuple[float, float, bool]:
    """Cover and rounds of the longest run that repeats itself with a period of up to 64 words, and
    whether the text ends with it: its last word may be cut off.
    """
    best, best_period, end = 0, 1, 0
    for period in range(1, min(64, len(words) // 2) + 1):
        run = 0
        for i in range(period, len(words)):
            run = run + 1 if words[i] == words[i - period] else 0
            if run >= period and run + period > best:
                best, best_period, end = run + period, period, i
    return best / max(1, len(words)), best / best_period, end >= len(words) - 2


def _language(words: Sequence[str]) -> tuple[str, float]:
    shares = {name: sum(w in common for w in words) for name, common in _COMMON.items()}
    name = max(shares, key=lambda n: shares[n])
    share = shares[name] / max(1, len(words))
    return name if share >= 0.12 else "", share


def _clashes(text: str, language: str) -> int:
    """How many neighbours, with nothing but a blank between them, the language forbids."""
    forbidden, common = _FORBIDDEN.get(language, {}), _COMMON.get(language, frozenset())
    total = 0
    for first, second in pairwise(text.replace("\n", " . ").split()):
        small = second.casefold()
        if small.strip(".,") in forbidden.get(first.casefold(), ()):
            total += 1
        elif small in common and len(second) > 1:  # a capital, or none, in the wrong place
            if second.istitle():
                total += first.isalpha() and first.islower() and small not in _CAPITALS
            else:
                total += first[:-1].isalpha() and len(first) > 4 and first[-1] in ".!?"
    return total


# Languages --------------------------------------------------------------------------------------
# Written by hand: articles, prepositions, pronouns, conjunctions and auxiliaries are 40 to 60 % of
# the words of a text. Good text has few forbidden neighbours ("the of", "der und"); of words in no
# order one pair in ten is forbidden.

_EN_DET = "the a an my your our their its every"
_EN_PREP, _EN_WE, _EN_AND = "of from with into at", "he she they we i", "and or but"
_EN_WAS, _EN_HAD = "is are was were", "has had have does did would could should"
_DE_DER, _DE_ICH = "der die das den dem des ein eine einen einem einer", "ich er wir"
_DE_IM, _DE_UND = "im am zum zur vom beim", "und oder"
_DE_VON = "von für durch ohne gegen zwischen"
_DE_IST = "ist war waren wird wurde hat hatte sind"
_FR_DU = "un une des du au aux cet ces cette mon ma mes sa ses notre"
_FR_DE, _FR_IL, _FR_ET = "de à dans par pour", "je tu il ils elle on", "et ou mais car"
_FR_EST = "est sont était étaient ont avait"

_PAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    "en": (
        (_EN_DET, f"{_EN_DET} {_EN_PREP} {_EN_WE} {_EN_WAS} {_EN_AND} {_EN_HAD} to in on by for"),
        (_EN_DET, "because if when him them it"),
        (f"{_EN_PREP} to", f"{_EN_PREP} {_EN_WE} {_EN_WAS} {_EN_AND} had has did because by"),
        (_EN_WE, f"{_EN_DET} {_EN_WE} of from into it him them by his"),
        (f"{_EN_WAS} be been", f"{_EN_WAS} did had has would could"),
        (f"{_EN_HAD} {_EN_AND}", "of"),
        (_EN_AND, _EN_AND),
        ("in on by for", f"{_EN_WAS} she they we of or had did"),
    ),
    "de": (
        (f"ein eine einen einem einer {_DE_IM}", f"{_DE_DER} {_DE_UND} {_DE_ICH} {_DE_IST}"),
        (f"ein eine einen einem einer {_DE_IM}", f"{_DE_IM} es weil wenn dass aber wie man nicht"),
        ("der den dem des die das", f"{_DE_UND} dass weil wenn aber zum"),
        ("der den dem des", f"ist wird {_DE_IM} des"),
        (_DE_VON, f"{_DE_ICH} {_DE_UND} {_DE_IST} es man wenn dass kann mit nicht aber"),
        ("auf in mit bei", f"{_DE_ICH} {_DE_UND} es man wenn aber ist wird von mit"),
        (_DE_UND, f"{_DE_UND} aber"),
        (_DE_ICH, f"{_DE_ICH} der des von"),
        ("ist wurde sind", "ist war waren wurde hat hatte sind"),
        ("dass wenn weil ob", f"{_DE_UND} {_DE_IST} dass weil aber nicht"),
        ("sehr zu", f"{_DE_UND} {_DE_ICH} {_DE_IST} es man aber"),
    ),
    "fr": (
        (_FR_DU, f"{_FR_DU} {_FR_DE} {_FR_IL} {_FR_ET} {_FR_EST} le la les que qui se"),
        ("le la les", f"{_FR_DU} {_FR_DE} et ou mais le la les je il est qui"),
        (_FR_DE, f"{_FR_ET} {_FR_EST} du au aux je il ils ne dans"),
        ("je il ils", f"{_FR_DU} {_FR_DE} {_FR_ET}"),
        (_FR_ET, f"{_FR_ET} est"),
    ),
}
"""By language: each of the first words forbids each of the second ones after it."""

_MORE_COMMON = {
    "en": "this that these those his her some any each all no not as than like about after before"
    " over up out there here you it him them me us be been will can may must do one two who"
    " which what when where how if so then more most very also just only even still because"
    " while to in on by for",
    "de": "zu in an auf mit bei nach aus über unter vor um seit bis aber denn dass weil wenn als"
    " ob wie so sie es du ihr mich mir sich sein seine seinen ihre ihren kein keine diese"
    " dieser dieses man nicht nur noch schon auch sehr hier da dort dann nun jetzt immer"
    " wieder was wer wo haben kann konnte muss werden worden mehr viele alle",
    "fr": "le la les l d j s n c qu que qui dont où ne pas plus se son leur leurs lui y en si"
    " quand comme sur avec sans sous chez vers entre nous vous elles a fut très bien aussi"
    " encore tout tous même après avant depuis être avoir fait faire peut deux cela ce",
    "es": "el la los las un una unos de del a al en por para con sin sobre entre hasta desde y o"
    " pero que si no se lo le me su sus mi como más muy ya también cuando donde porque es"
    " son era fue ser está ha han había este esta",
    "it": "il lo la i gli le un uno una di del della dei delle a al alla in nel nella con su sul"
    " per tra da dal dalla e o ma che chi se non si ci mi come più molto anche quando dove"
    " perché è sono era ha hanno questo questa",
    "pt": "o a os as um uma de do da dos das em no na por pelo pela para com sem sobre entre até"
    " e ou mas que se não como mais muito já também quando onde porque é são era foi ser"
    " está tem este esta ao à",
    "nl": "de het een van in op aan met voor door naar bij uit over tot en of maar want dat die"
    " dit als dan niet geen ook nog er hij zij ze wij we ik je zijn was is waren wordt werd"
    " heeft had kan zou om te zo wel veel meer",
    "zh": " ".join(
        "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得着下自"
        "之年过发后作里用道行所然家种事成方多经么去把被让都很最没"
    ),
    "ja": " ".join("のにはをたがでてとしれさあいるもすなこよまらりくうかつけきっだんそ"),
}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_COMMON = {
    name: _set(" ".join([more, *(word for pair in _PAIRS.get(name, ()) for word in pair)]))
    for name, more in _MORE_COMMON.items()
}
_FORBIDDEN = {
    name: {
        first: frozenset(w for a, b in pairs if first in a.split() for w in b.split())
        for first in _set(" ".join(a for a, _ in pairs))
    }
    for name, pairs in _PAIRS.items()
}
_CAPITALS = _set("i you your this that all any us no not one may will sie ihr ihre ihren the")
"""Common words that may have a capital in mid-sentence."""
