"""The commonest words of seven languages, and which of them cannot follow each other.

The lists were written for this project by hand, from grammar: articles, prepositions, pronouns,
conjunctions, auxiliaries and the commonest adverbs. In running text of these languages some
40 to 60 % of the words are of this kind; the shares that `thresholds` uses were measured on the
calibration half of the test data.

A *clash* is a pair of neighbours that grammar forbids ("the of", "der und"). In good text it hardly
occurs; in words without order every tenth pair or so is one. For Chinese and Japanese the
"words" are single characters, and the clashes are particles and small kana where none can stand.
"""

from __future__ import annotations

import attrs

__all__ = ["CJ_LANGUAGES", "LANGUAGES", "Language", "is_clash"]


@attrs.frozen(kw_only=True)
class Language:
    """What is known of one language.

    `clashes` are pairs (first words, second words); each `frozenset` may be shared.
    """

    name: str
    common: frozenset[str]
    clashes: tuple[tuple[frozenset[str], frozenset[str]], ...] = ()
    capitals: frozenset[str] = frozenset()
    """Common words that may have a capital in mid-sentence, lower case."""
    strings: tuple[str, ...] = ()
    """Common strings of two characters and more, where there are no spaces."""


def _set(*words: str) -> frozenset[str]:
    return frozenset(" ".join(words).split())


_EN_DETERMINERS = _set("the a an my your our their its every")
_EN_PREPOSITIONS = _set("of from with into at")
_EN_SUBJECTS = _set("he she they we i")
_EN_WAS = _set("is are was were")
_EN_HAVE = _set("has had have does did would could should")
_EN_AND = _set("and or but")
_EN = Language(
    name="en",
    common=_EN_DETERMINERS
    | _EN_PREPOSITIONS
    | _EN_SUBJECTS
    | _EN_WAS
    | _EN_HAVE
    | _EN_AND
    | _set(
        "this that these those his her some any each all both no not to in on by for as than like",
        "about after before over under between through during without against because if when",
        "while where which who whom whose what how why so then there here it you him them me us",
        "be been being am do will can may might must shall said one two more most many much very",
        "also just only even still up out down off again other another such own same too now",
        "never always often first new way time people good well make made go went come came get",
    ),
    capitals=_set("i you your this that all any new time us no not one people good may will"),
    clashes=(
        (
            _EN_DETERMINERS,
            _EN_DETERMINERS
            | _EN_PREPOSITIONS
            | _EN_SUBJECTS
            | _EN_WAS
            | _EN_AND
            | _set(
                "to in on by for has had have did would could should because if when him them it"
            ),
        ),
        (
            _EN_PREPOSITIONS | _set("to"),
            _EN_PREPOSITIONS | _EN_SUBJECTS | _EN_WAS | _EN_AND | _set("had has did because by"),
        ),
        (_EN_SUBJECTS, _EN_DETERMINERS | _EN_SUBJECTS | _set("of from into it him them by his")),
        (_EN_WAS | _set("be been"), _EN_WAS | _set("did had has would could")),
        (_EN_HAVE, _EN_WAS | _set("of into")),
        (_EN_AND, _EN_AND | _set("of")),
        (_set("in on by for"), _EN_WAS | _EN_SUBJECTS - _set("he i") | _set("of or had did")),
    ),
)

_DE_ARTICLES = _set("der die das den dem des ein eine einen einem einer")
_DE_PREPOSITIONS = _set("von mit für durch ohne gegen bei nach zwischen aus")
_DE_SUBJECTS = _set("ich er wir")
_DE_AND = _set("und oder")
_DE_SEIN = _set("ist war waren wird wurde hat hatte sind")
_DE = Language(
    name="de",
    common=_DE_ARTICLES
    | _DE_PREPOSITIONS
    | _DE_SUBJECTS
    | _DE_AND
    | _DE_SEIN
    | _set(
        "eines kein keine keinen im in am an auf zu zum zur vom beim über unter vor hinter neben",
        "um seit bis ab aber denn sondern dass daß weil wenn als ob damit obwohl während bevor",
        "nachdem wie so sie es du ihr mich mir dich dir ihn ihm ihnen uns euch sich sein seine",
        "seinen seiner ihre ihren ihrer mein meine unser unsere dieser diese dieses diesen diesem",
        "jeder jede alle viele viel mehr man nicht nur noch schon auch sehr hier da dort dann nun",
        "jetzt immer wieder was wer wo haben habe hatten sei werden worden kann können konnte",
        "muss müssen soll will wollte darf mag geht ging kommt kam macht gibt sagte ganz zwei",
        "drei einmal doch ja nein deren dessen etwas nichts jemand niemand",
    ),
    capitals=_set("sie ihr ihre ihren ihrer ihnen"),
    clashes=(
        (
            _set("ein eine einen einem einer eines im am zum zur vom beim"),
            _DE_ARTICLES
            | _DE_AND
            | _DE_SUBJECTS
            | _DE_SEIN
            | _set(
                "es weil wenn dass aber als wie man nicht sich im am zum zur vom beim kann sie ihm"
            ),
        ),
        (_set("der den dem des"), _DE_AND | _set("des weil wenn aber ist wird dass im am zum vom")),
        (_set("die das"), _DE_AND | _set("das dass weil wenn aber zum")),
        (
            _DE_PREPOSITIONS - _set("nach aus mit bei"),
            _DE_SUBJECTS | _DE_AND | _DE_SEIN | _set("es man wenn dass kann mit nicht aber"),
        ),
        (
            _set("auf in mit bei"),
            _DE_SUBJECTS | _DE_AND | _set("es man wenn aber ist wird von mit"),
        ),
        (_DE_AND, _DE_AND | _set("aber")),
        (_DE_SUBJECTS, _DE_SUBJECTS | _set("des der von")),
        (_DE_SEIN - _set("hatte waren wird hat war"), _DE_SEIN - _set("wird war")),
        (_set("dass wenn weil ob"), _DE_AND | _DE_SEIN | _set("dass weil aber nicht")),
        (_set("sehr zu"), _DE_AND | _DE_SUBJECTS | _DE_SEIN | _set("es man aber")),
    ),
)

