"""One value changes, and no other byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstrix.settings import SettingsError
from lmstrix.settings.merging import new_text, read_context, with_context

FOLDER = Path(".internal", "user-concrete-model-default-config")
DATA = Path(__file__).parent / "data" / "home" / FOLDER
PRETTY = (DATA / "google" / "gemma-3-4b.json").read_bytes().decode()
COMPACT = (DATA / "LiquidAI" / "LFM2-GGUF" / "LFM2.gguf.json").read_bytes().decode()
CONTEXT = "llm.load.contextLength"
ENTRY = {"key": CONTEXT, "value": 6144}


def test_a_value_is_replaced_where_it_stands() -> None:
    assert with_context(PRETTY, 6144) == PRETTY.replace("4096", "6144")
    assert (read_context(PRETTY), read_context(with_context(PRETTY, 6144))) == (4096, 6144)


def test_windows_line_breaks_and_tabs_stay() -> None:
    text = PRETTY.replace("  ", "\t").replace("\n", "\r\n")
    assert with_context(text, 6144) == text.replace("4096", "6144")


def test_an_entry_is_added_at_the_end_and_laid_out_like_its_neighbours() -> None:
    added = with_context(COMPACT, 6144)
    assert added == COMPACT.replace(
        "1e400}", '1e400},{"key":"llm.load.contextLength","value":6144}'
    )
    without = PRETTY.replace('"llm.load.contextLength"', '"llm.load.other"')
    changed = with_context(without, 6144)
    end = '"value": true\n      }'
    new = ',\n      {\n        "key": "llm.load.contextLength",\n        "value": 6144\n      }'
    assert changed == without.replace(end, end + new)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("indent", ["  ", "    ", "\t", ""])
@pytest.mark.parametrize(
    "document",
    [
        {"preset": "", "load": {"fields": []}, "z": 1},
        {"preset": "", "load": {}},
        {"preset": "", "load": {"other": [1, {"a": 2}]}, "z": {}},
        {"preset": "", "operation": {"fields": []}},
        {"preset": "", "load": {"fields": [{"key": "x", "value": {"checked": True}}]}},
        {"preset": "x", "load": {"fields": [ENTRY | {"value": 1}, {"key": "y", "value": None}]}},
    ],
)
def test_a_file_that_breaks_its_lines_looks_as_if_written_whole(
    document: dict[str, Any], indent: str, newline: str
) -> None:
    text = json.dumps(document, indent=indent).replace("\n", newline)
    changed = with_context(text, 6144)
    assert changed == json.dumps(json.loads(changed), indent=indent).replace("\n", newline)
    assert read_context(changed) == 6144


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize(
    "document",
    [
        {"preset": "", "load": {"fields": []}},
        {"preset": "", "load": {}},
        {"preset": ""},
        {"preset": "", "load": {"fields": [{"key": "x", "value": 1}]}},
    ],
)
def test_a_file_on_one_line_stays_on_one_line(
    document: dict[str, Any], separators: tuple[str, str]
) -> None:
    changed = with_context(json.dumps(document, separators=separators), 6144)
    assert changed == json.dumps(json.loads(changed), separators=separators)
    assert read_context(changed) == 6144


def test_an_empty_object_and_odd_spaces() -> None:
    assert json.loads(with_context("{}", 512)) == {"load": {"fields": [ENTRY | {"value": 512}]}}
    odd = ' { "load" :{"fields":[ { "value" : 7 , "key":"llm.load.contextLength" } ] } }\n\n'
    assert with_context(odd, 512) == odd.replace("7", "512")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "not json",
        "{'a': 1}",
        '{"a": 1,}',
        '{"a": NaN}',
        '{"a": 1} {"b": 2}',
        '\ufeff{"a": 1}',
        '{"load": {}, "load": {}}',
        '{"a": "\n"}',
        "[" * 100_000,
        '{"a": ' + "9" * 5000 + "}",
        PRETTY[:-1],
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_what_does_not_parse_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="does not parse as JSON") as caught:
        with_context(text, 512)
    assert "left as it is" in caught.value.hint
    with pytest.raises(SettingsError, match="does not parse as JSON"):
        read_context(text)


@pytest.mark.parametrize(
    "document",
    [
        [],
        3,
        None,
        "x",
        {"load": []},
        {"load": None},
        {"load": {"fields": {}}},
        {"load": {"fields": None}},
        {"load": {"fields": [1]}},
        {"load": {"fields": [{"value": 1}]}},
        {"load": {"fields": [{"key": 1}]}},
        {"load": {"fields": [{"key": CONTEXT}]}},
        {"load": {"fields": [{"key": CONTEXT, "value": "8192"}]}},
        {"load": {"fields": [{"key": CONTEXT, "value": True}]}},
        {"load": {"fields": [{"key": CONTEXT, "value": {"checked": True, "value": 1}}]}},
        {"load": {"fields": [ENTRY, ENTRY]}},
    ],
)
def test_what_lm_studio_does_not_write_is_refused(document: object) -> None:
    with pytest.raises(SettingsError, match="not what LM Studio writes"):
        with_context(json.dumps(document), 512)


def test_a_number_that_nobody_can_reckon_with_is_refused() -> None:
    with pytest.raises(SettingsError, match="is no number"):
        with_context(json.dumps({"load": {"fields": [ENTRY]}}).replace("6144", "1e999"), 512)


def test_a_byte_order_mark_is_called_so() -> None:
    with pytest.raises(SettingsError, match="begins with a byte order mark"):
        read_context("\ufeff{}")


def test_a_new_file() -> None:
    assert json.loads(new_text(512)) == {
        "preset": "",
        "operation": {"fields": []},
        "load": {"fields": [{"key": CONTEXT, "value": 512}]},
    }
    assert with_context(new_text(512), 1024) == new_text(1024)


LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JSON = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELD = st.fixed_dictionaries({"key": st.text()}, optional={"value": JSON, "more": JSON})
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "preset": JSON,
        "load": st.fixed_dictionaries(
            {},
            optional={
                "fields": st.lists(FIELD, max_size=3)
                | st.lists(FIELD, max_size=2).map(lambda fields: [*fields, {**ENTRY, "value": 1}]),
                "more": JSON,
            },
        ),
        "operation": JSON,
    },
)


@given(
    DOCUMENT,
    st.sampled_from([None, "", " ", "  ", "\t", 3]),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_nothing_else_changes(
    document: dict[str, Any], indent: str | int | None, plain: bool, newline: str
) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=plain).replace("\n", newline)
    if "Infinity" in text:
        text = text.replace("Infinity", "1e999")
        document = json.loads(text)
    changed = json.loads(with_context(text, 6144))
    fields = changed["load"]["fields"]
    assert [field["value"] for field in fields if field["key"] == CONTEXT] == [6144]
    before: list[Any] = document.get("load", {}).get("fields", [])
    others = [field for field in before if field["key"] != CONTEXT]
    assert [field for field in fields if field["key"] != CONTEXT] == others
    outside = [(k, v) for k, v in changed.items() if k != "load"]
    assert outside == [(k, v) for k, v in document.items() if k != "load"]
