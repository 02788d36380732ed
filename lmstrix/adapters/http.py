"""What the adapters for HTTP servers share: addresses, calls, streams, waits and error words."""

from __future__ import annotations

import os
import re
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from ipaddress import ip_address
from time import perf_counter
from typing import TypeVar, cast
from urllib.parse import urlsplit

import anyio
import attrs
import httpx

from lmstrix.adapters.streaming import StallDeadline, spoken_s
from lmstrix.errors import (
    ConfigurationError,
    ConnectionLost,
    ContextOverflow,
    EngineCrashed,
    EngineTimeout,
    EngineUnavailable,
    LMStrixError,
    ModelNotFound,
    PredictionError,
    UnsupportedModel,
)
from lmstrix.json_values import Json, as_count, as_list, as_object, as_seconds, parse_object
from lmstrix.locks import THIS_MACHINE
from lmstrix.models import LoadedInstance, LoadProgress, MemoryEstimate, ModelInfo, Status
from lmstrix.names import find_key, suggestion

T = TypeVar("T")

HOST_VARIABLE = "LMSTRIX_HOST"
KEY_VARIABLE = "LMSTRIX_API_KEY"
"""The one place where an API key comes from: never the command line, never a file."""
KEY_HINT = (
    f"Put the server's API key into the variable {KEY_VARIABLE}, and name the server"
    " with --adapter."
)
"""For a server that wants a key. One that was not named is not sent any."""

CALL_S = 30.0
PROMPT_BYTES_PER_S = 80
"""About 20 tokens a second: slower than any prefill worth waiting for."""
BUSY_S = 120.0
"""How long a server may say that it is busy."""
LONGEST_WAIT_S = 30.0
CLOSE_S = 0.5
BEAT_S = 0.2
"""How often a server that tells no progress is said to be at work."""
MAX_BODY_BYTES = 2**26
MAX_LINE_BYTES = 2**24
LEAST_SECRET = 16
"""Characters of a key that is hidden wherever a server repeats it."""
BUSY = frozenset({429, 500, 502, 503, 504, 529})
"""Statuses that are waited for, unless the words say that it is about the prompt or the model."""
OF_THE_ACCOUNT = frozenset({401, 402, 403, 429, 529})
"""About the key, payment or the rate of requests, whatever the words."""
_ACCOUNT = re.compile(
    r"rate.?limit|tokens per (?:min(?:ute)?|day)|\bTP[MD]\b|\bquota\b|\bcredits\b", re.IGNORECASE
)
"""The same in words: some providers answer 413 to a prompt that is over the minute's limit."""
TIMED_OUT = frozenset({408, 504, 520, 522, 523, 524, 525, 526, 527})
"""A limit of time, by a gateway or by Cloudflare (52x): not one of the context."""
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For plain HTTP: reading the system's certificates takes time."""
PROXY_LIMITS_S = (60, 100, 120, 180, 300, 600)
"""After so long without a byte, proxies close a stream that has begun: nginx and the load balancers
of AWS after 60 seconds, Cloudflare after 100; the others are what people set instead."""
_NEAR_S = 0.5
_TIME = re.compile(
    r"deadline ?exceeded|context deadline|(?:request|gateway) timed? ?out", re.IGNORECASE
)
_BODY = re.compile(
    r"(?:entity|body|payload|content) (?:is )?too large|length limit exceeded", re.IGNORECASE
)
"""A limit of the bytes of a request, by a proxy or a web server."""
NO_REASON = "no reason given"
FAILED_S = 10.0
"""How long a server may answer 500, which says nothing of being busy."""

MEMORY_WORDS = re.compile(
    r"out of (?:device |host |video )?memory|insufficient memory|bad_alloc|unable to allocate"
    r"|MemoryError|cannot allocate|failed to allocate|OutOf(?:Device|Host)Memory|cudaMalloc failed",
    re.IGNORECASE,
)
OVERFLOW_WORDS = re.compile(
    r"exceed_context_size|context_length_exceeded|\b(?:exceeds?|exceeded|beyond|over|longer than)\b"
    r"[^.]{0,40}(?:context|maximum (?:model )?length|max_model_len|token limit)"
    r"|maximum context length|context (?:size|length|window) (?:has been |is )?exceeded"
    r"|prompt is too long|input is too long|too many (?:input |prompt )?tokens"
    r"|context length is only|maximum (?:input|allowed) length|maximum number of tokens"
    r"|max_new_tokens` must be <=|trying to keep the first|n_keep",
    re.IGNORECASE,
)
CRASH_HINT = "Usually memory runs out as the context fills: try a smaller context."
_CRASH = re.compile(
    r"(?:runner|server|process) (?:process )?(?:has )?(?:terminated|crashed|no longer running"
    r"|unexpectedly stopped)"
    r"|error was encountered while running the model|CUDA error|exit status \d",
    re.IGNORECASE,
)


