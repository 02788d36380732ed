"""Model files: their headers, the catalogue of them, and the memory that they need."""

from __future__ import annotations

import os
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import attrs
import platformdirs
import pytest

from lmstrix import LMStrix, errors
from lmstrix.adapters.llamacpp.catalogue import find_model, list_models
from lmstrix.adapters.llamacpp.gguf import GgufHeader, read_header
from lmstrix.adapters.llamacpp.memory import available_memory, estimate_memory, kv_bytes
from lmstrix.errors import InvalidModel, ModelNotFound
from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

Make = Callable[..., bytes]
Read = Callable[[bytes], GgufHeader]


SMALL = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "general.size_label": "1K",
    "general.file_type": 15,
    "llama.context_length": 4096,
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": [2, 0],
    "llama.rope.freq_base": 10000.0,
    "tokenizer.ggml.tokens": ["a", "b", "ç", ""],
    "tokenizer.ggml.scores": [0.5, 1.5],
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.chat_template": "{{ x }}",
}


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_bytes(data: bytes) -> GgufHeader:
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        return read_header(path)

    return read_bytes


@pytest.mark.parametrize("version", [2, 3])
def test_a_header_is_read(make_gguf: Make, read: Read, version: int) -> None:
    data = make_gguf(SMALL, version=version)
    assert read(data) == GgufHeader(
        architecture="llama",
        file_bytes=len(data),
        tensor_count=1,
        parameters=128,
        vocabulary_size=4,
        size_label="1K",
        quantization="Q4_K_M",
        context_length=4096,
        block_count=2,
        embedding_length=64,
        head_count=4,
        head_count_kv=(2, 0),
        has_chat_template=True,
    )