_FR_ARTICLES = _set("le la les un une des du au aux ce cette ces mon ma mes son sa ses leur notre")
_FR_PREPOSITIONS = _set("de à dans par pour sur avec sans sous chez vers entre")
_FR_SUBJECTS = _set("je tu il elle on nous vous ils elles")
_FR_AND = _set("et ou mais car")
_FR_BE = _set("est sont était étaient a ont avait fut")
_FR = Language(
    name="fr",
    common=_FR_ARTICLES
    | _FR_PREPOSITIONS
    | _FR_SUBJECTS
    | _FR_AND
    | _FR_BE
    | _set(
        "l d j s n c qu m t que qui quoi dont où ne pas plus rien jamais se me te lui leurs y en",
        "si quand comme parce puisque ni donc or très bien aussi encore déjà tout tous toute",
        "toutes autre autres même mêmes après avant depuis pendant jusqu contre être avoir fait",
        "faire peut il faut va vient dit deux trois cela ça votre vos nos aura sera été alors ici",
        "là peu trop beaucoup moins chaque quelques plusieurs entre celle celui ceux",
    ),
    clashes=(
        (
            _FR_ARTICLES - _set("le la les leur son"),
            _FR_ARTICLES | _FR_PREPOSITIONS | _FR_AND | _FR_BE | _set("je il ils ne que qui se"),
        ),
        (
            _set("le la les"),
            _set("le la les un une des du au aux de dans par et ou mais je il est qui"),
        ),
        (
            _FR_PREPOSITIONS - _set("sur avec"),
            _set("du au aux et mais ou je il ils est sont était ont ne dans"),
        ),
        (_set("je il ils"), _FR_ARTICLES - _set("leur la les le") | _FR_AND | _FR_PREPOSITIONS),
        (_FR_AND, _FR_AND | _set("est")),
    ),
)

_ES = Language(
    name="es",
    common=_set(
        "el la los las un una unos unas de del a al en por para con sin sobre entre hasta desde y",
        "e o u pero que si no se lo le les me te nos su sus mi mis tu como más muy ya también",
        "cuando donde porque es son era fue ser está estaba han había hay este esta estos eso ese",
        "todo todos ella él ellos yo qué quien otro otra dos así después antes",
    ),
)
_IT = Language(
    name="it",
    common=_set(
        "il lo la i gli le un uno una di del della dei delle dello a al alla ai in nel nella nei",
        "con su sul sulla per tra fra da dal dalla e ed o ma che chi se non si ci ne mi ti lui",
        "lei loro noi come più molto anche quando dove perché è sono era erano ha hanno aveva",
        "essere questo questa quello tutti tutto suo sua due così dopo prima l d",
    ),
)
_PT = Language(
    name="pt",
    common=_set(
        "o a os as um uma de do da dos das em no na nos nas por pelo pela para com sem sobre",
        "entre até e ou mas que se não lhe me te ele ela eles seu sua seus como mais muito já",
        "também quando onde porque é são era foi ser está estava tem tinha há este esta isso esse",
        "todo todos ao aos à dois assim depois antes",
    ),
)
_NL = Language(
    name="nl",
    common=_set(
        "de het een van in op aan met voor door naar bij uit over onder tussen tot en of maar",
        "want dat die dit deze als dan niet geen ook nog al er hij zij ze wij we ik je u hem haar",
        "hun zijn was is waren wordt werd heeft had hebben kan kon zal zou moet om te zo wel veel",
        "meer naar toen wie wat waar twee na",
    ),
)

