"""The haystack: one document that every validator asks about.

`grammar` writes the filler; `facts`, `needles`, `crowd` and `chains` say what is planted in it,
`planting` how densely; `document` lays it out in the model's own tokens; `fitting` cuts it so that
a question fills a length. The same seed and spec give the same text, of which every prompt of
every validator is a beginning: what one of them has made the engine read, none reads again.
"""

from lmstrix.validators.haystack.document import Cut, MasterDocument, Placed, Sentence
from lmstrix.validators.haystack.fitting import INTRODUCTION, Haystack, asked_of
from lmstrix.validators.haystack.planting import PLAIN, WITH_CHAINS, WITH_CROWD, HaystackSpec

__all__ = [
    "INTRODUCTION",
    "PLAIN",
    "WITH_CHAINS",
    "WITH_CROWD",
    "Cut",
    "Haystack",
    "HaystackSpec",
    "MasterDocument",
    "Placed",
    "Sentence",
    "asked_of",
]
