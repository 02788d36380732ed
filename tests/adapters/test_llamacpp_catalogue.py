from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmstrix.adapters.llamacpp.catalogue import Catalogue
from lmstrix.errors import (
    EngineUnavailable,
    InvalidModel,
    LMStrixError,
    ModelNotFound,
    UnsupportedModel,
)

Make = Callable[..., bytes]
LLAMA = {"general.architecture": "llama", "llama.context_length": 2048}
BERT = {"general.architecture": "bert", "bert.context_length": 512}


@pytest.fixture
def folder(tmp_path: Path, make_gguf: Make) -> Path:
    """Models like LM Studio keeps them, and what else lies there."""
    files = {
        "ann/Small-GGUF/small-q4.gguf": make_gguf(LLAMA),
        "bob/Small-GGUF/small-q4.gguf": make_gguf({**LLAMA, "general.name": "another"}),
        "bob/Other/other.GGUF": make_gguf(LLAMA),
        "bob/Other/mmproj-other.gguf": make_gguf({"general.architecture": "clip"}),
        "bob/Other/notes.txt": b"no model",
        "cat/bert.gguf": make_gguf(BERT),
        "cat/broken.gguf": make_gguf(LLAMA)[:-5],
        "cat/garbage.gguf": b"<html>404</html>",
        "dan/big-00001-of-00003.gguf": make_gguf({**LLAMA, "split.count": 3}),
        "dan/big-00002-of-00003.gguf": make_gguf({**LLAMA, "split.count": 3}),
        "dan/big-00003-of-00003.gguf": make_gguf({**LLAMA, "split.count": 3}),
    }
    for name, content in files.items():
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "models"


def test_all_models_are_listed(folder: Path) -> None:
    models = Catalogue([folder]).list_models()
    assert [(model.key, model.type) for model in models] == [
        ("ann/Small-GGUF/small-q4", "llm"),
        ("bob/Other/other", "llm"),
        ("bob/Small-GGUF/small-q4", "llm"),
        ("cat/bert", "embedding"),
        ("cat/broken", "invalid"),
        ("cat/garbage", "invalid"),
        ("dan/big-00001-of-00003", "llm"),
    ]
    assert models[0].declared_context == 2048
    assert models[0].digest != models[2].digest
    big = models[-1]
    assert big.size_bytes == 3 * Path(big.path).stat().st_size


def test_no_folder_is_no_model(tmp_path: Path) -> None:
    assert Catalogue([tmp_path / "absent"]).list_models() == []
    with pytest.raises(ModelNotFound, match="'x'") as caught:
        Catalogue([tmp_path / "absent"]).find_model("x")
    assert ".gguf" in caught.value.hint


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(EngineUnavailable, match="cannot be read"):
        Catalogue([file]).list_models()


@pytest.mark.parametrize("name", ["bob/Other/other", "bob/Other/other.gguf", "other", "other.gguf"])
def test_a_model_has_several_names(folder: Path, name: str) -> None:
    assert Catalogue([folder]).find_model(name).key == "bob/Other/other"


def test_a_path_is_a_model(folder: Path) -> None:
    path = folder / "bob/Other/other.GGUF"
    model = Catalogue([]).find_model(str(path))
    assert (model.key, model.path) == (str(path), str(path))


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("small-q4", ModelNotFound, "ann/Small-GGUF/small-q4, bob/Small-GGUF/small-q4"),
        ("smal-q4", ModelNotFound, "Small-GGUF/small-q4"),
        # a name is never joined to a folder
        ("../models/bob/Other/other", ModelNotFound, ""),
        ("bob/Other/../Other/other", ModelNotFound, ""),
        ("nul\0.gguf", ModelNotFound, ""),
        ("~nobody/x.gguf", ModelNotFound, ""),
        ("{}/folder.gguf", InvalidModel, "cannot be read"),
        ("broken", InvalidModel, "broken.gguf: the file is truncated"),
        ("garbage", InvalidModel, "garbage.gguf: not a GGUF file"),
        ("big-00001-of-00003", InvalidModel, "part 2 of 3 is missing"),
        ("{}/dan/big-00003-of-00003.gguf", InvalidModel, "not the first part"),
        ("empty", InvalidModel, "no tensors"),
    ],
)
def test_what_cannot_be_found_or_read_is_told(
    folder: Path, make_gguf: Make, name: str, kind: type[LMStrixError], said: str
) -> None:
    (folder / "folder.gguf").mkdir()
    (folder / "empty.gguf").write_bytes(make_gguf(LLAMA, []))
    (folder / "dan/big-00002-of-00003.gguf").unlink()
    with pytest.raises(kind) as caught:
        Catalogue([folder]).find_model(name.format(folder))
    assert said in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "values",
    [
        BERT,
        {"general.architecture": "nomic-bert"},
        {**LLAMA, "llama.pooling_type": 3},
        {**LLAMA, "llama.attention.causal": False},
        {**LLAMA, "general.type": "adapter"},
        {"general.architecture": "clip"},
    ],
)
def test_what_cannot_answer_is_unsupported(
    tmp_path: Path, make_gguf: Make, values: dict[str, object]
) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(make_gguf(values))
    with pytest.raises(UnsupportedModel, match="cannot answer"):
        Catalogue([]).find_model(str(path))


def test_no_pooling_is_no_embedding(tmp_path: Path, make_gguf: Make) -> None:
    (tmp_path / "model.gguf").write_bytes(make_gguf({**LLAMA, "llama.pooling_type": 0}))
    assert Catalogue([tmp_path]).find_model("model").type == "llm"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_in_a_circle_end(folder: Path) -> None:
    (folder / "bob/loop").symlink_to(folder, target_is_directory=True)
    keys = [model.key for model in Catalogue([folder]).list_models()]
    assert len(keys) == len(set(keys)) == 7