def server_address(host: str | None, default: str) -> str:
    """The address of a server, such as ``http://127.0.0.1:11434``, without a slash at its end.

    `host` is ``HOST:PORT`` or a whole URL; None takes ``LMSTRIX_HOST``, else `default`, which may
    be empty. Raises `ConfigurationError`.
    """
    given = (host or os.environ.get(HOST_VARIABLE) or default).strip()
    if not given:
        return ""
    text = given if "://" in given else f"http://{given}"
    try:
        parts = urlsplit(text)
        name, _ = parts.hostname, parts.port
        httpx.URL(text)  # what it refuses cannot be asked
    except (ValueError, httpx.InvalidURL):
        parts, name = urlsplit(""), None
    plain = text.isprintable() and not set(text) & set("?#@\\% ")
    if not (name and plain and parts.scheme in ("http", "https")):
        raise ConfigurationError(
            f"{given.rpartition('@')[2].partition('?')[0][:200]!r} is not the address of a server",
            hint="Give it as HOST:PORT or as https://HOST/PATH, without a user or a password.",
        )
    return text.rstrip("/")


def api_key() -> str:
    """What ``LMSTRIX_API_KEY`` holds; raises `ConfigurationError` if that cannot be a key."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(f"the key in {KEY_VARIABLE} holds characters that no key has")
    return key


def is_loopback(address: str) -> bool:
    """Whether `address`, a URL or ``HOST:PORT``, is this machine, by its name. So is ``0.0.0.0``,
    which servers print as their address.
    """
    name = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    try:
        found = ip_address(name)
    except ValueError:
        return name.rstrip(".") == "localhost"
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_unspecified


def named_model(models: Sequence[ModelInfo], name: str, engine: str) -> ModelInfo:
    """The model that `name` means: a key, one without its ``:latest``, or the last part of one.

    Raises:
        ModelNotFound: nothing of that name, or more than one thing.
        UnsupportedModel: an embedding model, or another thing that cannot answer.
    """
    by_key = {model.key: model for model in models}
    key = f"{name}:latest" if f"{name}:latest" in by_key else find_key(name, by_key)
    if key is None:
        hint = "`lmstrix scan` lists its models."
        if len(by_key) < 2:
            hint = f"Its only model is {next(iter(by_key))}." if by_key else "It has no model yet."
        raise ModelNotFound(
            f"{engine} has no model {name[:200]!r}", hint=suggestion(name, by_key) or hint
        )
    model = by_key[key]
    if not model.generates_text:
        raise UnsupportedModel(
            f"{key!r} is of type {model.type!r}, which cannot answer questions here",
            hint=f"Choose a model that runs in {engine} and generates text.",
        )
    return model


class ServerAdapter(ABC):
    """The part of a `lmstrix.ports.Adapter` that is the same for all servers.

    Args:
        address: a URL or ``HOST:PORT``; decides with whom it takes turns.
    """

    name: str
    engine: str
    """What messages and the status call the server."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._notes: dict[str, None] = {}
        self._loaded: dict[str, LoadedInstance] = {}
        self._loads = 0

    @property
    def turn(self) -> str:
        """This machine if the server runs on it, else the server."""
        here = is_loopback(self._address)
        return THIS_MACHINE if here else f"{self.engine} at {self._address.lower()}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was not as it should be, one sentence each."""
        return tuple(self._notes)

    @abstractmethod
    async def list_models(self) -> Sequence[ModelInfo]:
        """Every model that the server lists, sorted by key; raises an `InfrastructureError`."""

    async def find_model(self, name: str) -> ModelInfo:
        """The model that `name` means; see `named_model`."""
        return named_model(await self.list_models(), name, self.engine)

    async def estimate_memory(self, model: ModelInfo, context_length: int) -> MemoryEstimate | None:
        """None: the server does not say."""
        del model, context_length
        return None

    async def status(self) -> Status:
        """Whether the server answers, its version, and what is loaded in it."""
        try:
            address, versions, loaded = await self._state()
        except LMStrixError as error:
            return Status(
                adapter=self.name,
                engine=self.engine,
                available=False,
                detail=str(error),
                hint=error.hint,
            )
        return Status(
            adapter=self.name,
            engine=self.engine,
            available=True,
            detail=" ".join([f"Server at {address}.", *self.warnings]),
            versions={name: text for name, text in versions.items() if text},
            loaded=tuple(loaded),
        )

    @abstractmethod
    async def _state(self) -> tuple[str, Mapping[str, str], Sequence[LoadedInstance]]:
        """The server's address, its versions, and what is loaded; raises if it does not answer."""

    @asynccontextmanager
    async def _listed_as_ours(self, model: ModelInfo, context: int) -> AsyncGenerator[None, None]:
        """`model` is in use here, although nothing was loaded for it."""
        self._loads += 1
        identifier = f"{model.key} #{self._loads}"
        self._loaded[identifier] = LoadedInstance(
            key=model.key, identifier=identifier, context_length=context, ours=True
        )
        try:
            yield
        finally:
            del self._loaded[identifier]

    def _note(self, text: str) -> None:
        self._notes[text] = None