NO_CONTEXT: tuple[object, ...] = (0, -1, 2**31 + 1, 2**40, "8192", 8192.0, True, [8192], [])
NO_HEADS: tuple[object, ...] = ([2, -1], ["a"], [1.5], [], "x", [True])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("context_length", value) for value in NO_CONTEXT),
        *(("attention.head_count_kv", value) for value in NO_HEADS),
    ],
    ids=str,
)
def test_a_nonsensical_value_is_none(make_gguf: Make, read: Read, key: str, value: object) -> None:
    header = read(make_gguf({**SMALL, f"llama.{key}": value}))
    assert getattr(header, key.removeprefix("attention.")) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a GGUF"),
        (b"GGU", "not a GGUF"),
        (b"PK\x03\x04" + bytes(100), "not a GGUF"),
        (b"GGUF", "ends within"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(100), "version 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(100), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "not name an architecture"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**60), "claims"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 99), "unknown type 99"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 2**60), "strings"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 77, 1), "unknown type 77"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQQ", 3, 0, 1, 1, b"k", 9, 8, 1, 2**63), "ends within"),
    ],
)
def test_broken_headers_say_what_is_wrong(read: Read, data: bytes, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        read(data)


def hostile(*values: tuple[str, int, bytes]) -> bytes:
    """A header of keys, each with its type number and its bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(values))
    return head + b"".join(
        struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + data
        for key, kind, data in values
    )


NUMBERS = struct.pack("<IQ", 6, 4096) + b"\1\2\3\4" * 4096
HOSTILE = {
    "empty arrays": [("k", 9, struct.pack("<IQ", 9, 2**18) + struct.pack("<IQ", 4, 0) * 2**18)],
    "deep arrays": [("k", 9, struct.pack("<IQ", 9, 1) * 1000)],
    "numbers": [(f"k{n}", 9, NUMBERS) for n in range(1024)],
    "numbers of layers": [(f"k{n}.attention.head_count", 9, NUMBERS) for n in range(1024)],
    "text": [("general.name", 8, struct.pack("<Q", 2**20) + b"\xff" * 2**20)] * 16,
    "names": [("n" * 65_000 + str(n), 0, b"x") for n in range(256)],
}


@pytest.mark.parametrize("values", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_headers_cost_little(tmp_path: Path, values: list[tuple[str, int, bytes]]) -> None:
    """Function calls stand for the time, which no test should measure."""
    path = tmp_path / "hostile.gguf"
    path.write_bytes(hostile(*values))
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event.endswith("call")

    tracemalloc.start()
    sys.setprofile(count)
    try:
        with pytest.raises(InvalidModel):
            read_header(path)
    finally:
        sys.setprofile(None)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert calls < 100_000
    assert peak_bytes < 8 * 2**20


def test_every_truncation_is_noticed(make_gguf: Make, read: Read) -> None:
    data = make_gguf(SMALL)
    for length in range(len(data)):
        with pytest.raises(InvalidModel):
            read(data[:length])
    with pytest.raises(InvalidModel, match=r"truncated: its tensors need [\d,]+ bytes"):
        read(make_gguf(SMALL, data=False))


def test_strings_longer_than_a_chunk_are_walked_over(make_gguf: Make, read: Read) -> None:
    pieces = ["x" * 700_000, "", "y" * 300_000, *["z" * 9] * 70_000]
    header = read(make_gguf({**SMALL, "tokenizer.ggml.tokens": pieces, "last": "here"}))
    assert header.vocabulary_size == 70_003


def test_an_absurd_alignment_is_refused(make_gguf: Make, read: Read) -> None:
    for alignment in (0, "x", 2**40):
        with pytest.raises(InvalidModel, match="alignment"):
            read(make_gguf({**SMALL, "general.alignment": alignment}))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    with pytest.raises(InvalidModel, match="regular file"):
        read_header(pipe)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_file_is_suggested_for_a_name_that_no_server_knows(
    tmp_path: Path, make_gguf: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = platformdirs.user_cache_path("lmstrix") / "models" / "one.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(make_gguf(LLAMA))
    async with (
        LMStudioServer(SimulatedAdapter(SimulatedModel(key="there"))) as server,
        LMStrix(host=server.host, store="memory") as client,
    ):
        with pytest.raises(ModelNotFound) as caught:
            await client.forecast("one")
        assert f"Did you mean the file {str(file)!r}?" in caught.value.hint
        with pytest.raises(ModelNotFound) as caught:
            await client.forecast("two")
        assert "the file" not in caught.value.hint


# The catalogue -----------------------------------------------------------------------------------

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
    models = list_models([folder])
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


def test_no_folder_has_no_model_and_a_file_is_no_folder(tmp_path: Path) -> None:
    nothing = [tmp_path / "absent"]
    assert list_models(nothing) == []
    with pytest.raises(ModelNotFound, match="'x'") as caught:
        find_model(nothing, "x")
    assert ".gguf" in caught.value.hint
    (tmp_path / "file").touch()
    with pytest.raises(errors.EngineUnavailable, match="cannot be read"):
        list_models([tmp_path / "file"])


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
    folder: Path, make_gguf: Make, name: str, kind: type[errors.LMStrixError], said: str
) -> None:
    (folder / "folder.gguf").mkdir()
    (folder / "empty.gguf").write_bytes(make_gguf(LLAMA, []))
    (folder / "dan/big-00002-of-00003.gguf").unlink()
    with pytest.raises(kind) as caught:
        find_model([folder], name.format(folder))
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
def test_what_cannot_answer(tmp_path: Path, make_gguf: Make, values: dict[str, object]) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(make_gguf(values))
    with pytest.raises(errors.UnsupportedModel, match="cannot answer"):
        find_model([], str(path))


def test_no_pooling_is_no_embedding(tmp_path: Path, make_gguf: Make) -> None:
    (tmp_path / "model.gguf").write_bytes(make_gguf({**LLAMA, "llama.pooling_type": 0}))
    assert find_model([tmp_path], "model").type == "llm"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_in_a_circle_end(folder: Path) -> None:
    (folder / "bob/loop").symlink_to(folder, target_is_directory=True)
    keys = [model.key for model in list_models([folder])]
    assert len(keys) == len(set(keys)) == 7


@pytest.mark.parametrize(
    "name", ["bob/Other/other", "bob/Other/other.gguf", "other", "other.gguf", "other.GGUF"]
)
def test_a_model_has_several_names(folder: Path, name: str) -> None:
    assert find_model([folder], name).key == "bob/Other/other"
    path = str(folder / "bob/Other/other.GGUF")
    model = find_model([], path)
    assert (model.key, model.path) == (path, path)


# Memory ------------------------------------------------------------------------------------------

MIB = 2**20


def header(**values: object) -> GgufHeader:
    base = GgufHeader(architecture="llama", file_bytes=0, tensor_count=1, parameters=0)
    return attrs.evolve(base, **values)  # pyright: ignore[reportArgumentType] - a test's short form


LLAMA_8B = header(block_count=32, embedding_length=4096, head_count=32, head_count_kv=8)
QWEN_7B = header(block_count=28, embedding_length=3584, head_count=28, head_count_kv=4)
SMOLLM2 = header(block_count=30, embedding_length=576, head_count=9, head_count_kv=3)
MLA = header(
    block_count=2, head_count=16, head_count_kv=1, key_length=576, value_length=512, keys_only=True
)
HYBRID = header(
    block_count=4, head_count=(0, 8, 0, 8), head_count_kv=(0, 2, 0, 2), embedding_length=512
)
QWEN_NEXT = header(
    architecture="qwen3next",
    block_count=32,
    head_count=16,
    head_count_kv=4,
    key_length=256,
    value_length=256,
    attention_interval=4,
)


@pytest.mark.parametrize(
    ("model", "per_token"),
    [
        (LLAMA_8B, 128 * 1024),
        (QWEN_7B, 56 * 1024),
        (SMOLLM2, 23_040),
        (MLA, 2 * 576 * 2),
        (HYBRID, 2 * 2 * 2 * 64 * 2),
        (QWEN_NEXT, 8 * 4 * 512 * 2),
        (attrs.evolve(QWEN_NEXT, attention_interval=None), 8 * 4 * 512 * 2),
        (attrs.evolve(QWEN_NEXT, block_count=33, predicting_layers=1), 8 * 4 * 512 * 2),
    ],
)
def test_the_cache_of_known_models(model: GgufHeader, per_token: int) -> None:
    assert kv_bytes(model, 4096) == 4096 * per_token


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"block_count": None},
        {"block_count": 10**9, "head_count": 1, "embedding_length": 1},
        {"head_count": None, "head_count_kv": None},
        {"embedding_length": None},
        {"head_count": 0},
    ],
    ids=str,
)
def test_what_the_header_does_not_say_is_unknown(values: dict[str, object]) -> None:
    model = attrs.evolve(SMOLLM2, **values) if values else header()  # pyright: ignore[reportArgumentType] - as above
    assert kv_bytes(model, 256) is None
    assert estimate_memory(model, 1, 256, batch_tokens=256) is None


def test_a_list_that_does_not_match_the_layers_counts_every_head() -> None:
    model = attrs.evolve(SMOLLM2, head_count_kv=(1, 2))
    assert kv_bytes(model, 256) == kv_bytes(attrs.evolve(SMOLLM2, head_count_kv=9), 256)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("context", "resident_mib"), [(2048, 204), (8192, 339), (32768, 880), (131072, 3045)]
)
def test_the_estimate_is_close(demo_model: Path, context: int, resident_mib: int) -> None:
    model = read_header(demo_model)
    estimate = estimate_memory(model, model.file_bytes, context, batch_tokens=256)
    assert estimate is not None
    assert estimate.total_bytes / MIB == pytest.approx(resident_mib, rel=0.1)


PROC = {"meminfo": f"MemTotal: 9 kB\nMemAvailable:   {1000 * 1024} kB\n"}
NEW_GROUPS = {
    "user/memory.max": 500 * MIB,
    "user/memory.current": 300 * MIB,
    "user/memory.stat": f"anon 1\ninactive_file {100 * MIB}\n",
    "user/app/memory.max": "max\n",
    "user/app/memory.current": "5\n",
}
OLD_GROUPS = {
    "memory/memory.limit_in_bytes": 2**63 - 4096,
    "memory/memory.usage_in_bytes": MIB,
    "memory/docker/abc/memory.limit_in_bytes": 64 * MIB,
    "memory/docker/abc/memory.usage_in_bytes": 100 * MIB,
}


@pytest.mark.parametrize(
    ("ours", "groups", "available"),
    [
        ({}, {}, 1000),
        ({"self/cgroup": "0::/user/app\n"}, NEW_GROUPS, 300),  # what is cached counts as free
        ({"self/cgroup": "5:cpu:/\n3:memory:/docker/abc\nnonsense\n"}, OLD_GROUPS, 0),
    ],
    ids=["no groups", "groups", "older groups"],
)
def test_the_kernel_tells_what_is_available(
    tmp_path: Path, ours: dict[str, str], groups: dict[str, object], available: int
) -> None:
    for folder, files in (("proc", PROC | ours), ("cgroup", groups)):
        for name, content in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(content))
    assert available_memory(tmp_path / "proc", tmp_path / "cgroup") == available * MIB
