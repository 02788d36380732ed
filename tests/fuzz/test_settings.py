"""Files of LM Studio's and of the user's, and the names that lead to them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest
from fuzz_counts import put_through
from fuzz_values import NAMES, as_text, changed, damaged, fuzz, texts_of
from hypothesis import example, given
from hypothesis import strategies as st

from lmstrix import apply
from lmstrix.adapters.lmstudio_home import CONFIG_FOLDER, settings_path
from lmstrix.errors import ConfigurationError, SettingsError
from lmstrix.locks import FOLDER_VARIABLE
from lmstrix.models import ModelInfo, StoredReport
from lmstrix.testing.samples import sample_model, sample_report
from lmstrix_cli.prompts import fill, parse_templates

NAME = "publisher/repository/file.gguf"
DOCUMENT = {
    "preset": "",
    "operation": {"fields": [{"key": "llm.prediction.temperature", "value": 0.25}]},
    "load": {
        "fields": [
            {"key": apply.CONTEXT_KEY, "value": 4096},
            {"key": "llm.load.llama.acceleration.offloadRatio", "value": 1e-3},
        ]
    },
}
INDEX = {"models": [{"defaultIdentifier": "a/b@q8", "indexedModelIdentifier": "a/b@c/d.gguf"}]}
LAID_OUT = st.sampled_from([None, 2, "\t"]).map(lambda unit: json.dumps(DOCUMENT, indent=unit))
VAST = json.dumps(DOCUMENT).replace("4096", "9" * 4000)


def _home(folder: str) -> Path:
    home = Path(folder).resolve() / "home"
    (home / ".internal" / CONFIG_FOLDER).mkdir(parents=True)
    os.environ[FOLDER_VARIABLE] = str(home / "locks")
    return home


@pytest.fixture(autouse=True)
def locks_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts back the variable that `_home` sets."""
    monkeypatch.setenv(FOLDER_VARIABLE, "")


def _change(home: Path, name: str) -> bool:
    path = settings_path(home, name)
    before = path.read_bytes() if path.exists() else None
    change = apply.plan_change(home, name, 8192)
    assert change.path.is_relative_to(home / ".internal" / CONFIG_FOLDER)
    assert isinstance(change.difference, str)
    if change.write() is None:
        return True
    assert not apply.plan_change(home, name, 8192).needed
    undo = apply.plan_undo(home, name)
    assert undo.old_context == 8192
    undo.write()
    assert (path.read_bytes() if path.exists() else None) == before
    return True


@fuzz
@given(texts_of(DOCUMENT) | LAID_OUT)
@example("[" * 100_000)
@example(VAST)
def test_settings_files(text: str) -> None:
    with TemporaryDirectory() as folder:
        home = _home(folder)
        path = settings_path(home, NAME)
        path.parent.mkdir(parents=True)
        content = text.encode("utf-8", "surrogatepass")
        path.write_bytes(content)
        parser = "LM Studio's settings file"
        put_through(parser, lambda: _change(home, NAME), SettingsError, writes=True)
        # Changed and taken back, or never touched.
        assert path.read_bytes() == content
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@fuzz
@given(NAMES | st.lists(NAMES, max_size=4).map("/".join))
def test_identifiers(name: str) -> None:
    with TemporaryDirectory() as folder:
        home = _home(folder)
        parser = "identifier of a model"
        put_through(parser, lambda: _change(home, name), SettingsError, writes=True)
        inside = home / ".internal" / CONFIG_FOLDER
        assert {path.name for path in Path(folder).iterdir()} == {"home"}
        assert not [path for path in inside.rglob("*") if path.is_file()]


@fuzz
@given(texts_of(INDEX), texts_of({"downloadsFolder": "/models"}), NAMES, NAMES)
def test_places(index: str, chosen: str, key: str, path: str) -> None:
    with TemporaryDirectory() as folder:
        home = _home(folder)
        file = home / ".internal" / "model-index-cache.json"
        file.write_bytes(index.encode("utf-8", "surrogatepass"))
        (home / "settings.json").write_bytes(chosen.encode("utf-8", "surrogatepass"))
        for model in (
            ModelInfo(key="a/b@q8"),
            ModelInfo(key=key, path=path),
            ModelInfo(key=key, path=f"{home}/models/{path}"),
        ):
            found = put_through(
                "LM Studio's index",
                lambda model=model: settings_path(home, apply.settings_identifier(model, home)),
                SettingsError,
            )
            inside = home / ".internal" / CONFIG_FOLDER
            assert found is None or found.resolve().is_relative_to(inside.resolve())


@fuzz
@given(NAMES, NAMES, NAMES)
def test_names_of_models(name: str, key: str, path: str) -> None:
    model = sample_model(key=key, path=path)
    report = sample_report(model=model)
    other = sample_report(true_context=None)
    stored = [StoredReport(id=i, key=i, report=r) for i, r in (("a", report), ("b", other))]
    put_through("name of a measured model", lambda: apply.find_model(stored, name))
    chosen = put_through("name of a measured model", lambda: apply.choose_report(stored, name))
    if chosen is not None:
        apply.caveats(stored, chosen, engine=name)
    for adapter in ("", "ollama"):
        lines = apply.ollama_modelfile(model, 8192, adapter=adapter).splitlines()
        assert len(lines) == 2


# Prompt templates in TOML ------------------------------------------------------------------------

TABLES: dict[str, object] = {
    "summary": {
        "description": "A text in a few words",
        "system": "You write plainly.",
        "user": "Summarise in {words} words: {{}} {prompt}",
        "max_tokens": 400,
    },
    "plain": {"user": "{prompt}"},
}


def as_toml(value: object) -> str:
    """Tables of values that JSON and TOML write alike; any other value as it is."""
    if not isinstance(value, dict):
        return as_text(value)
    lines = list[str]()
    for name, table in cast("dict[str, object]", value).items():
        if not isinstance(table, dict):
            lines.append(f"{as_text(name)} = {as_text(table)}")
            continue
        fields = cast("dict[str, object]", table)
        lines += [f"[{as_text(name)}]"]
        lines += [f"{as_text(key)} = {as_text(field)}" for key, field in fields.items()]
    return "\n".join(lines)


@fuzz
@given(
    changed(TABLES).map(as_toml)
    | damaged(as_toml(TABLES).encode()).map(lambda data: data.decode("utf-8", "replace")),
    NAMES,
)
@example("a = " + "[" * 5000, "")
@example('["a"]\nuser = "' + "{x}" * 1000 + '"', "{x}")
def test_templates(text: str, value: str) -> None:
    templates = put_through(
        "prompt templates", lambda: parse_templates(text, "a file"), ConfigurationError
    )
    for template in (templates or {}).values():
        values = dict.fromkeys(template.variables, value)
        filled = put_through("prompt template, filled", lambda t=template, v=values: fill(t, v))
        assert filled is not None
        assert not values or value in filled.system + filled.user
