"""Names of models never lead out of the folder of settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lmstrix.adapters.lmstudio_home import settings_identifier, settings_path
from lmstrix.apply import plan_change
from lmstrix.errors import SettingsError
from lmstrix.testing.samples import sample_model

FOLDER = Path(".internal", "user-concrete-model-default-config")
TRICKS = (
    *("", ".", "..", "../x", "a/../../x", "a/..", "/etc/passwd", "//server/share", "a//b", "a/"),
    *("C:/x", "C:x", "a\\..\\..\\x", "\\\\server\\share", "a\0b", "a\nb", "a\x1b[31m", "a/\u202eb"),
    *("a\ud800", "~/x/..", ".hidden/x", "a/.lmstrix-1.tmp", "a /b", "a./b", "a/ b", "nul"),
    *("a*", "a?b", "a/CON.gguf", "com1.x.y/a", "a:stream"),
    *("x" * 300, "/".join("abcdefghij"), "ü" * 100),
)
GOOD = [
    "google/gemma-3-4b",
    "LiquidAI/LFM2.5-2.6B-GGUF/LFM2.5-2.6B-Q8_0.gguf",
    "qwen/qwen3.5-9b@lmstudio-community/Qwen3.5-9B-GGUF/Qwen3.5-9B-Q8_0.gguf",
    "mine/Grüße & Küsse (v2), 100%/modell.gguf",
    "a..b/c~d",
]


@pytest.mark.parametrize("name", TRICKS, ids=ascii)
def test_tricks_are_refused(home: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="not a safe name") as caught:
        settings_path(home, name)
    assert caught.value.hint


@pytest.mark.parametrize("name", GOOD)
def test_plain_names_are_taken(home: Path, name: str) -> None:
    assert settings_path(home, name) == home / FOLDER / f"{name}.json"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_out_of_the_home_are_refused(home: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "repo").mkdir(parents=True)
    (outside / "m.json").write_text("{}")
    configs = home / FOLDER
    (configs / "folder").symlink_to(outside)
    (configs / "google" / "file.json").symlink_to(outside / "m.json")
    (configs / "google" / "dangling.json").symlink_to(outside / "new.json")
    (configs / "google" / "up.json").symlink_to(home / "settings.json")
    for name in ("folder/repo/m", "folder/m", "google/file", "google/dangling", "google/up"):
        with pytest.raises(SettingsError, match="out of LM Studio's home"):
            plan_change(home, name, 4096)
    assert (outside / "m.json").read_text() == "{}"
    (configs / "google" / "loop.json").symlink_to(configs / "google" / "loop.json")
    with pytest.raises(SettingsError):
        plan_change(home, "google/loop", 4096)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_folder_of_settings_elsewhere_is_refused(home: Path, tmp_path: Path) -> None:
    configs = home / FOLDER
    configs.rename(tmp_path / "moved")
    configs.symlink_to(tmp_path / "moved")
    with pytest.raises(SettingsError, match="out of LM Studio's home"):
        plan_change(home, "google/gemma-3-4b", 4096)


def test_the_identifier_is_the_path_of_the_listing(home: Path) -> None:
    for path in ("google/gemma-3-4b", "lms/gemma-GGUF/gemma.gguf"):
        model = sample_model(key="gemma", path=path)
        assert settings_identifier(model, home) == path
    assert settings_identifier(sample_model(key="a/b", path=""), home) == "a/b"


def test_a_key_alone_is_looked_up_in_the_index(home: Path) -> None:
    alone = sample_model(key="gemma-q8", path="")
    with pytest.raises(SettingsError, match="index does not say") as caught:
        settings_identifier(alone, home)
    assert "--undo" in caught.value.hint
    path = "lms/gemma-GGUF/gemma-Q8_0.gguf"
    entry = {"defaultIdentifier": "gemma-q8", "indexedModelIdentifier": path}
    (home / ".internal" / "model-index-cache.json").write_text(json.dumps({"models": [entry]}))
    assert settings_identifier(alone, home) == path


def test_a_variant_is_looked_up_in_the_index(home: Path) -> None:
    variant = sample_model(key="google/gemma-3-4b@q8_0", path="")
    found = settings_identifier(variant, home)
    assert found == "google/gemma-3-4b@lms/gemma-GGUF/gemma-Q8_0.gguf"
    assert settings_path(home, found).name == "gemma-Q8_0.gguf.json"
    evil = settings_identifier(sample_model(key="evil@q4", path=""), home)
    with pytest.raises(SettingsError, match="not a safe name"):
        settings_path(home, evil)


@pytest.mark.parametrize("index", ["", "[]", '{"models": 3}', '{"models": []}', "[" * 5000])
def test_a_variant_that_the_index_does_not_know_is_refused(home: Path, index: str) -> None:
    (home / ".internal" / "model-index-cache.json").write_text(index)
    with pytest.raises(SettingsError, match="is a variant"):
        settings_identifier(sample_model(key="google/gemma-3-4b@q8_0", path=""), home)


def test_a_model_on_another_device_is_refused(home: Path) -> None:
    with pytest.raises(SettingsError, match="another device"):
        settings_identifier(sample_model(key="a/b (on attic)", path="a/b"), home)


def test_a_file_in_the_models_folder_is_lm_studios(home: Path, tmp_path: Path) -> None:
    for folder in (home / "models", tmp_path / "downloads"):
        file = folder / "pub" / "repo" / "m.gguf"
        file.parent.mkdir(parents=True)
        settings_json = {"downloadsFolder": str(tmp_path / "downloads")}
        (home / "settings.json").write_text(json.dumps(settings_json))
        model = sample_model(key="x", path=str(file))
        assert settings_identifier(model, home) == "pub/repo/m.gguf"
    with pytest.raises(SettingsError, match="not in LM Studio's models folder") as caught:
        settings_identifier(sample_model(key="x", path=str(tmp_path / "y.gguf")), home)
    assert "--for llama-server" in caught.value.hint