@attrs.frozen(kw_only=True)
class Refusal:
    """An answer that is not a success, as far as it could be understood."""

    server: str
    status: int
    words: str
    prompt_tokens: int | None = None
    context_length: int | None = None

    @classmethod
    def read(cls, server: str, status: int, body: Json | None) -> Refusal:
        """Reads ``{"error": ...}`` in all its forms; an error may be JSON inside a string, an entry
        of a list, or in the ``metadata`` of the provider behind a gateway.
        """
        told: object = body or {}
        words, numbers = "", as_object(told)
        for _ in range(5):
            told = next(iter(as_list(told)), told)
            fields = as_object(told)
            if fields:
                numbers = fields
                said = [fields.get(name) for name in ("type", "code", "message", "detail", "msg")]
                said.append(as_object(fields.get("metadata")).get("raw"))
                words = " ".join(part for part in said if isinstance(part, str)) or words
                nested = (fields.get(name) for name in ("error", "detail", "message"))
                told = next((part for part in nested if part and not isinstance(part, str)), None)
                told = told or fields.get("error")
            elif isinstance(told, str):
                words = told
                told = parse_object(told)
            else:
                break
        return cls(
            server=server,
            status=status,
            words=" ".join(words.split())[:500] or NO_REASON,
            prompt_tokens=as_count(numbers.get("n_prompt_tokens")),
            context_length=as_count(numbers.get("n_ctx")),
        )

    def __str__(self) -> str:
        return f"{self.server} answered {self.status}: {self.words}"


Classify = Callable[[Refusal], LMStrixError]


def crashed(words: str) -> EngineCrashed:
    """The engine died after the load, as `words` say."""
    return EngineCrashed(
        f"the engine died while it worked: {words}",
        hint=CRASH_HINT,
    )


def trouble(refusal: Refusal) -> LMStrixError | None:
    """What is about the account, the address or a proxy's limits; None for anything else."""
    if refusal.status in OF_THE_ACCOUNT or _ACCOUNT.search(refusal.words):
        hint = KEY_HINT if refusal.status in (401, 403) else ""
        return EngineUnavailable(str(refusal), hint=hint)
    if 300 <= refusal.status < 400:
        return EngineUnavailable(
            f"{refusal.server} answered {refusal.status}, a redirect: {refusal.words}"
        )
    if refusal.status in TIMED_OUT or _TIME.search(refusal.words):
        return EngineTimeout(f"{refusal}. A time limit of the server or of a proxy has passed")
    if refusal.status == 413 and (refusal.words == NO_REASON or _BODY.search(refusal.words)):
        return EngineUnavailable(f"{refusal.server}, or a proxy, refuses requests of that size")
    return None


def prediction_error(refusal: Refusal) -> LMStrixError:
    """Why a request got no reply."""
    if found := trouble(refusal):
        return found
    if refusal.status == 413 or OVERFLOW_WORDS.search(refusal.words):
        return ContextOverflow(
            f"the prompt does not fit: {refusal.words}",
            prompt_tokens=refusal.prompt_tokens,
            context_length=refusal.context_length,
        )
    if _CRASH.search(refusal.words) or MEMORY_WORDS.search(refusal.words):
        return crashed(refusal.words)
    if refusal.status == 404:
        return ModelNotFound(str(refusal))
    if refusal.status in BUSY:
        return ConnectionLost(str(refusal))
    return PredictionError(str(refusal), refused=True)


