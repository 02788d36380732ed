"""llama.cpp's llama-server as an adapter: one that runs already, or a build of the user's own."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePath

import anyio
import attrs

from lmstrix.adapters.http import (
    CALL_S,
    KEY_VARIABLE,
    Refusal,
    Server,
    ServerAdapter,
    http_client,
    prediction_error,
    server_address,
)
from lmstrix.adapters.llamacpp.adapter import LlamaCppAdapter
from lmstrix.adapters.llamacpp.engine import EngineSettings
from lmstrix.adapters.llamacpp.loaded import LlamaCppModel
from lmstrix.errors import (
    ConfigurationError,
    EngineUnavailable,
    InfrastructureError,
    LMStrixError,
    LoadFailed,
    LoadHung,
    ModelInUse,
    ModelNotFound,
)
from lmstrix.json_values import Json, as_context, as_count, as_list, as_object, as_text
from lmstrix.models import LoadedInstance, LoadProgress, MemoryEstimate, ModelInfo, Status

DEFAULT_ADDRESSES = ("http://127.0.0.1:8080", "http://127.0.0.1:9931")
"""The port of older builds and that of newer ones."""
START_HINT = (
    "Start it (llama-server -m MODEL.gguf -c 32768 -np 1), or name another one with"
    f" --host HOST:PORT. If it wants an API key, put it into the variable {KEY_VARIABLE}."
)
LOAD_S = 600.0
POLL_S = 0.2
RELEASE_S = 30.0
CANCEL_S = 1.5


def llama_server(
    host: str | None = None,
    *,
    binary: str | None = None,
    server_args: str = "",
    stall_timeout_s: float = 120.0,
    send_key: bool = True,
) -> LlamaServerAdapter | SpawnedServerAdapter:
    """The adapter for a running server, or with `binary` for one that is started for each load."""
    if binary is None:
        if server_args:
            raise ConfigurationError(
                "arguments are for a server that LMStrix starts",
                hint="Name its program with --binary.",
            )
        return LlamaServerAdapter(host, stall_timeout_s=stall_timeout_s, send_key=send_key)
    return SpawnedServerAdapter(binary, server_args, stall_timeout_s=stall_timeout_s)


class LlamaServerAdapter(ServerAdapter):
    """A `lmstrix.ports.Adapter` over a llama-server that runs already.

    Its context was fixed when it was started: a load of more gives what there is. In router mode
    the model asked for is loaded if it is not, and only then unloaded afterwards. Token counts,
    templates and progress are the server's own.

    Args:
        host: ``HOST:PORT`` or URL; by default ``LMSTRIX_HOST``, else port 8080 or 9931 of this
            machine, whichever answers.
        stall_timeout_s: longest silence of a working server, in seconds; more for large models.
        send_key: send the server the key in ``LMSTRIX_API_KEY``.
    """

    name = engine = "llama-server"
    fixes_context = True
    """It was started with one, and a router has it in the model's preset."""

    def __init__(
        self, host: str | None = None, *, stall_timeout_s: float = 120.0, send_key: bool = True
    ) -> None:
        given = server_address(host, "")
        super().__init__(given or DEFAULT_ADDRESSES[0])

        def servers(*, send_key: bool) -> list[Server]:
            return [
                Server(
                    address,
                    name=self.engine,
                    hint=START_HINT,
                    stall_s=stall_timeout_s,
                    send_key=send_key,
                )
                for address in ([given] if given else DEFAULT_ADDRESSES)
            ]

        self._servers = servers(send_key=send_key)
        # Anything may listen at the usual ports: nothing is sent the key before it is known.
        self._asked = self._servers if given else servers(send_key=False)
        self._found: Server | None = None
        self._users: set[str] = set()
        """A router's models that the user had loaded."""
        self._ending: set[str] = set()
        """What was unloaded here, as far as it was not seen to be gone."""
        self._stall_s = stall_timeout_s

    async def list_models(self) -> Sequence[ModelInfo]:
        """The model that is served, or those of a router; raises an `InfrastructureError`."""
        listed = await self._listed()
        if len(listed) == 1 and "status" not in listed[0][1]:  # one model, under any name (`-a`)
            model = listed[0][0]
            try:
                told = await (await self._server()).call("GET", "/props", busy_s=0)
            except EngineUnavailable as error:
                if type(error) is not EngineUnavailable:
                    raise
                return [model]  # it tells nobody without its key
            return [_identified(model, as_text(told.get("model_path")))]
        found = {model.key: model for model, _ in listed}
        return [found[key] for key in sorted(found)]

    @asynccontextmanager
    async def load(
        self,
        model: ModelInfo,
        context_length: int,
        *,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> AsyncGenerator[LlamaCppModel, None]:
        """The model as it is served, with the context of one slot.

        Raises:
            ModelNotFound: the server serves another one now.
            LoadFailed, LoadHung: a router did not load it.
            EngineUnavailable, EngineTimeout: the server does not answer.
        """
        if context_length < 1:
            raise ConfigurationError(f"context_length must be at least 1, got {context_length}")
        served = {found.key: entry for found, entry in await self._listed()}
        if model.key not in served:
            raise ModelNotFound(f"llama-server does not serve {model.key!r} any more")
        routed = as_text(served[model.key].get("id")) if "status" in served[model.key] else ""
        server = await self._server()
        release_s, mine = CANCEL_S, False
        try:
            state = _state(served[model.key]) if routed else "loaded"
            if routed in self._ending:  # ours still, from an earlier load
                state = await self._wait_unloaded(routed)
            if state not in LOADED:
                if state != "loading":  # by somebody else
                    await self._refuse_to_evict(server, routed)
                    mine = routed not in self._users  # it may have died since
                    mine = await self._load_routed(server, routed) and mine
                await self._wait_routed(routed, on_progress)
                # A router tells the facts of a model only while it runs.
                told = {entry.get("id"): found for found, entry in await self._listed()}
                model = attrs.evolve(told.get(routed, model), key=model.key)
            if routed and not mine and routed not in self._ending:
                self._users.add(routed)
            async with http_client(server.address, server.key) as client:
                loaded = LlamaCppModel(
                    None, client, model, routed=routed, stall_timeout_s=self._stall_s
                )
                properties = await loaded.read_properties()
                loaded.notes = _notes(model, properties, loaded.effective_context)
                self._notes |= dict.fromkeys(loaded.notes)
                if on_progress is not None:
                    on_progress(LoadProgress(fraction=1.0))
                async with self._listed_as_ours(model, loaded.effective_context):
                    yield loaded
            release_s = RELEASE_S
        except Exception:
            release_s = RELEASE_S
            raise
        finally:
            if mine:
                self._ending.add(routed)
                with anyio.move_on_after(release_s, shield=True), suppress(LMStrixError):
                    await self._unload_routed(server, routed)
                    await self._wait_unloaded(routed)

    async def _state(self) -> tuple[str, Mapping[str, str], Sequence[LoadedInstance]]:
        server = await self._server()
        listed = await self._listed()
        properties = await server.call("GET", "/props", busy_s=0)
        context = as_context(as_object(properties.get("default_generation_settings")).get("n_ctx"))
        # A server that was started with another context gives other results.
        told = {"llama-server": as_text(properties.get("build_info")), "context": context or ""}
        users = [
            LoadedInstance(key=model.key, identifier=model.key, context_length=context)
            for model, entry in listed
            if _state(entry) in LOADED
        ]
        versions = {name: str(text) for name, text in told.items()}
        return server.address, versions, [*users, *self._loaded.values()]

    async def _server(self) -> Server:
        """The server that answers; looked for once."""
        if self._found is None:
            *others, asked = self._asked
            for server in reversed(others):
                if await _is_llama_server(server):
                    asked = server
            try:
                await asked.call("GET", "/health", deadline_s=10, busy_s=LOAD_S)
            except EngineUnavailable as error:
                if type(error) is not EngineUnavailable or asked in others:
                    raise
                nor = "".join(f", nor at {server.address}" for server in others)
                raise EngineUnavailable(f"{error}{nor}", hint=error.hint) from error
            if others and asked not in others and not await _is_llama_server(asked):
                raise EngineUnavailable(
                    f"another program than llama-server answers at {asked.address}", hint=START_HINT
                )
            self._found = self._servers[self._asked.index(asked)]
        return self._found

    async def _listed(self) -> list[tuple[ModelInfo, Json]]:
        listed = (await (await self._server()).call("GET", "/v1/models", busy_s=10)).get("data")
        entries = map(as_object, as_list(listed))
        return [(_model(entry), entry) for entry in entries if as_text(entry.get("id"))]

    async def _load_routed(self, server: Server, routed: str) -> bool:
        """Let a router load `routed`. False if somebody else did meanwhile."""
        try:
            await server.call("POST", "/models/load", {"model": routed}, classify=_load_error)
        except LoadFailed as error:
            if not _RUNS_ALREADY.search(str(error)):
                raise
            return False
        return True

    async def _unload_routed(self, server: Server, routed: str) -> None:
        """Let a router unload `routed`. A request that may not have arrived is sent again."""
        try:
            await server.call("POST", "/models/unload", {"model": routed})
        except InfrastructureError:
            await server.call("POST", "/models/unload", {"model": routed})

    async def _refuse_to_evict(self, server: Server, routed: str) -> None:
        """Raises `ModelInUse` if the router would unload another model for `routed`."""
        most = as_count((await server.call("GET", "/props")).get("max_instances")) or 0
        running = [m.key for m, e in await self._listed() if _state(e) in {*LOADED, "loading"}]
        if 0 < most <= len(running):
            raise ModelInUse(
                f"llama-server runs {len(running)} of at most {most} models, and would unload one"
                f" to load {routed!r}",
                hint=f"Unload one first: {', '.join(running)}.",
            )

    async def _wait_routed(
        self, routed: str, on_progress: Callable[[LoadProgress], None] | None
    ) -> None:
        """Until the router has loaded `routed`. It does not say how far it is."""
        with anyio.move_on_after(LOAD_S):
            while (state := await self._state_of(routed)) not in LOADED:
                if state not in {"loading", "unloaded", "downloading"}:
                    raise LoadFailed(f"the router could not load {routed!r}: {state or 'gone'}")
                if on_progress is not None and state != "unloaded":
                    on_progress(LoadProgress(fraction=0.0))
                await anyio.sleep(POLL_S)
            return
        raise LoadHung(f"the router did not load {routed!r} within {LOAD_S:.0f} s")

    async def _wait_unloaded(self, routed: str) -> str:
        """Until the router does not run `routed` any more: a request would load it again. Its
        state then; `RELEASE_S` at most.
        """
        state = ""
        with anyio.move_on_after(RELEASE_S):
            while (  # noqa: ASYNC110 - a router does not announce it
                state := await self._state_of(routed)
            ) in {*LOADED, "loading"}:
                await anyio.sleep(POLL_S)
            self._ending.discard(routed)
        return state

    async def _state_of(self, routed: str) -> str:
        """What the router does with a model: its state, ``failed``, or empty if it is gone."""
        entries = [entry for _, entry in await self._listed() if entry.get("id") == routed]
        entry: Json = entries[0] if entries else {}
        return "failed" if as_object(entry.get("status")).get("failed") else _state(entry)


_RUNS_ALREADY = re.compile(r"already (?:running|load(?:ed|ing))", re.IGNORECASE)
LOADED = frozenset({"loaded", "sleeping"})
"""States of a router's model that answers: a sleeping one wakes up at a request."""
RESERVED = frozenset(
    "-c --ctx-size -np --parallel --fit -fit --host --port -m --model --api-key --api-key-file"
    " --models-dir --models-preset".split()
)
"""Arguments that LMStrix sets."""


class SpawnedServerAdapter(LlamaCppAdapter):
    """A `lmstrix.ports.Adapter` that runs the user's llama-server, one process for each load.

    Args:
        binary: the program.
        server_args: more arguments for it, as in a shell: ``-ngl 99 -fa on -ctk q8_0``. They are
            part of what a result is stored under.
        folders: folders with models; see `LlamaCppAdapter`.
        stall_timeout_s: longest silence of a working server, in seconds.

    Raises `ConfigurationError` for a program that is not there, and for arguments that LMStrix
    sets itself.
    """

    name = "llama-server"

    def __init__(
        self,
        binary: str,
        server_args: str = "",
        *,
        folders: Sequence[str | Path] | None = None,
        stall_timeout_s: float = 120.0,
    ) -> None:
        super().__init__(folders, stall_timeout_s=stall_timeout_s)
        path = Path(binary).expanduser()
        # Only a bare name is looked for on the PATH.
        found = shutil.which(binary if path.name == binary else path.absolute())
        if found is None:
            raise ConfigurationError(f"{binary!r} is not a program that can be run")
        try:
            self._arguments = tuple(shlex.split(server_args))
        except ValueError as error:
            raise ConfigurationError(f"the server's arguments cannot be read: {error}") from error
        taken = sorted(RESERVED & {word.partition("=")[0] for word in self._arguments})
        if taken:
            raise ConfigurationError(
                f"LMStrix sets these arguments of llama-server itself: {', '.join(taken)}"
            )
        self._binary = str(Path(found).absolute())

    async def estimate_memory(self, model: ModelInfo, context_length: int) -> MemoryEstimate | None:
        """What a load needs. How much of that is on a GPU, and what is free there, is not known."""
        estimate = await super().estimate_memory(model, context_length)
        return None if estimate is None else attrs.evolve(estimate, available_bytes=None)

    async def status(self) -> Status:
        """The program's version, its arguments, and the models that this adapter has loaded."""
        status = await super().status()
        available, version = True, ""
        try:
            with anyio.fail_after(CALL_S):
                told = await anyio.run_process([self._binary, "--version"], check=False)
            words = (told.stdout + told.stderr).decode("utf-8", "replace")
            version = next((line for line in words.splitlines() if "version" in line), "")[:200]
        except (OSError, TimeoutError):
            available = False
        arguments = shlex.join(self._arguments)
        return attrs.evolve(
            status,
            engine="llama-server",
            available=available,
            detail="" if available else f"{self._binary} cannot be run.",
            hint="",
            versions={"llama-server": version} if version else {},
            load_config={"arguments": arguments} if arguments else {},
        )

    def _engine_settings(self, path: str, context_length: int) -> EngineSettings:
        return attrs.evolve(
            super()._engine_settings(path, context_length),
            binary=self._binary,
            arguments=self._arguments,
        )


async def _is_llama_server(server: Server) -> bool:
    """Whether llama-server answers there, and not another program that has its usual port."""
    try:
        told = await server.call("GET", "/props", deadline_s=10, busy_s=0)
    except LMStrixError as error:  # it may load its model, or want a key
        return bool(re.search("loading model|api key", str(error), re.IGNORECASE))
    return not _PROPERTIES.isdisjoint(told)


_PROPERTIES = frozenset({"default_generation_settings", "build_info", "role"})


def _model(entry: Json) -> ModelInfo:
    """The model of an entry of ``/v1/models``; a path is called by its file."""
    name, meta = as_text(entry.get("id")), as_object(entry.get("meta"))
    # A router tells them only while the model is loaded.
    known = () if "status" in entry else ("n_params", "size", "ftype", "n_vocab")
    facts = [name, *map(meta.get, known)]
    preset = as_text(as_object(entry.get("status")).get("preset"))
    model = ModelInfo(
        key=PurePath(name).stem if name.endswith(".gguf") else name,
        format="gguf",
        size_bytes=as_count(meta.get("size")) or 0,
        declared_context=as_context(meta.get("n_ctx_train")),
        quantization=as_text(meta.get("ftype")),
        digest=_digest(facts),
        # A router's settings for it, in a text that may hold secrets.
        load_config={"preset": _digest([preset])[:12]} if preset else {},
    )
    return _identified(model, as_text(entry.get("path")))


def _identified(model: ModelInfo, path: str) -> ModelInfo:
    """`model` as that of the file `path`, if the server tells it: under the same name there may be
    another one.
    """
    return attrs.evolve(model, digest=_digest([model.digest, path])) if path else model


def _digest(facts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:32]


def _notes(model: ModelInfo, properties: Json, context: int) -> list[str]:
    """Why the context is what it is."""
    notes: list[str] = []
    declared, slots = model.declared_context, as_count(properties.get("total_slots")) or 1
    if slots > 1 and (declared is None or context < declared):
        notes.append(
            f"llama-server has {slots} slots, of which each takes {context:,} tokens: unless they"
            " share one cache (--kv-unified), one prompt gets all of its context with -np 1."
        )
    elif declared is not None and context < declared:
        notes.append(
            f"llama-server was started with -c {context}; the model declares {declared:,}."
        )
    return notes


def _state(entry: Json) -> str:
    """Whether a model is loaded; one without a router is."""
    return as_text(as_object(entry.get("status")).get("value")) or "loaded"


def _load_error(refusal: Refusal) -> LMStrixError:
    if refusal.status in (400, 500):
        return LoadFailed(f"the router could not load the model: {refusal.words}")
    return prediction_error(refusal)
