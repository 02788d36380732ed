"""Plug-ins by name, our own and those of a package that is installed for the test."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmstrix.errors import ConfigurationError, PluginNotFound
from lmstrix.plugins import ADAPTERS, STORES, STRATEGIES, VALIDATORS, make_plugin, plugin_names

Install = Callable[[str], None]

MODULE = """
class Strategy:
    def __init__(self, factor=2):
        self.factor = factor

class Broken:
    def __init__(self):
        raise ValueError("out of range")

constant = 42
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package that registers one strategy, ``third``, as it is told to."""

    def install(value: str) -> None:
        metadata = tmp_path / "third_party-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(f"[lmstrix.strategies]\nthird = {value}\n")
        (tmp_path / "third_party_strategies.py").write_text(MODULE)
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    return install


@pytest.mark.parametrize("group", [ADAPTERS, STRATEGIES, VALIDATORS, STORES])
def test_every_registered_plugin_can_be_made(group: str) -> None:
    for name in plugin_names(group):
        assert make_plugin(group, name) is not None


def test_an_unknown_name_and_unknown_settings_are_refused_in_words() -> None:
    with pytest.raises(PluginNotFound, match="unknown strategy 'bisect'") as caught:
        make_plugin(STRATEGIES, "bisect")
    assert "gallop" in caught.value.hint
    with pytest.raises(ConfigurationError, match="does not take these settings: steps"):
        make_plugin(STRATEGIES, "gallop", steps=3)


def test_a_plugin_of_another_package_is_found(install: Install) -> None:
    install("third_party_strategies:Strategy")
    assert "third" in plugin_names(STRATEGIES)
    made = make_plugin(STRATEGIES, "third", factor=3)
    assert getattr(made, "factor", None) == 3


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("third_party_missing:Strategy", ConfigurationError, "'third' cannot be imported"),
        ("third_party_strategies:Missing", ConfigurationError, "'third' cannot be imported"),
        ("third_party_strategies:constant", ConfigurationError, "cannot be called"),
        ("third_party_strategies:Broken", ValueError, "out of range"),  # what it raises itself
    ],
)
def test_a_broken_package_is_a_configuration_error(
    install: Install, value: str, kind: type[Exception], message: str
) -> None:
    install(value)
    with pytest.raises(kind, match=message):
        make_plugin(STRATEGIES, "third")
