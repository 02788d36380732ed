from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from lmstrix.adapters.llamacpp.gguf import GgufHeader, read_header
from lmstrix.adapters.llamacpp.memory import available_memory, estimate_memory, kv_bytes

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
def test_the_estimate_is_close_to_what_was_measured(
    demo_model: Path, context: int, resident_mib: int
) -> None:
    model = read_header(demo_model)
    estimate = estimate_memory(model, model.file_bytes, context, batch_tokens=256)
    assert estimate is not None
    assert estimate.total_bytes / MIB == pytest.approx(resident_mib, rel=0.1)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """A ``/proc`` with 1000 MiB to give, and an empty ``/sys/fs/cgroup``."""
    write(tmp_path / "proc/meminfo", f"MemTotal: 9 kB\nMemAvailable:   {1000 * 1024} kB\n")
    return tmp_path / "proc", tmp_path / "cgroup"


def test_the_kernel_tells_what_is_available(machine: tuple[Path, Path]) -> None:
    assert available_memory(*machine) == 1000 * MIB


def test_limits_of_groups_count_their_caches_as_free(machine: tuple[Path, Path]) -> None:
    proc, groups = machine
    write(proc / "self/cgroup", "0::/user/app\n")
    write(groups / "user/memory.max", str(500 * MIB))
    write(groups / "user/memory.current", str(300 * MIB))
    write(groups / "user/memory.stat", f"anon 1\ninactive_file {100 * MIB}\n")
    write(groups / "user/app/memory.max", "max\n")
    write(groups / "user/app/memory.current", "5\n")
    assert available_memory(proc, groups) == 300 * MIB


def test_older_groups_are_read(machine: tuple[Path, Path]) -> None:
    proc, groups = machine
    write(proc / "self/cgroup", "5:cpu:/\n3:memory:/docker/abc\nnonsense\n")
    write(groups / "memory/memory.limit_in_bytes", str(2**63 - 4096))
    write(groups / "memory/memory.usage_in_bytes", str(MIB))
    write(groups / "memory/docker/abc/memory.limit_in_bytes", str(64 * MIB))
    write(groups / "memory/docker/abc/memory.usage_in_bytes", str(100 * MIB))
    assert available_memory(proc, groups) == 0
