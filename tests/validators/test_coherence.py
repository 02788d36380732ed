"""The coherence validator, and the classifier of texts behind it with its error rates."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmstrix.models import Judgement, Reply, StopReason
from lmstrix.ports import ComparingValidator, LoadedModel
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel
from lmstrix.validators.coherence import Coherence
from lmstrix.validators.judging import Kind, assess, is_broken

LANGUAGE = (
    " small boy who lived by the sea. He had a boat of his own, and every morning he went out "
    "to catch fish for his mother. One day the wind was so strong that he could not turn back."
)
SORRY = "I'm sorry, but I cannot help with that."
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
SPECIAL = "had a special gift that made her special."
PLAIN = (
    " lived in a small village surrounded by a beautiful green meadow. She was a kind and gentle"
    f" soul who loved her family dearly. The old woman {SPECIAL} She {SPECIAL} She {SPECIAL}\n\n"
    "The old woman had"
)
"""What a small model wrote: repetitive, and language."""
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


async def judged(model: SimulatedModel, length: int) -> set[Judgement]:
    adapter, validator, found = SimulatedAdapter(model), Coherence(), set[Judgement]()
    async with adapter.load(model.info, 8192) as loaded:
        source = validator.questions(loaded, 3)
        prompts = [(await source.question(length, index)).prompt for index in range(8)]
        assert len(set(prompts)) == 8  # the same one would be the same evidence twice
        for index in range(8):
            asked = await source.question(length, index)
            reply = await loaded.complete(asked.prompt, max_tokens=asked.max_tokens)
            found.add(validator.judge(asked, reply))
    return found


BROKEN = (Beyond.WORD_SALAD, Beyond.LOOPS, Beyond.NOISE, Beyond.EMPTY)
WRITES = (Beyond.FORGETS_HEAD, Beyond.FORGETS_ALL, Beyond.SAME_NUMBER)


@pytest.mark.parametrize("beyond", [*BROKEN, *WRITES])
async def test_a_model_that_forgets_still_writes_one_that_breaks_does_not(beyond: Beyond) -> None:
    model = SimulatedModel(true_context=2000, beyond=beyond)
    broken = Judgement.EMPTY if beyond is Beyond.EMPTY else Judgement.GIBBERISH
    assert await judged(model, 2000) == {Judgement.PASS}
    assert await judged(model, 2100) == {broken if beyond in BROKEN else Judgement.PASS}


@pytest.mark.parametrize(
    ("text", "stop", "judgement"),
    [
        (LANGUAGE, StopReason.UNKNOWN, Judgement.PASS),
        ("", StopReason.END, Judgement.EMPTY),
        (LANGUAGE[:20], StopReason.UNKNOWN, Judgement.INCONCLUSIVE),
        (" the last" * 40, StopReason.UNKNOWN, Judgement.GIBBERISH),
        (f"{SORRY} {LANGUAGE}", StopReason.UNKNOWN, Judgement.INCONCLUSIVE),
    ],
)
async def test_replies(
    loaded: LoadedModel, text: str, stop: StopReason, judgement: Judgement
) -> None:
    question = await Coherence().questions(loaded, 1).question(512, 0)
    reply = Reply(text=text, prompt_tokens=9, stop_reason=stop)
    assert Coherence().judge(question, reply) is judgement


async def test_what_is_broken_at_short_length_too_says_nothing(loaded: LoadedModel) -> None:
    validator = Coherence()
    assert isinstance(validator, ComparingValidator)
    question = await validator.questions(loaded, 1).question(512, 0)
    loop = Reply(text=" They make bread by making it." * 12, prompt_tokens=9)
    assert validator.compare(question, loop, LANGUAGE) is Judgement.GIBBERISH
    assert validator.compare(question, loop, loop.text) is Judgement.INCONCLUSIVE
    fine = Reply(text=LANGUAGE, prompt_tokens=9)
    assert validator.compare(question, fine, loop.text) is Judgement.PASS


@pytest.mark.parametrize("text", [PROSE, PLAIN, SPANISH, RUSSIAN, HINDI, KOREAN])
def test_language_is_fine(text: str) -> None:
    assert assess(text) is Kind.FINE
    assert assess(text, own=text) is Kind.FINE
    assert assess(text + " \ufffd") is Kind.FINE  # a character that the limit cut in two


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (LOOP, Kind.LOOP),
        (SALAD, Kind.WORD_SALAD),
        ("the " * 90, Kind.LOOP),
        ("x" * 2_000_000, Kind.LOOP),
        (PROSE + LOOP * 1000, Kind.LOOP),
        ("".join(f"{n}. It was late. She left.\n" for n in range(1, 14)), Kind.LOOP),
        ("&% $# @! ~~ ^& *( )_ += |\\ <> ?/ " * 4, Kind.SYMBOLS),
        (PROSE.replace("e", "é").encode().decode("latin-1"), Kind.SYMBOLS),
        ("\ufffd" * 50 + "x", Kind.SYMBOLS),
    ],
)
def test_broken_writing(text: str, kind: Kind) -> None:
    assert assess(text) is kind
    assert assess(text, own=PROSE) is kind
    assert assess(text, own=text) is Kind.LIKE_OWN


@pytest.mark.parametrize("text", ["", " ", "\n\n\n", "\u200b\u200b", "\u3000", "\ufeff"])
@pytest.mark.parametrize("ended", [True, False])
def test_nothing_is_empty(text: str, ended: bool) -> None:
    assert assess(text, ended=ended) is Kind.EMPTY
    assert assess(text, own=PROSE, ended=ended) is Kind.EMPTY
    assert not is_broken(text)


def test_an_instant_stop_is_short_beside_the_own_writing() -> None:
    for text in (" The.", " to work in the garden."):
        assert assess(text, ended=True) is Kind.INSTANT_STOP
        assert assess(text, own=PROSE, ended=True) is Kind.INSTANT_STOP
        assert assess(text, ended=False) is Kind.TOO_SHORT
    assert assess(" The.", own="A boat.", ended=True) is Kind.TOO_SHORT
    assert assess("It was a small boat with a red sail.", ended=True) is Kind.TOO_SHORT


def test_words_of_no_language_show_beside_the_own_writing() -> None:
    invented = "Tode rin, gare sol mepha. Trin ode vasp, mun tel. " + " ".join(
        f"{a}{b}{'.' if b == 'ne' else ''}"
        for a in ("ter", "vol", "gam", "pir")
        for b in ("lo", "mis", "ne", "da", "rk")
    )
    assert assess(invented, own=PROSE) is Kind.WORD_SALAD
    assert assess(SALAD, own="They make bread by making it. " * 12) is Kind.WORD_SALAD


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        (" the the the the the the", True),
        (" one two three" * 5, True),
        (" by the orchard gate for a fair price" * 2, True),
        (" # $ % & * + = @ ^ ~ | < > # $ %", True),
        ("=====a=====", True),
        (" the of was garden they into from a the is of him", True),
        (" something else.", False),
        (" 4821", False),
        (" 1, 2, 3, 4, 5, 6, 7, 8", False),
        ("**48213**", False),
        ("I do not know.", False),
        (" the weaver repaired the narrow ladder near the river, and nobody", False),
    ],
)
def test_short_replies(text: str, broken: bool) -> None:
    assert is_broken(text) is broken


@settings(deadline=None)
@given(st.text(alphabet="abcdefgh ", min_size=12, max_size=40), st.integers(8, 20))
def test_whatever_is_repeated_is_a_loop(phrase: str, times: int) -> None:
    if len(set(phrase.split())) > 1:
        assert assess(f"{phrase}. " * times) is Kind.LOOP


@pytest.fixture(scope="module")
def benchmark_module() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "coherence.py"
    spec = importlib.util.spec_from_file_location("coherence_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["coherence_benchmark"] = module
    spec.loader.exec_module(module)
    return module


def test_error_rates(benchmark_module: ModuleType) -> None:
    rows = {row.name: row for row in benchmark_module.table(seed=0)}
    assert [str(row) for row in rows.values() if row.is_bad] == []
    assert rows["all fine"].n >= 400
    for kind in ("loop", "symbols", "empty"):
        assert (rows[f"all {kind}"].alone, rows[f"all {kind}"].beside) == (0, 0)
    assert rows["short fine"].alone == rows["short loop"].alone == rows["short symbols"].alone == 0
