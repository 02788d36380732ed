"""Ollama as an adapter, over its own API: the one under ``/v1`` drops the context length."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import anyio
import attrs

from lmstrix.adapters.counted import CountedModel
from lmstrix.adapters.http import (
    BUSY_S,
    MEMORY_WORDS,
    Refusal,
    Server,
    ServerAdapter,
    at_work,
    prediction_error,
    server_address,
    trouble,
)
from lmstrix.adapters.streaming import Generation, Items, chat_messages, replied
from lmstrix.errors import (
    ConfigurationError,
    ConnectionLost,
    EngineCrashed,
    EngineTimeout,
    EngineUnavailable,
    LMStrixError,
    LoadFailed,
    LoadHung,
    LoadRefused,
    ModelInUse,
    ModelNotFound,
    OutOfMemory,
    PredictionError,
    UnsupportedModel,
)
from lmstrix.json_values import (
    MAX_RATE,
    Json,
    as_context,
    as_count,
    as_list,
    as_object,
    as_seconds,
    as_text,
    read_object,
)
from lmstrix.locks import runs, turns_folder
from lmstrix.models import (
    LoadedInstance,
    LoadProgress,
    ModelInfo,
    PrefillProgress,
    Prompt,
    Reply,
    ReplyChunk,
    StopReason,
)

DEFAULT_ADDRESS = "http://127.0.0.1:11434"
START_HINT = "Start Ollama (ollama serve), or name another server with --host HOST:PORT."

KEEP_S = 600
"""If this process dies, Ollama unloads the model after so many idle seconds."""
REFRESH_S = 60.0
"""How often the record says that a model of ours is in use."""
LOAD_S = 300.0
LOAD_BYTES_PER_S = 16 * 2**20
"""Slower than any disk that one would keep models on."""
RELEASE_S = 30.0
CANCEL_S = 1.5
"""Longest time for a release: after a good end, and after a cancellation."""
POLL_S = 0.1
REPEATED = 30
"""Ollama breaks a reply off after so many times the same token."""
MOST_RECORD_BYTES = 65536
FIXED = {
    "temperature": 0,
    "top_k": 1,
    "top_p": 1.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "seed": 1,
}
"""A model may bring settings of its own; penalties would punish repeating a fact of the prompt."""
_STOP_REASONS = {"stop": StopReason.END, "length": StopReason.MAX_TOKENS}
_REFUSED = re.compile(r"requires more (?:system )?memory", re.IGNORECASE)
_WEIGHTS = re.compile(r"^FROM .*(sha256-[0-9a-f]{64})\"?\s*$", re.MULTILINE)
_HUNG = re.compile(r"timed out waiting", re.IGNORECASE)
_REPEATS = re.compile(r"token repeat limit", re.IGNORECASE)


def ollama_host() -> str:
    """The address in ``OLLAMA_HOST``, read as Ollama's own commands read it; empty without one.

    Each part may be missing. A server that listens at every address is asked on this machine.
    """
    scheme, _, rest = os.environ.get("OLLAMA_HOST", "").strip(" \"'").rpartition("://")
    place, _, path = rest.partition("/")
    if not rest or scheme not in {"", "http", "https"} or set(rest) & set("?#@\\% "):
        return ""
    name, colon, port = place.rpartition(":")
    try:
        name, port = str(ip_address(place.strip("[]"))), ""
    except ValueError:
        name = (name if colon else place).strip("[]") or "127.0.0.1"
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104 - read, not bound
    usual = {"http": 80, "https": 443}.get(scheme, 11434)
    number = int(port) if port.isdecimal() and int(port) < 65536 else usual
    where = f"[{name}]" if ":" in name else name
    return f"{scheme or 'http'}://{where}:{number}/{path}".rstrip("/")


class OllamaAdapter(ServerAdapter):
    """A `lmstrix.ports.Adapter` over Ollama's server. Runs on asyncio and on trio.

    Prompts are sent as chats whose last message is the beginning of the answer, the same for all
    models; a model that thinks is told not to if there is one. Every request forbids Ollama to
    cut a prompt, and the counts tell if it does so nevertheless.

    Ollama holds one instance of a model, so loading another context replaces the user's: the load
    is refused with `ModelInUse`, unless `force`; then the user's context is loaded again at the
    end. So is another model that Ollama unloads to make room. A model that a killed process of ours
    left loaded is taken over.

    Args:
        host: ``HOST:PORT`` or URL; by default ``LMSTRIX_HOST``, else ``OLLAMA_HOST``, else port
            11434 of this machine.
        stall_timeout_s: longest silence of a working engine, in seconds; more for long prompts.
        load_s: longest time of a load, in seconds; by default five minutes, more for large files.
        busy_s: how long to wait for a server that says that it is busy, in seconds.
        force: replace a model that the user has loaded.
        send_key: send the server the key in ``LMSTRIX_API_KEY``.
    """

    name = "ollama"
    engine = "Ollama"

    def __init__(
        self,
        host: str | None = None,
        *,
        stall_timeout_s: float = 120.0,
        load_s: float | None = None,
        busy_s: float = BUSY_S,
        force: bool = False,
        send_key: bool = True,
    ) -> None:
        address = server_address(host, ollama_host() or DEFAULT_ADDRESS)
        super().__init__(address)
        self._server = Server(
            address,
            name=self.engine,
            hint=START_HINT,
            stall_s=stall_timeout_s,
            busy_s=busy_s,
            send_key=send_key,
        )
        self._load_s = load_s
        self._force = force
        self._record = _Record(address.replace("//localhost:", "//127.0.0.1:"))
        self._ours: dict[str, int] = {}
        self._left: dict[str, int | None] = {}
        """What could not be unloaded yet, with its context if that is known."""
        self._replaced: dict[str, _Running] = {}
        """What the user had loaded, and is not loaded again yet."""

    async def list_models(self) -> Sequence[ModelInfo]:
        """Every model that Ollama lists, sorted by key; raises an `InfrastructureError`."""
        listed = as_list((await self._server.call("GET", "/api/tags")).get("models"))
        found: dict[str, ModelInfo] = {}
        for entry in map(as_object, listed):
            if key := as_text(entry.get("name")) or as_text(entry.get("model")):
                found.setdefault(key, await self._described(key, entry))
        return [found[key] for key in sorted(found)]

    @asynccontextmanager
    async def load(  # noqa: C901 - each step with what undoes it
        self,
        model: ModelInfo,
        context_length: int,
        *,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> AsyncGenerator[CountedModel, None]:
        """Load `model` with a context; it is unloaded afterwards. No progress is known.

        Raises:
            ModelInUse: the user has loaded it.
            ModelNotFound, UnsupportedModel, LoadRefused, LoadFailed, OutOfMemory: what Ollama said.
            LoadHung: it did not load in time.
            EngineUnavailable, EngineTimeout: nothing is known about the model.
        """
        if context_length < 1:
            raise ConfigurationError(f"context_length must be at least 1, got {context_length}")
        if model.key in self._ours:
            raise LoadRefused(f"{model.key!r} is loaded already, and Ollama holds it only once")
        others = await self._users_own()
        users = await self._same(model.key, others)
        if users is not None:
            self._check_replacing(users, model)
            del others[users.key]
        loaded: CountedModel | None = None
        interrupted = False
        self._ours[model.key] = context_length
        self._record.add(model.key, context_length)
        try:
            if users is not None and users.key != model.key:
                await self._unload(users.key)
            await at_work(partial(self._load, model, context_length), on_progress)
            context = await self._effective(model.key)
            while loaded is None or context < loaded.effective_context:
                self._ours[model.key] = context
                self._record.add(model.key, context)
                loaded = self._model(model, context_length, context)
                try:
                    await at_work(loaded.learn, on_progress)
                except EngineCrashed as error:
                    kind = OutOfMemory if MEMORY_WORDS.search(str(error)) else LoadFailed
                    raise kind(f"at its first prompt, {error}") from error
                context = await self._effective(model.key)  # a smaller one may be told late
            await self._note_unloaded(others, model.key)
            if on_progress is not None:
                on_progress(LoadProgress(fraction=1.0))
            yield loaded
        except BaseException as error:
            interrupted = not isinstance(error, Exception)
            if loaded is None and not interrupted:
                with suppress(LMStrixError):
                    await self._note_unloaded(others, model.key)
            raise
        finally:
            if loaded is not None:
                loaded.release()
            given = None if loaded is None else loaded.effective_context
            await self._release(model.key, given, users, interrupted=interrupted)

    def _check_replacing(self, users: _Running, model: ModelInfo) -> None:
        """Raises `ModelInUse` unless what the user has loaded may be replaced by `model`."""
        hint = f"Unload it first: ollama stop {users.key}."
        if not users.context:
            raise ModelInUse(
                f"{users.key!r} is loaded in Ollama already, and not by LMStrix; this version does"
                " not say with which context, so it could not be loaded again as it was",
                hint=f"{hint} Or update Ollama.",
            )
        if not self._force:
            same = f" (the same weights as {model.key!r})" if users.key != model.key else ""
            raise ModelInUse(
                f"{users.key!r}{same} is loaded in Ollama already, and not by LMStrix, with"
                f" {users.context:,} tokens; another context would replace it",
                hint=f"{hint} `lmstrix test` and `lmstrix map` replace it with --force, and load it"
                " again afterwards.",
            )

    async def _state(self) -> tuple[str, Mapping[str, str], Sequence[LoadedInstance]]:
        version = await self._server.call("GET", "/api/version", busy_s=0)
        loaded = [
            LoadedInstance(
                key=key,
                identifier=key,
                context_length=one.context,
                ours=key in self._ours or key in self._left,
            )
            for key, one in (await self._running()).items()
        ]
        return self._address, {"Ollama": as_text(version.get("version"))}, loaded

    async def aclose(self) -> None:
        """Unload what had to be left behind, and load what was replaced and could not be loaded
        again yet, if Ollama answers; nothing else is held.
        """
        try:
            if self._left:
                with anyio.move_on_after(RELEASE_S), suppress(LMStrixError):
                    await self._running()
            for key in sorted(self._left):
                with anyio.move_on_after(RELEASE_S), suppress(LMStrixError):
                    await self._unload(key)
            for users in tuple(self._replaced.values()):
                with anyio.move_on_after(LOAD_S), suppress(LMStrixError):
                    if not users.is_kept():  # it would have been unloaded by now
                        del self._replaced[users.key]
                    elif await self._same(users.key, await self._running()) is None:
                        await self._restore(users)
                    else:  # somebody has loaded it since
                        del self._replaced[users.key]
        finally:
            for users in self._replaced.values():
                self._note(
                    f"Ollama had {users.key} loaded with {users.context:,} tokens, and LMStrix"
                    " could not load it again in time. Load it again yourself."
                )

    # Models.

    async def _described(self, key: str, entry: Json) -> ModelInfo:
        """The model of one entry in the list; it declares no context if Ollama does not tell."""
        told: Json = {}
        with suppress(LMStrixError):
            told = await self._server.call("POST", "/api/show", {"model": key}, busy_s=0)
        details, info = as_object(entry.get("details")), as_object(told.get("model_info"))
        architecture = as_text(info.get("general.architecture")) or as_text(details.get("family"))
        capabilities = as_list(told.get("capabilities"))
        kind = "llm" if "completion" in capabilities or not capabilities else "embedding"
        if entry.get("remote_host") or entry.get("remote_model"):
            kind = "remote"
        return ModelInfo(
            key=key,
            format=as_text(details.get("format")),
            architecture=architecture,
            size_bytes=as_count(entry.get("size")) or 0,
            declared_context=as_context(info.get(f"{architecture}.context_length")),
            parameters=as_text(details.get("parameter_size")),
            quantization=as_text(details.get("quantization_level")),
            type=kind,
            digest=as_text(entry.get("digest")),
        )

    # Instances.

    async def _running(self) -> dict[str, _Running]:
        """What is loaded. Raises `EngineUnavailable` if that is not a list: nobody may take it for
        "nothing is loaded".
        """
        models = (await self._server.call("GET", "/api/ps")).get("models")
        if not isinstance(models, list):
            raise EngineUnavailable("Ollama's answer is not a list of loaded models")
        running: dict[str, _Running] = {}
        for entry in map(as_object, cast("list[object]", models)):
            key = as_text(entry.get("name")) or as_text(entry.get("model"))
            running[key] = _Running(
                key=key,
                context=as_context(entry.get("context_length")) or 0,
                expires_at=as_text(entry.get("expires_at")),
            )
        self._record.keep(running)
        for key, context in list(self._left.items()):
            # Gone, or replaced by somebody else's.
            if key not in running or context not in (None, running[key].context):
                del self._left[key]
        return running

    async def _users_own(self) -> dict[str, _Running]:
        """What is loaded and is not ours."""
        return {
            name: running
            for name, running in (await self._running()).items()
            if name not in self._ours
            and name not in self._left
            and not self._record.is_orphan(name, running.context)
        }

    async def _note_unloaded(self, others: Mapping[str, _Running], key: str) -> None:
        """Remember what Ollama has unloaded for `key`, of `others` that the user had loaded."""
        running = await self._running()
        for name, one in others.items():
            if name not in running and one.context and one.is_kept():
                self._replaced[name] = one
                self._note(
                    f"Ollama unloaded {name} to load {key}. It is loaded again at the end, for what"
                    " is left of its time."
                )

    async def _same(self, key: str, loaded: Mapping[str, _Running]) -> _Running | None:
        """What is `key` among the loaded models, or has the same weights, of which Ollama holds
        only one.
        """
        weights = ""
        for name, running in loaded.items():
            if name == key:
                return running
            weights = weights or await self._weights(key)
            if weights and await self._weights(name) == weights:
                return running
        return None

    async def _weights(self, key: str) -> str:
        """The file that holds the weights of `key`; empty if Ollama does not tell."""
        told: Json = {}
        with suppress(LMStrixError):
            told = await self._server.call("POST", "/api/show", {"model": key}, busy_s=0)
        found = _WEIGHTS.search(as_text(told.get("modelfile")))
        return found[1] if found else ""

    async def _load(self, model: ModelInfo, context_length: int) -> None:
        patience_s = self._load_s or LOAD_S + model.size_bytes / LOAD_BYTES_PER_S
        try:
            await self._server.call(
                "POST",
                "/api/generate",
                _request(model.key, context_length) | {"stream": False},
                deadline_s=patience_s,
                classify=_load_error,
            )
        except EngineTimeout as error:
            raise LoadHung(f"the model did not load within {patience_s:.0f} s") from error

    async def _effective(self, key: str) -> int:
        """The context that Ollama reports for the loaded model."""
        running = (await self._running()).get(key)
        if running is None or not running.context:
            raise EngineUnavailable(
                "Ollama does not report the context length of the loaded model",
                hint="Update Ollama: versions from late 2025 on report it.",
            )
        return running.context

    async def _release(
        self, key: str, given: int | None, users: _Running | None, *, interrupted: bool
    ) -> None:
        """Unload `key`, and load the user's own context again if it was replaced.

        If another context than the `given` one is loaded, somebody else has replaced ours.
        """
        self._left[key] = given
        self._ours.pop(key, None)
        # A context manager that is left by a cancellation may end as if nothing had happened.
        interrupted |= anyio.current_effective_deadline() == -math.inf
        seconds = CANCEL_S if interrupted else RELEASE_S
        if users is not None:
            self._replaced[users.key] = users
        with anyio.move_on_after(seconds, shield=True) as scope, suppress(LMStrixError):
            running = None
            # Unloaded also if the server does not say what is loaded.
            with anyio.move_on_after(seconds / 3), suppress(LMStrixError):
                running = (await self._running()).get(key)
            if running is not None and given is not None and running.context != given:
                self._record.remove(key)
                if users is not None:
                    self._replaced.pop(users.key, None)
                return
            await self._unload(key)
            if users is not None and not interrupted:
                scope.deadline, scope.shield = anyio.current_time() + LOAD_S, False
                await self._restore(users)

    async def _restore(self, users: _Running) -> None:
        """Load the user's own context again, for what was left of its time."""
        # Not what our own requests say: at the user's next one, Ollama would load it once more.
        body = {
            "model": users.key,
            "stream": False,
            "keep_alive": users.keep_s(),
            "options": {"num_ctx": users.context},
        }
        try:
            await self._server.call("POST", "/api/generate", body, deadline_s=LOAD_S)
        except PredictionError:  # an embedding model writes nothing; an empty input loads it
            await self._server.call("POST", "/api/embed", body | {"input": ""}, deadline_s=LOAD_S)
        del self._replaced[users.key]

    async def _unload(self, key: str) -> None:
        """Unload `key`, and wait until it is gone."""
        body = {"model": key, "keep_alive": 0, "stream": False}
        with suppress(ModelNotFound):
            await self._server.call("POST", "/api/generate", body, busy_s=5)
        while key in await self._running():  # noqa: ASYNC110 - Ollama does not announce it
            await anyio.sleep(POLL_S)
        self._left.pop(key, None)
        self._record.remove(key)

    # Replies.

    def _model(self, model: ModelInfo, asked_context: int, context: int) -> CountedModel:
        thinks: list[bool] = []

        async def ask(prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> Items:
            if not thinks:
                told = await self._server.call("POST", "/api/show", {"model": model.key})
                thinks.append("thinking" in as_list(told.get("capabilities")))
            self._record.refresh(model.key, context)
            body = _chat(model.key, asked_context, prompt, max_tokens, stop)
            if thinks[0] and prompt.answer_prefix:
                body["think"] = False
            generation = _Generation(max_tokens, stopped=bool(stop))
            events = _but_repeats(self._server.events("/api/chat", body))
            async with aclosing(replied(events, generation)) as items:
                async for item in items:
                    yield item

        return CountedModel(model, context, ask, note=self._note)


async def _but_repeats(
    events: AsyncGenerator[tuple[Json, float], None],
) -> AsyncGenerator[tuple[Json, float], None]:
    """`events`, which end where newer versions say that a reply repeats one token."""
    async with aclosing(events):
        try:
            async for event in events:
                yield event
        except ConnectionLost as error:
            if not _REPEATS.search(str(error)):
                raise


class _Generation(Generation):
    """One reply as it arrives in lines of JSON."""

    def __init__(self, max_tokens: int, *, stopped: bool) -> None:
        super().__init__(prompt_tokens=None, max_tokens=max_tokens, in_thought=False)
        self._stopped = stopped
        self._piece, self._repeated, self._written_pieces = "", 0, 0
        """The last piece without blanks, how often it came in a row, and all pieces."""

    def _facts(self, event: Json, elapsed_s: float) -> list[PrefillProgress | ReplyChunk]:
        message, done = as_object(event.get("message")), event.get("done") is True
        thought, content = message.get("thinking"), message.get("content")
        if written := as_text(content) or as_text(thought):
            self._written_pieces += 1
            self._repeated = self._repeated + 1 if written.strip() == self._piece else 1
            self._piece = written.strip()
        pieces = self._thought(thought, elapsed_s)
        pieces += self._answer(content if isinstance(content, str) else "", elapsed_s)
        said = self._said(pieces + self._splitter.finish() if done else pieces)
        if done:
            self.reply = self._finished(event, elapsed_s)
        return said

    def end(self) -> list[ReplyChunk]:
        """Ollama breaks off a reply that repeats one token, without its last line."""
        if self._repeated < REPEATED:
            return []
        rest = self._splitter.finish()
        self._said(rest)
        self.reply = Reply(
            text=self._text(reasoning=False),
            reasoning=self._text(reasoning=True),
            stop_reason=StopReason.UNKNOWN,
            prompt_tokens=0,
            generated_tokens=self._written_pieces,
            ttft_s=self._ttft_s,
        )
        return rest

    def _finished(self, event: Json, elapsed_s: float) -> Reply:
        generated = as_count(event.get("eval_count")) or 0
        spent_s = (as_seconds(event.get("eval_duration")) or 0.0) / 1e9
        speed = generated / spent_s if generated > 1 and spent_s else None
        reason = _STOP_REASONS.get(as_text(event.get("done_reason")), StopReason.UNKNOWN)
        if reason is StopReason.END and self._stopped and generated:
            # Ollama gives both the same reason. After a stop string nothing is different either.
            reason = StopReason.STOP_STRING
        return Reply(
            text=self._text(reasoning=False),
            reasoning=self._text(reasoning=True),
            stop_reason=reason,
            prompt_tokens=as_count(event.get("prompt_eval_count")) or 0,
            cached_tokens=as_count(event.get("prompt_eval_cached_count")),
            generated_tokens=generated,
            ttft_s=self._ttft_s or elapsed_s,
            tokens_per_second=speed if speed and speed <= MAX_RATE else None,
        )


@attrs.frozen(kw_only=True)
class _Running:
    """A loaded model: its context (0: not told), and when Ollama unloads it."""

    key: str
    context: int
    expires_at: str

    def keep_s(self) -> int:
        """Seconds until it expires; -1 for never, `KEEP_S` if that is not told."""
        try:
            at = datetime.fromisoformat(self.expires_at)
            left = (at - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return KEEP_S
        return -1 if left > 365 * 86400 else max(1, round(left))

    def is_kept(self) -> bool:
        """Whether Ollama would still keep it, had nothing unloaded it."""
        return self.keep_s() != 1


class _Record:
    """The models that processes of ours have loaded in one Ollama, in a file.

    It tells what a killed process left from what the user has loaded. A file that cannot be
    written costs no more than that.
    """

    def __init__(self, address: str) -> None:
        digest = hashlib.sha256(address.encode()).hexdigest()[:32]
        self._file = turns_folder() / f"ollama-{digest}.json"
        self._used_s = -math.inf

    def is_orphan(self, key: str, context: int) -> bool:
        """Whether a process that has ended loaded `key` with `context`, not so long ago that Ollama
        must have unloaded it since.
        """
        entry = as_object(self._read().get(key))
        pid = as_count(entry.get("pid")) or 0
        used_s = time.time() - (as_seconds(entry.get("used")) or 0.0)
        known = entry.get("context") == context and used_s < 2 * KEEP_S
        return known and (pid == os.getpid() or not runs(pid))

    def add(self, key: str, context: int) -> None:
        """This process has loaded `key`, or uses it."""
        self._used_s = time.monotonic()
        entry = {"context": context, "pid": os.getpid(), "used": round(time.time())}
        self._write({**self._read(), key: entry})

    def refresh(self, key: str, context: int) -> None:
        """The same, if it is a while ago that this was written."""
        if time.monotonic() > self._used_s + REFRESH_S:
            self.add(key, context)

    def keep(self, running: Mapping[str, object]) -> None:
        """Forget what is not loaded any more, unless a process still runs that may load it."""
        known = self._read()
        kept = {
            key: entry
            for key, entry in known.items()
            if key in running or runs(as_count(as_object(entry).get("pid")) or 0)
        }
        if len(kept) < len(known):
            self._write(kept)

    def remove(self, key: str) -> None:
        """This process has unloaded `key`."""
        self._write({name: entry for name, entry in self._read().items() if name != key})

    def _read(self) -> Json:
        return read_object(self._file, MOST_RECORD_BYTES)

    def _write(self, entries: Json) -> None:
        with suppress(OSError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            written = Path(f"{self._file}.{os.getpid()}")
            written.write_text(json.dumps(entries), encoding="ascii")
            written.replace(self._file)


def _request(key: str, context_length: int) -> dict[str, object]:
    """What every request says, the same each time: a change would load the model again."""
    return {
        "model": key,
        "keep_alive": KEEP_S,
        "truncate": False,
        "shift": False,
        "options": {"num_ctx": context_length},
    }


def _chat(
    key: str, context_length: int, prompt: Prompt, max_tokens: int, stop: Sequence[str]
) -> dict[str, object]:
    options = {"num_ctx": context_length, "num_predict": max_tokens, "stop": list(stop), **FIXED}
    return _request(key, context_length) | {
        "messages": chat_messages(prompt.system, prompt.user, prompt.answer_prefix),
        "options": options,
        "stream": True,
    }


def _load_error(refusal: Refusal) -> LMStrixError:  # noqa: PLR0911 - one for each kind
    """Why a load gave no model; Ollama gives no codes, so its words decide."""
    words = refusal.words
    if found := trouble(refusal):
        # Only our own deadline tells of a load that hangs.
        return EngineUnavailable(str(found)) if isinstance(found, EngineTimeout) else found
    if _REFUSED.search(words):
        return LoadRefused(f"Ollama refused the load: {words}")
    if _HUNG.search(words):
        return LoadHung(f"Ollama: {words}")
    if MEMORY_WORDS.search(words):
        return OutOfMemory(f"Ollama ran out of memory while loading: {words}")
    if "does not support" in words:
        return UnsupportedModel(f"Ollama: {words}")
    if refusal.status in (400, 500):
        return LoadFailed(f"Ollama could not load the model: {words}")
    return prediction_error(refusal)