def _status_of(event: Json) -> int:
    """The status of an error inside a stream, as far as it is told."""
    told = as_object(event.get("error")).get("code")
    code = as_count(int(told) if isinstance(told, str) and re.fullmatch(r"\d{3}", told) else told)
    return code if code is not None and 400 <= code < 600 else 500


class Server:
    """A server of the user's that speaks JSON over HTTP.

    Each request has a connection of its own: closing it is what stops the server's work.
    `hint` says how to start it, for errors. The key is sent if `send_key`. It never appears in what
    this class raises, nor in what it returns unless it is short; see `hidden`.
    """

    def __init__(
        self,
        address: str,
        *,
        name: str,
        hint: str,
        stall_s: float,
        busy_s: float = BUSY_S,
        send_key: bool = True,
    ) -> None:
        if not stall_s > 0:
            raise ConfigurationError(f"stall_timeout_s must be positive, got {stall_s}")
        self.address = address
        self.name = name
        self._hint = hint
        self._busy_s = busy_s
        key = api_key()
        self.key = key if send_key else ""
        self.stall = StallDeadline(stall_s)

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        deadline_s: float = CALL_S,
        classify: Classify = prediction_error,
        busy_s: float | None = None,
    ) -> Json:
        """The JSON object that the server answers; raises what `classify` makes of a refusal, or
        an `InfrastructureError`.
        """
        async with http_client(self.address, self.key) as client:
            response = await self._opened(client, method, path, body, deadline_s, classify, busy_s)
            try:
                content = await self._body(response, deadline_s)
                # A bare list, as some servers list their models.
                listed = content.lstrip().startswith(b"[")
                answer = parse_object(b'{"data": %b}' % content if listed else content)
            finally:
                await close_response(response)
        if answer is None:
            raise EngineUnavailable(
                f"{self.name} at {self.address} does not answer in JSON", hint=self._hint
            )
        if answer.get("error"):
            told = parse_object(hidden(content, self.key, in_error=True))
            said = Refusal.read(self.name, response.status_code, told).words
            raise EngineUnavailable(
                f"{self.name} at {self.address} answers {said!r}: another program may answer",
                hint=self._hint,
            )
        return answer

    async def events(  # noqa: C901 - one loop over bytes, lines and events
        self, path: str, body: Mapping[str, object]
    ) -> AsyncGenerator[tuple[Json, float], None]:
        """Events of a streamed reply, and the seconds since its request: without those before,
        in which the server was busy.

        Lines of JSON or server-sent events; the end of those is the event ``{"done": true}``. The
        first may take as long as reading the whole prompt takes; each further one `stall_s`, or ten
        times the slowest so far.
        """
        first_s = self.stall.seconds + len(str(body)) / PROMPT_BYTES_PER_S
        async with http_client(self.address, self.key) as client:
            response = await self._opened(client, "POST", path, body, first_s)
            started: float = response.extensions["sent_s"]
            chunks = response.aiter_bytes()
            reader = EventLines(self.name, self.key)
            try:
                rest, patience_s, last_s = b"", first_s, 0.0
                chunk = b"\n"
                while chunk:
                    chunk = await self._next(chunks, patience_s)
                    *lines, rest = (rest + (chunk or b"\n")).split(b"\n")
                    if len(rest) > MAX_LINE_BYTES:
                        raise EngineUnavailable(f"{self.name} sent a line without an end")
                    for line in lines:
                        if re.fullmatch(rb"\s*data:\s*\[DONE\]\s*", line):
                            yield {"done": True}, perf_counter() - started
                            return
                        try:
                            event = reader.event(line)
                        except EngineUnavailable:
                            if chunk:
                                raise
                            return  # it broke off within a line
                        if event is not None:
                            if event.get("error"):
                                said = Refusal.read(self.name, _status_of(event), event)
                                raise prediction_error(said)
                            last_s = perf_counter() - started
                            if not _is_a_role(event):  # some send it before they read the prompt
                                patience_s = self.stall.seconds
                            yield event, last_s
                    # Comments, which some servers send while they wait, are no progress.
                    silent_s = perf_counter() - started - last_s
                    if silent_s > max(patience_s, self.stall.seconds):
                        raise self._stalled(silent_s)
            finally:
                await close_response(response, chunks)

    async def _next(self, chunks: AsyncIterator[bytes], patience_s: float) -> bytes:
        """The next bytes; none at the end. An end after a silence that is as long as a usual time
        limit of a proxy is an `EngineTimeout`: it says nothing about the prompt.
        """
        began, lost = perf_counter(), None

        async def read(deadline_s: float) -> bytes:
            return await self._bounded(lambda: anext(chunks, b""), max(deadline_s, patience_s))

        try:
            if chunk := await self.stall.step(read):
                return chunk
        except ConnectionLost as error:
            lost = error
        silent_s = perf_counter() - began
        if any(abs(silent_s - limit) < _NEAR_S for limit in PROXY_LIMITS_S):
            raise EngineTimeout(
                f"the connection to {self.name} at {self.address} was closed after"
                f" {spoken_s(silent_s)} without an answer",
                hint="A proxy in between may have a time limit: set it higher (nginx:"
                " proxy_read_timeout).",
            ) from lost
        if lost is not None:
            raise lost
        return b""

    async def _opened(  # noqa: PLR0917 - private, each a part of one request
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        deadline_s: float,
        classify: Classify = prediction_error,
        busy_s: float | None = None,
    ) -> httpx.Response:
        """A response that is a success; a busy server is asked again."""
        started, wait_s = anyio.current_time(), 0.25
        patience_s = self._busy_s if busy_s is None else busy_s
        while True:
            try:
                request = client.build_request(method, self.address + path, json=body)
            except UnicodeEncodeError as error:
                raise ConfigurationError(
                    "the text contains a lone surrogate, which is not valid Unicode"
                ) from error
            send, sent_s = partial(client.send, request, stream=True), perf_counter()
            response = await self._bounded(send, deadline_s)
            if response.is_success:
                response.extensions["sent_s"] = sent_s
                return response
            try:
                content = await self._body(response, CALL_S)
            finally:
                await close_response(response)
            told = _told(hidden(content, self.key, in_error=True))
            if response.has_redirect_location:
                place = response.headers["location"].partition("?")[0].rpartition("@")[2]
                told = {"error": hidden(place.encode(), self.key, in_error=True).decode()}
            error = classify(Refusal.read(self.name, response.status_code, told))
            if response.status_code == 404 and method == "GET":
                error = EngineUnavailable(
                    f"{self.name} at {self.address} has no {path}: another program may answer",
                    hint=self._hint,
                )
            pause_s = _retry_after(response) or wait_s
            waits = isinstance(error, EngineUnavailable) and response.status_code in BUSY
            ends = started + (
                min(FAILED_S, patience_s) if response.status_code == 500 else patience_s
            )
            if not waits or anyio.current_time() + pause_s > ends:
                raise error
            await anyio.sleep(pause_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _body(self, response: httpx.Response, deadline_s: float) -> bytes:
        async def read() -> bytes:
            content = b""
            generator = cast("AsyncGenerator[bytes, None]", response.aiter_bytes())
            async with aclosing(generator) as chunks:
                async for chunk in chunks:
                    content += chunk
                    if len(content) > MAX_BODY_BYTES:
                        raise EngineUnavailable(f"{self.name} sent an answer without an end")
            return content

        return hidden(await self._bounded(read, deadline_s), self.key)

    def _stalled(self, seconds: float) -> EngineTimeout:
        return EngineTimeout(
            f"{self.name} at {self.address} made no progress for {spoken_s(seconds)}"
        )

    async def _bounded(self, call: Callable[[], Awaitable[T]], deadline_s: float) -> T:
        """Await `call()` with a deadline, and translate its failures."""
        where = f"{self.name} at {self.address}"
        try:
            with anyio.fail_after(deadline_s):
                return await call()
        except TimeoutError as error:
            raise self._stalled(deadline_s) from error
        except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            if "CERTIFICATE" in str(error):
                raise EngineUnavailable(
                    f"the certificate of {where} cannot be verified",
                    hint="If an authority of your own signed it: SSL_CERT_FILE=/path/to/its.pem.",
                ) from error
            raise EngineUnavailable(f"{where} does not answer", hint=self._hint) from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            to = where.replace("The ", "the ", 1)
            raise ConnectionLost(
                f"the connection to {to} was lost ({type(error).__name__})"
            ) from error


def _told(content: bytes) -> Json:
    """What a refusal says: its object, its list or its text."""
    told = parse_object(b'{"error": %b}' % content)
    if told is not None:
        return told
    words = content.decode("utf-8", "replace")
    page = words.lstrip().startswith("<")
    return {"error": "" if page else words[:200]}


def hidden(data: bytes, key: str, *, in_error: bool = False) -> bytes:
    """`data` from a server without the key that was sent to it.

    A short key is often no secret and part of a model's name: it is hidden in errors only.
    """
    hides = key and (in_error or len(key) >= LEAST_SECRET)
    return data.replace(key.encode(), b"[key]") if hides else data


def http_client(address: str, key: str = "") -> httpx.AsyncClient:
    """A client with a new connection for each request. This machine is asked without a proxy.

    Raises `ConfigurationError` for a proxy in the environment that cannot be used.
    """
    plain = address.startswith("http://")
    try:
        return httpx.AsyncClient(
            base_url=address,
            headers={"Connection": "close", **({"Authorization": f"Bearer {key}"} if key else {})},
            verify=_NO_CERTIFICATES if plain else httpx.create_ssl_context(),
            limits=httpx.Limits(max_keepalive_connections=0),
            timeout=None,  # noqa: S113 - each call is awaited under a deadline of its own
            trust_env=not is_loopback(address),
        )
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        # The text of the error may hold the proxy's password.
        raise ConfigurationError(
            "a proxy or certificate that the environment names cannot be used"
            f" ({type(error).__name__})",
            hint="Correct or unset HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE.",
        ) from error


class EventLines:
    """Reads the objects in lines of JSON or of server-sent events, without the `key`."""

    def __init__(self, server: str, key: str) -> None:
        self._server = server
        self._key = key
        self._held = b""
        """The lines so far of an event that takes several."""

    def event(self, line: bytes) -> Json | None:
        """The object that `line` completes; None for blank lines, comments, the end and other
        fields. Raises `EngineUnavailable`.
        """
        line = line.strip()
        field, _, data = line.partition(b":")
        if line.startswith(b"{"):
            field, data = b"data", line
        data = data.strip()
        # Some servers send an empty event or a word while they wait.
        heartbeat = not self._held and field == b"data" and (not data or data.isalpha())
        if field not in (b"data", b"error") or data == b"[DONE]" or heartbeat:
            if not line and self._held:
                raise self._not_json()
            return None
        data = self._held + data
        event = parse_object(hidden(data, self._key))
        if event is None:
            begun = line.startswith(b"data") and data.startswith(b"{")
            if not begun or len(data) > MAX_LINE_BYTES:
                raise self._not_json()
            self._held = data + b"\n"
            return None
        self._held = b""
        if field == b"error" or "error" in event:
            event = parse_object(hidden(data, self._key, in_error=True)) or {"error": "an error"}
        return {"error": event} if field == b"error" and "error" not in event else event

    def _not_json(self) -> EngineUnavailable:
        return EngineUnavailable(f"{self._server} sent an event that is not JSON")


async def at_work(
    call: Callable[[], Awaitable[T]], on_progress: Callable[[LoadProgress], None] | None
) -> T:
    """`call()`, which has deadlines of its own, and meanwhile the news that a load is going on."""
    found: list[T] = []
    failed: list[Exception] = []

    async def run() -> None:
        try:
            found.append(await call())
        except Exception as error:  # noqa: BLE001 - a task group would wrap it
            failed.append(error)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        while True:
            if on_progress is not None:
                on_progress(LoadProgress(fraction=0.0))
            await anyio.sleep(BEAT_S)
    if failed:
        raise failed[0]
    return found[0]


async def close_response(
    response: httpx.Response, chunks: AsyncIterator[bytes] | None = None
) -> None:
    """Close the connection of a response, whose body may be half read."""
    with anyio.move_on_after(CLOSE_S, shield=True):
        await response.aclose()
        if chunks is not None:
            # The body's generators are suspended in each other. Reading on ends them all here and
            # now: it fails on the closed connection once the data received is used up.
            with suppress(httpx.HTTPError, httpx.StreamError, RuntimeError):
                async for _ in chunks:
                    pass


def _is_a_role(event: Json) -> bool:
    """Whether a chat's event says who speaks, and nothing else."""
    choice = as_object(next(iter(as_list(event.get("choices"))), None))
    said = {name for name, value in as_object(choice.get("delta")).items() if value}
    return bool(choice) and said <= {"role"} and not choice.get("finish_reason")


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait, at most a minute; None if it does not say."""
    try:
        told = as_seconds(float(response.headers.get("retry-after", "")))
    except ValueError:
        return None
    return None if told is None else min(told, 60.0)