LANGUAGES = (_EN, _DE, _FR, _ES, _IT, _PT, _NL)
"""Languages with spaces. Without `clashes`: only told from words in no language at all."""

_SMALL = frozenset("ゃゅょ")
_BEFORE_SMALL = frozenset("きしちにひみりぎじびぴ")
_PARTICLES = frozenset("をはがに")
_ENDS = frozenset("。、！？「」，；：")  # noqa: RUF001 - Chinese punctuation
_MARKS = frozenset("。、！？，；：")  # noqa: RUF001 - Chinese punctuation
_ZH_BOUND = frozenset("的了们着吗呢吧")
_ZH = Language(
    name="zh",
    common=frozenset(
        "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自"
        "之年过发后作里用道行所然家种事成方多经么去同现当没动面起看定天分还进好小部其些主样"
        "理心她本前开但因只从想实把它两都让被很最"
    ),
    clashes=(
        (_ENDS, _ZH_BOUND),
        (_MARKS, _MARKS),
        (frozenset("的吗呢吧"), frozenset("的们吗")),
        (frozenset("把被很最"), _ENDS | frozenset("的了们吗着呢")),
        (frozenset("不没"), frozenset("们") | _ENDS),
    ),
    strings=tuple(
        (
            "我们 他们 她们 你们 它们 人们 没有 一个 可以 因为 所以 但是 可是 什么 时候 现在 已经 "
            "自己 知道 这个 那个 这样 那样 怎么 如果 虽然 不过 或者 而且 还是 就是 不是 都是 也是 "
            "起来 出来 下来 过来 回来 进去 出去 今天 昨天 明天 早上 晚上 上午 下午 东西 地方 里面 "
            "外面 上面 下面 大家 孩子 先生 老师 学生 朋友 妈妈 爸爸 今年 去年 时间 问题 工作 学校 "
            "公司 国家 社会 中国 城市 世界 经济 发展 进行 通过 需要 应该 能够 可能 必须 开始 最后 "
            "然后 以后 以前 之后 之前 以上 以下 其中 其他 许多 很多 不少 一些 有些 有的 每天 每年 "
            "非常 特别 比较 一起 一样 一直 一点 一次 第一 第二 第三 两个 三个 几个 这里 那里 哪里 "
            "这些 那些 对于 关于 由于 为了 认为 觉得 希望 喜欢 看到 看见 听到 来到 得到 成为 作为 "
            "使用 重要 主要 不同 生活 方面 情况 关系 结果 原因 方法 好像 其实 当然 终于 只有 只要 "
            "只是 那么 这么 还有 不能 不会 不要 不用 不了 了一 是一 有一 的人 的是 来的 在那 在这 "
            "也不 就不 都不 是不 有人 一家 一种 人的 他的 她的 我的 说的 来说 到了 成了 为什 告诉 "
            "问题 变成 还要 多了 的时 时间 公里 小时 分钟 春天 夏天 秋天 冬天 周末 小的 大的 好的 "
            "天的 们的 很大 很小 很长"
        ).split()
    ),
)
_JA = Language(
    name="ja",
    common=frozenset("のにはをたがでてとしれさあいるもすなこよまらりくうかつけきっだんそ"),
    strings=tuple(
        (
            "です ます ました でした ません ましょ でしょ ている ていた ていま てき てしま った "
            "って んで んだ から まで より ながら という といい といっ こと もの その この あの "
            "そこ ここ どこ ある あり いる いま ない なく なり なる なっ れる れた れば られ され "
            "させ のは のが のを のに ので のだ のです には では とは でも ても とも にも だけ "
            "しか など ほど ごと たら なら ため とき ところ また そして しかし だが けど けれ "
            "よう そう どう もう まだ として につい によっ による いう いっ いく くる する した "
            "して しま せん たち さん くださ いただ ござい いらっ みんな とても すこし たくさん "
            "ずっと もっと やっと だった たい たく いて いた んな れて えば かも かり なけ ばな "
            "らな からの までの への との"
        ).split()
    ),
    clashes=(
        (_ENDS - frozenset("「」"), frozenset("をっんょゅゃー")),
        (_MARKS, _MARKS),
        (frozenset("を"), _PARTICLES - frozenset("は") | _ENDS | frozenset("んっの")),
        (frozenset("が"), frozenset("をが")),
        (frozenset("は"), frozenset("を")),
        (frozenset("っ"), frozenset("あいうえおなにぬねのまみむめもらりるれろをんがはっ") | _ENDS),
    ),
)
CJ_LANGUAGES = {"zh": _ZH, "ja": _JA}
"""Languages without spaces, by name."""


def is_clash(language: Language, first: str, second: str) -> bool:
    """Whether `second` cannot follow `first` in `language`."""
    if language is _JA and second in _SMALL:
        return first not in _BEFORE_SMALL
    return any(first in a and second in b for a, b in language.clashes)
