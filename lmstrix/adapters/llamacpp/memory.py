"""The memory that a load needs, and the memory that is available.

Checked against resident memory of the embedded engine: SmolLM2-135M at 2048 to 131072 tokens
(159 to 165 MiB besides the KV cache, of which 94 are weights) and Gemma-3-270M (350 to 355 MiB,
of which 241 are weights), f16 cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lmstrix.adapters.llamacpp.gguf import GgufHeader
from lmstrix.models import MemoryEstimate

BYTES_PER_VALUE = 2
"""f16, the engine's default for keys and for values."""
CELL_STEP = 256
"""The engine pads the number of cells to a multiple of this."""
BASE_BYTES = 56 * 2**20
"""Interpreter, engine and buffers of a small model (measured, see above)."""
BYTES_PER_PIECE = 256
"""For each piece of the vocabulary (measured: 45 MiB more for 213,000 more pieces)."""
BYTES_PER_CELL = 64
"""Attention masks and cell bookkeeping (measured: 5 MiB more for 129,000 more cells)."""
BATCH_WIDTHS = 16
"""Activations of one batch, in multiples of batch size times the embedding in f32: rough,
on the safe side for the feed-forward widths of usual models."""


def _layers(value: int | tuple[int, ...] | None, count: int) -> tuple[int, ...] | None:
    """One number for each layer."""
    if value is None:
        return None
    if isinstance(value, int):
        return (value,) * count
    return value if len(value) == count else None


_EVERY_FOURTH = frozenset({"qwen3next", "qwen35", "qwen35moe"})
"""Architectures with a KV cache in every fourth layer if the header does not say: llama.cpp's
default."""


def kv_bytes(header: GgufHeader, context_length: int) -> int | None:
    """Bytes of the KV cache at `context_length`; None if the header lacks something.

    Sum over layers of cells x KV heads x (key length + value length) x 2 bytes. Layers with
    a sliding window count in full, because the adapter makes the engine keep them in full
    (prefix reuse needs it). Models with multi-head latent attention keep keys only. The
    constant state of recurrent layers is not counted.
    """
    blocks = header.block_count
    if blocks is None or blocks > 4096:
        return None
    heads = _layers(header.head_count, blocks)
    kv_heads = _layers(header.head_count_kv, blocks) or heads
    if kv_heads is None:
        return None
    default = None
    if header.embedding_length and heads and max(heads) > 0:
        default = header.embedding_length // max(heads)
    key = header.key_length or default
    value = 0 if header.keys_only else header.value_length or default
    if key is None or value is None:
        return None
    every = header.attention_interval or (4 if header.architecture in _EVERY_FOURTH else 1)
    if isinstance(header.head_count_kv, int) and every > 1:
        main = blocks - header.predicting_layers
        kv_heads = [
            heads if at <= main and at % every == 0 else 0
            for at, heads in enumerate(kv_heads, start=1)
        ]
    cells = -(-context_length // CELL_STEP) * CELL_STEP
    return cells * sum(kv_heads) * (key + value) * BYTES_PER_VALUE


def estimate_memory(
    header: GgufHeader, model_bytes: int, context_length: int, *, batch_tokens: int
) -> MemoryEstimate | None:
    """The memory that a load needs; buffers count with the context."""
    cache = kv_bytes(header, context_length)
    if cache is None:
        return None
    buffers = (
        BASE_BYTES
        + BYTES_PER_PIECE * header.vocabulary_size
        + BYTES_PER_CELL * context_length
        + BATCH_WIDTHS * batch_tokens * 4 * (header.embedding_length or 0)
    )
    return MemoryEstimate(
        context_length=context_length,
        model_bytes=model_bytes,
        context_bytes=cache + buffers,
        available_bytes=available_memory(),
    )


def available_memory(
    proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Bytes that a new process could use now without swapping; None if unknown.

    On Linux the smaller of the kernel's estimate and the rest that the limits of our control
    groups leave (versions 1 and 2). On other systems the free pages, if the system reports
    them: an underestimate, because caches are not counted.
    """
    known = [*_machine(proc), *_group_limits(proc, cgroups)]
    return min(known) if known else _free_pages()


def _machine(proc: Path) -> Iterator[int]:
    for line in _text(proc / "meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if name == "MemAvailable" and words and words[0].isdigit():
            yield int(words[0]) * 1024


def _group_limits(proc: Path, cgroups: Path) -> Iterator[int]:
    """The bytes that each enclosing control group leaves, from ours up to the root."""
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers not in ("", "memory"):
            continue
        root = cgroups / controllers
        limit, usage, inactive = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if controllers
            else ("memory.max", "memory.current", "inactive_file")
        )
        group = root / path.strip().lstrip("/")
        for folder in (group, *group.parents):
            yield from _left(folder, limit, usage, inactive)
            if folder == root:
                break


def _left(folder: Path, limit: str, usage: str, inactive: str) -> Iterator[int]:
    most, used = _text(folder / limit).strip(), _text(folder / usage).strip()
    if not (most.isdigit() and used.isdigit()):  # no limit, or none that we may read
        return
    cached = 0
    for line in _text(folder / "memory.stat").splitlines():
        name, _, number = line.partition(" ")
        if name == inactive and number.strip().isdigit():
            cached = int(number)
    yield max(0, int(most) - max(0, int(used) - cached))


def _free_pages() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows, or a system without these names
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
