"""Values as people type them."""

from __future__ import annotations

import click
import pytest

from lmstrix_cli.options import DURATION, SHARE, SIZE, TOKENS


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8192", 8192),
        ("8k", 8192),
        ("128K", 131072),
        ("1m", 1048576),
        ("8_192", 8192),
        ("8,192", 8192),
    ],
)
def test_token_counts(text: str, count: int) -> None:
    assert TOKENS.convert(text, None, None) == count


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.5k", "8kk", "k", "٣", "8__1", "8,1", "8,19", "9" * 99, "nan"]
)
def test_what_is_no_token_count(text: str) -> None:
    with pytest.raises(click.BadParameter):
        TOKENS.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h", 3600), ("1h2m3s", 3723)],
)
def test_durations(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "m", "10", "1h30", "10m1h", "1d", "-5", "inf", "9" * 99]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter):
        DURATION.convert(text, None, None)


def test_without_a_unit_the_units_are_named() -> None:
    with pytest.raises(click.BadParameter, match=r"10s, 10m or 10h"):
        DURATION.convert("10", None, None)
    with pytest.raises(click.BadParameter, match=r"8 has no unit: write 8m or 8g"):
        SIZE.convert("8", None, None)


@pytest.mark.parametrize(
    ("text", "share"), [("0.85", 0.85), ("1/64", 1 / 64), ("1", 1), (".5", 0.5)]
)
def test_shares(text: str, share: float) -> None:
    assert SHARE.convert(text, None, None) == share


@pytest.mark.parametrize("text", ["", "0", "-1", "2", "nan", "inf", "1/0", "3/2", "1e-3", "x"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(click.BadParameter):
        SHARE.convert(text, None, None)
