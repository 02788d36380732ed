"""The embedded engine as an adapter."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import anyio

from lmstrix.adapters.http import http_client
from lmstrix.adapters.llamacpp import catalogue
from lmstrix.adapters.llamacpp.engine import (
    INSTALL_HINT,
    EngineSettings,
    load_deadline_s,
    running_engine,
)
from lmstrix.adapters.llamacpp.loaded import LlamaCppModel
from lmstrix.adapters.llamacpp.memory import estimate_memory, kv_bytes
from lmstrix.adapters.streaming import spoken_s
from lmstrix.errors import ConfigurationError, EngineTimeout
from lmstrix.locks import THIS_MACHINE
from lmstrix.models import LoadedInstance, LoadProgress, MemoryEstimate, ModelInfo, Status

T = TypeVar("T")

BATCH_TOKENS = 96
"""Tokens read in one step. The engine only stops between steps, and may begin one more after a
cancellation, so two of them bound how long a cancelled prefill goes on. On two cores, a prompt of
3,031 tokens was read as fast as in steps of 64 or 128, and a twentieth slower than in the usual
512."""
SCAN_S = 120.0
"""Deadline for looking through the model folders; a network drive may be slow."""
LOAD_STALL_S = 600.0
"""Longest time that a load may show no sign of work. A measurement has a shorter one,
`MeasureOptions.load_timeout_s`."""
READ_S = 60.0
"""Deadline for reading one model's header."""


