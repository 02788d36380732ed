"""Kinds told apart, texts that are no text, and the model's own writing as a yardstick."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmstrix.models import Judgement
from lmstrix.validators.coherence.kinds import Kind
from lmstrix.validators.coherence.short import looks_broken
from lmstrix.validators.coherence.signals import MOST_CHARACTERS, signals_of
from lmstrix.validators.coherence.text import assess

PROSE = (
    "People like to work in a garden for many reasons. One of them is that it gives a sense of "
    "purpose. Working outdoors allows them to connect with nature, and to grow something that "
    "can be eaten. In the evening they are tired, but they sleep well, and when the first beans "
    "are ripe they have forgotten how much their backs hurt in April."
)
SALAD = (
    "the of has garden many a by them his was outdoors for to are grow The purpose when of and "
    "in is a the connect nature had from with eaten tired an of they sleep into at first the their"
)
LOOP = "I was delighted to see the beautiful landscape. " * 9
SPANISH = (
    "A la gente le gusta trabajar en el jardín por muchas razones. Una de ellas es que da una "
    "sensación de calma. Por la tarde están cansados, pero duermen bien, y cuando maduran los "
    "primeros tomates ya han olvidado cuánto les dolía la espalda en abril."
)
RUSSIAN = (
    "Старый вокзал давно стоит пустой. Летом дети играют на рельсах, а зимой снега много, "  # noqa: RUF001 - Russian
    "что скамеек совсем не видно. Теперь город хочет продать это здание, и одна семья решила "
    "открыть там кафе с библиотекой."  # noqa: RUF001 - Russian
)
HINDI = (
    "पुराना स्टेशन कई साल से खाली है। गर्मियों में बच्चे पटरियों पर खेलते हैं और सर्दियों में इतनी बर्फ़ होती है कि "
    "बेंच भी दिखाई नहीं देती। अब शहर इस इमारत को बेचना चाहता है।"
)
KOREAN = (
    "오래된 역은 십 년 전부터 비어 있습니다. 여름에는 아이들이 선로에서 놀고, 겨울에는 눈이 "
    "많이 쌓여서 의자도 보이지 않습니다. 이제 마을에서는 그 건물을 팔려고 합니다."
)


@pytest.mark.parametrize("text", [PROSE, SPANISH, RUSSIAN, HINDI, KOREAN])
def test_language_is_fine(text: str) -> None:
    assert assess(text).kind is Kind.FINE
    assert assess(text, own=text).kind is Kind.FINE
    assert assess(text, own=PROSE).judgement in {Judgement.PASS, Judgement.GIBBERISH}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (LOOP, Kind.LOOP),
        (SALAD, Kind.WORD_SALAD),
        ("the " * 90, Kind.LOOP),
        ("&% $# @! ~~ ^& *( )_ += |\\ <> ?/ " * 4, Kind.SYMBOLS),
        (PROSE.replace("e", "é").encode().decode("latin-1"), Kind.SYMBOLS),
        ("\ufffd" * 50 + "x", Kind.SYMBOLS),
    ],
)
def test_broken_writing(text: str, kind: Kind) -> None:
    found = assess(text)
    assert found.kind is kind
    assert found.is_broken
    assert found.why
    assert found.judgement is Judgement.GIBBERISH


@pytest.mark.parametrize("text", ["", " ", "\n\n\n", "\u200b\u200b", "\u3000", "\ufeff"])
def test_nothing_is_empty(text: str) -> None:
    for ended in (True, False):
        assert assess(text, ended=ended).kind is Kind.EMPTY
    assert assess(text).judgement is Judgement.EMPTY


def test_an_instant_stop_is_one_where_the_model_writes_more_at_short_length() -> None:
    assert assess(" The.", ended=True).kind is Kind.INSTANT_STOP
    assert assess(" The.", own=PROSE, ended=True).kind is Kind.INSTANT_STOP
    assert assess(" to work in the garden.", ended=True).kind is Kind.INSTANT_STOP
    assert assess(" to work in the garden.", own=PROSE, ended=True).kind is Kind.INSTANT_STOP
    assert assess(" The.", own="A boat.", ended=True).kind is Kind.TOO_SHORT
    assert assess(" The.", ended=False).kind is Kind.TOO_SHORT


def test_a_few_words_are_no_verdict() -> None:
    found = assess("It was a small boat with a red sail.", ended=True)
    assert found.kind is Kind.TOO_SHORT
    assert found.judgement is Judgement.INCONCLUSIVE
    assert not found.is_broken


def test_what_the_model_does_at_short_length_too_says_nothing() -> None:
    found = assess(LOOP, own="They make bread by making it. " * 12)
    assert found.kind is Kind.LIKE_OWN
    assert found.judgement is Judgement.INCONCLUSIVE
    assert assess(LOOP, own=PROSE).kind is Kind.LOOP
    assert assess(SALAD, own="They make bread by making it. " * 12).kind is Kind.WORD_SALAD


def test_own_writing_tells_words_of_no_language() -> None:
    invented = "Tode rin, gare sol mepha. Trin ode vasp, mun tel. " + " ".join(
        f"{a}{b}{'.' if b == 'ne' else ''}"
        for a in ("ter", "vol", "gam", "pir")
        for b in ("lo", "mis", "ne", "da", "rk")
    )
    assert assess(invented, own=PROSE).kind is Kind.WORD_SALAD


def test_a_cut_character_at_the_end_is_no_garbage() -> None:
    assert assess(PROSE + " \ufffd").kind is Kind.FINE


def test_only_the_end_of_a_long_text_is_read() -> None:
    long = signals_of(PROSE * 20_000)
    assert long.characters <= MOST_CHARACTERS
    assert assess(PROSE + LOOP * 1000).kind is Kind.LOOP
    assert assess("x" * 2_000_000).kind is Kind.LOOP


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (" the the the the the the", Kind.LOOP),
        (" one two three" * 5, Kind.LOOP),
        (" by the orchard gate for a fair price" * 2, Kind.LOOP),
        (" # $ % & * + = @ ^ ~ | < > # $ %", Kind.SYMBOLS),
        ("=====a=====", Kind.SYMBOLS),
        (" the of was garden they into from a the is of him", Kind.WORD_SALAD),
        ("", None),
        (" something else.", None),
        (" 4821", None),
        (" 1, 2, 3, 4, 5, 6, 7, 8", None),
        ("**48213**", None),
        (" (7).", None),
        ("I do not know.", None),
        (" the weaver repaired the narrow ladder near the river, and nobody", None),
    ],
)
def test_short_replies(text: str, kind: Kind | None) -> None:
    assert looks_broken(text) is kind


ANY_TEXT = st.text(max_size=400) | st.text(
    alphabet="ab \n.,\u3042\u4e00\U0001f600\ufffd", max_size=400
)


@settings(deadline=None)
@given(ANY_TEXT, ANY_TEXT | st.none(), st.booleans())
def test_any_text_gets_one_kind(text: str, own: str | None, ended: bool) -> None:
    found = assess(text, own=own, ended=ended)
    assert found.kind in Kind
    assert (found.kind is Kind.EMPTY) == (found.signals.characters == 0)
    if own is None:
        assert found.kind is not Kind.LIKE_OWN
    assert looks_broken(text) in {None, Kind.LOOP, Kind.SYMBOLS, Kind.WORD_SALAD}


@settings(deadline=None)
@given(st.text(alphabet="abcdefgh ", min_size=12, max_size=40), st.integers(8, 20))
def test_whatever_is_repeated_is_broken(phrase: str, times: int) -> None:
    if len(set(phrase.split())) > 1:
        assert assess(f"{phrase}. " * times).kind is Kind.LOOP


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_signals_are_shares(text: str) -> None:
    s = signals_of(text)
    for share in (s.cover, s.repeated, s.top_word, s.solid, s.letters, s.garbled, s.common):
        assert 0 <= share <= 1
