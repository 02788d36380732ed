"""Where LM Studio's server is: a given host, or what answers its greeting on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx

from lmstrix.adapters.http import http_client
from lmstrix.adapters.lmstudio.protocol import START_HINT
from lmstrix.adapters.lmstudio_home import INTERNAL, lmstudio_home
from lmstrix.errors import ConfigurationError, EngineUnavailable, SettingsError
from lmstrix.json_values import as_count, parse_object, read_object

DEFAULT_PORTS = (41343, 52993, 16141, 39414, 22931)
"""Ports on which LM Studio answers its own SDKs; 1234 is the one for other clients."""
MAX_FILE_BYTES = 65536


def parse_host(text: str) -> str:
    """``HOST:PORT`` from what a user gives; raises `ConfigurationError`."""
    rest = text.strip().removeprefix("http://").removeprefix("ws://").removesuffix("/")
    try:
        parts = urlsplit(f"//{rest}")
        name, port = parts.hostname, parts.port
    except ValueError:
        name, port = None, None
    plain = not (set(rest) & set("/?#@\\% \t\n"))
    if not (name and port and plain and rest.isprintable()):
        raise ConfigurationError(
            f"{text.rpartition('@')[2][:200]!r} is not the address of an LM Studio server",
            hint="Give it as HOST:PORT, such as 127.0.0.1:1234.",
        )
    return rest


def told_port(home: Path) -> int | None:
    """The port in ``.internal/http-server.json``, or None."""
    port = as_count(read_object(home / INTERNAL / "http-server.json", MAX_FILE_BYTES).get("port"))
    return port if port is not None and 0 < port < 65536 else None


async def find_server(host: str | None, deadline_s: float) -> str:
    """The server that greets: at `host`, or else on this machine's known ports.

    Raises `EngineUnavailable` if none does; each gets `deadline_s`.
    """
    for candidate in addresses(host):
        greets = await _greets(candidate, deadline_s)
        if greets:
            return candidate
        if greets is False and host:
            raise EngineUnavailable(
                f"the program that answers at {host} is not LM Studio",
                hint="Name the server with --adapter: ollama, llama-server or openai.",
            )
    where = host or "any of its usual ports on this machine"
    raise EngineUnavailable(f"LM Studio does not answer at {where}", hint=START_HINT)


def addresses(host: str | None) -> Sequence[str]:
    """Where `find_server` looks, in that order: `host`, or else this machine's known ports."""
    if host:
        return [host]
    try:
        told = told_port(lmstudio_home())
    except SettingsError:  # no home: the usual ports remain
        told = None
    ports = dict.fromkeys([*([told] if told else []), *DEFAULT_PORTS])
    return [f"127.0.0.1:{port}" for port in ports]


async def _greets(host: str, deadline_s: float) -> bool | None:
    """Whether LM Studio's greeting is heard there; None without an answer."""
    try:
        with anyio.fail_after(deadline_s):
            async with http_client(f"http://{host}") as client:
                answer = await client.get("/lmstudio-greeting")
                # Anybody may listen there.
                said = parse_object(answer.content[:MAX_FILE_BYTES]) or {}
                return answer.is_success and said.get("lmstudio") is True
    except (ConfigurationError, httpx.HTTPError, httpx.InvalidURL, ValueError, OSError):
        return None