class LlamaCppAdapter:
    """A `lmstrix.ports.Adapter` over llama.cpp in a child process, one for each load.

    Args:
        folders: folders with models; by default LM Studio's models folder and the folder
            ``lmstrix/models`` in the user's cache.
        threads: threads that read prompts and write replies; by default the physical cores,
            or fewer if the process is bound to fewer.
        stall_timeout_s: longest silence of a working engine, in seconds; `LlamaCppModel` extends
            it for large models.
        memory_limit_bytes: limit of the child process's address space (not on Windows).
        reuse_prefixes: False reads every prompt from its beginning, as engines without a prefix
            cache do; for comparisons.
    """

    name = "llamacpp"
    turn = THIS_MACHINE
    """Two models at once would compete for its memory."""
    owns_engine = True
    """A load is a child process, and may take this machine down."""

    def __init__(
        self,
        folders: Sequence[str | Path] | None = None,
        *,
        threads: int | None = None,
        stall_timeout_s: float = 120.0,
        memory_limit_bytes: int | None = None,
        reuse_prefixes: bool = True,
    ) -> None:
        if threads is not None and threads < 1:
            raise ConfigurationError(f"threads must be at least 1, got {threads}")
        if not stall_timeout_s > 0:
            raise ConfigurationError(f"stall_timeout_s must be positive, got {stall_timeout_s}")
        if memory_limit_bytes is not None and memory_limit_bytes < 1:
            raise ConfigurationError("memory_limit_bytes must be positive")
        given = catalogue.default_folders() if folders is None else folders
        self._folders = [Path(folder).absolute() for folder in given]
        self._threads = threads
        self._stall_s = stall_timeout_s
        self._memory_limit = memory_limit_bytes
        self._reuse_prefixes = reuse_prefixes
        self._loaded: dict[int, LoadedInstance] = {}

    async def list_models(self) -> Sequence[ModelInfo]:
        """Every model in the folders, sorted by key; raises `EngineUnavailable`."""
        return await _in_thread(lambda: catalogue.list_models(self._folders), SCAN_S)

    async def find_model(self, name: str) -> ModelInfo:
        """The model that `name` means: a key, the last part of one, or a ``.gguf`` file.

        Raises `ModelNotFound`, `InvalidModel` or `UnsupportedModel`.
        """
        return await _in_thread(lambda: catalogue.find_model(self._folders, name), SCAN_S)

    async def estimate_memory(self, model: ModelInfo, context_length: int) -> MemoryEstimate | None:
        """The memory that a load needs, from the file's header; see `memory.kv_bytes`."""

        def estimate() -> MemoryEstimate | None:
            info, header = catalogue.sound_model(model.key, Path(model.path))
            return estimate_memory(
                header, info.size_bytes, context_length, batch_tokens=BATCH_TOKENS
            )

        return await _in_thread(estimate, READ_S)

    @asynccontextmanager
    async def load(
        self,
        model: ModelInfo,
        context_length: int,
        *,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> AsyncGenerator[LlamaCppModel, None]:
        """Load `model` in a process of its own, which ends with the context.

        The engine does not report how far a load is: `on_progress` is called with 0 again and
        again while it works, and with 1 at the end.

        Raises:
            ModelNotFound, InvalidModel, UnsupportedModel: the file has changed.
            LoadFailed, OutOfMemory: the engine could not load it.
            LoadHung: the engine showed no sign of work for ten minutes.
            EngineUnavailable, EngineTimeout: the failure says nothing about the model.
        """
        if context_length < 1:
            raise ConfigurationError(f"context_length must be at least 1, got {context_length}")
        info, header = await _in_thread(
            lambda: catalogue.sound_model(model.key, Path(model.path)), READ_S
        )
        settings = self._engine_settings(info.path, context_length)
        total_bytes = info.size_bytes + (kv_bytes(header, context_length) or 0)
        _report(on_progress, 0.0)
        async with (
            running_engine(
                settings,
                stall_s=LOAD_STALL_S,
                unseen_s=load_deadline_s(total_bytes),
                on_work=lambda: _report(on_progress, 0.0),
            ) as engine,
            http_client(engine.address, engine.api_key) as client,
        ):
            loaded = LlamaCppModel(
                engine,
                client,
                info,
                has_template=header.has_chat_template,
                stall_timeout_s=self._stall_s,
                reuse_prefixes=self._reuse_prefixes,
            )
            await loaded.read_properties()
            _report(on_progress, 1.0)
            self._loaded[engine.pid] = LoadedInstance(
                key=info.key,
                identifier=f"process {engine.pid}",
                context_length=loaded.effective_context,
                ours=True,
            )
            try:
                yield loaded
            finally:
                del self._loaded[engine.pid]

    def _engine_settings(self, path: str, context_length: int) -> EngineSettings:
        return EngineSettings(
            model=path,
            n_ctx=context_length,
            batch_tokens=BATCH_TOKENS,
            threads=self._threads,
            memory_limit_bytes=self._memory_limit,
        )

    async def status(self) -> Status:
        """Whether the engine is installed, and the models that this adapter has loaded."""
        installed = _installed_version()
        return Status(
            adapter=self.name,
            engine="llama.cpp" if installed is None else f"llama.cpp (xllamacpp {installed})",
            available=installed is not None,
            detail="" if installed else "The package xllamacpp is not installed.",
            hint="" if installed else INSTALL_HINT,
            versions={} if installed is None else {"xllamacpp": installed},
            loaded=tuple(self._loaded.values()),
            model_folders=tuple(map(str, self._folders)),
        )


def _installed_version() -> str | None:
    """Without importing it: the engine belongs in the child process alone."""
    try:
        return version("xllamacpp") if find_spec("xllamacpp") is not None else None
    except (PackageNotFoundError, ValueError):
        return None


def _report(listener: Callable[[LoadProgress], None] | None, fraction: float) -> None:
    if listener is not None:
        listener(LoadProgress(fraction=fraction))


async def _in_thread(work: Callable[[], T], deadline_s: float) -> T:
    """Run blocking `work`; past the deadline, or when cancelled, its thread is abandoned."""
    try:
        with anyio.fail_after(deadline_s):
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    except TimeoutError as error:
        raise EngineTimeout(f"reading models took longer than {spoken_s(deadline_s)}") from error
