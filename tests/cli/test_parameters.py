"""Values as people type them."""

from __future__ import annotations

from typing import Any

import click
import pytest

from lmstrix_cli.options import DURATION, SHARE, SIZE, TOKENS


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        *((TOKENS, text, 8192) for text in ("8192", "8k", "8_192", "8,192")),
        *((TOKENS, text, value) for text, value in (("128K", 131072), ("1m", 1048576))),
        *((DURATION, text, value) for text, value in (("90s", 90), ("10m", 600), ("1h", 3600))),
        *((DURATION, text, value) for text, value in (("1h30m", 5400), ("1h2m3s", 3723))),
        *((SHARE, text, value) for text, value in (("0.85", 0.85), ("1/64", 1 / 64))),
        *((SHARE, text, value) for text, value in (("1", 1), (".5", 0.5))),
        *((SIZE, text, value) for text, value in (("4g", 4 * 10**9), ("500MB", 5 * 10**8))),
        *(
            (SIZE, text, value)
            for text, value in (("1.5 GiB", 3 * 2**29), ("12000000", 12 * 10**6))
        ),
    ],
)
def test_what_is_typed_is_understood(
    kind: click.ParamType[Any, Any], text: str, value: float
) -> None:
    assert kind.convert(text, None, None) == value


WRONG = {
    TOKENS: ["", "0", "-1", "1.5k", "8kk", "k", "٣", "8__1", "8,1", "8,19", "9" * 99, "nan"],
    DURATION: ["", "0", "0s", "m", "10", "1h30", "10m1h", "1d", "-5", "inf", "9" * 99],
    SHARE: ["", "0", "-1", "2", "nan", "inf", "1/0", "3/2", "1e-3", "x"],
    SIZE: ["", "4x", "ib", "-1", "1i"],
}


@pytest.mark.parametrize(("kind", "text"), [(k, text) for k in WRONG for text in WRONG[k]])
def test_what_is_none_of_its_kind_is_refused(kind: click.ParamType[Any, Any], text: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)


def test_without_a_unit_the_units_are_named() -> None:
    with pytest.raises(click.BadParameter, match=r"10s, 10m or 10h"):
        DURATION.convert("10", None, None)
    with pytest.raises(click.BadParameter, match=r"8 has no unit: write 8m or 8g"):
        SIZE.convert("8", None, None)
