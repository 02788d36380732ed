"""Untrusted text made harmless for a terminal or a plain-text file."""

from __future__ import annotations

import unicodedata

__all__ = ["REPLY_KEEPS", "escape_controls"]

REPLY_KEEPS = "\n\t\u200c\u200d"
r"""What a model's reply keeps: line breaks, tabs, and the joiners that Persian, Hindi and many
emoji are written with. Carriage returns are not among them: they overwrite a line."""

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that steer instead of showing: controls, formats (which include the
marks that reverse the reading direction), lone surrogates, line and paragraph separators."""


def escape_controls(text: str, *, keep: str = "") -> str:
    r"""`text` with every character that could steer a terminal written as ``\xNN`` or ``\uNNNN``.

    Characters in `keep` stay. Works character by character, so that a text may be escaped
    in pieces as it arrives.

    >>> escape_controls("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in keep or unicodedata.category(char) not in _UNSAFE else _escape(char)
        for char in text
    )


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
