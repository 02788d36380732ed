"""Our instances in LM Studio: load one, unload it, and know which of them a dead process left.

LM Studio unloads what idles for its time to live, half an hour; until then the memory is taken. So
each identifier names the process that loaded it, and the next load unloads what has no process
any more. Only identifiers of exactly our form are ever looked at.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import re
import secrets
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import cast

import anyio

from lmstrix.adapters.lmstudio import protocol
from lmstrix.adapters.lmstudio.listing import device_of, wire_key
from lmstrix.adapters.lmstudio.sdk import Connection, Deadlines
from lmstrix.adapters.streaming import spoken_s
from lmstrix.errors import (
    EngineTimeout,
    EngineUnavailable,
    LMStrixError,
    LoadHung,
    UnsupportedModel,
)
from lmstrix.json_values import (
    Json,
    as_context,
    as_count,
    as_list,
    as_object,
    as_seconds,
    as_text,
)
from lmstrix.locks import runs
from lmstrix.models import LoadProgress, ModelInfo

SESSIONS = "llm.load.numParallelSessions"


async def load_instance(
    connection: Connection,
    model: ModelInfo,
    identifier: str,
    context_length: int,
    *,
    deadlines: Deadlines,
    on_progress: Callable[[LoadProgress], None] | None,
) -> None:
    """Load a new instance; leaving early cancels the load at the server.

    Raises `LoadRefused`, `LoadFailed`, `OutOfMemory`, `LoadHung`, `ModelNotFound`,
    `EngineTimeout` or `EngineUnavailable`.
    """
    request = protocol.load_request(wire_key(model), identifier, context_length, deadlines.ttl_s)
    patience_s = deadlines.for_load(model.size_bytes)
    ends = anyio.current_time() + patience_s
    told = -math.inf
    async with connection.channel(
        "loadModel", request, deadline_s=deadlines.call_s, classify=protocol.load_error
    ) as channel:
        while True:
            try:
                packet = await channel.next(max(0.0, ends - anyio.current_time()))
            except EngineTimeout as error:
                raise LoadHung(f"the load made no progress for {spoken_s(patience_s)}") from error
            if packet is None:
                break
            if packet.get("type") == "success":
                return
            fraction = as_seconds(packet.get("progress"))
            if fraction is not None and told < fraction <= 1:
                told = fraction
                ends = anyio.current_time() + patience_s
                if on_progress is not None:
                    on_progress(LoadProgress(fraction=fraction))
    # No error was told, so nothing is known about the model: this must not become a limit.
    raise EngineUnavailable("LM Studio ended the load without a result")


async def effective_context(
    connection: Connection,
    model: ModelInfo,
    identifier: str,
    *,
    deadlines: Deadlines,
    note: Callable[[str], None],
) -> int:
    """The context length that the instance really has.

    Raises `UnsupportedModel` if it is on another device, `EngineUnavailable` if it is not
    told.
    """
    specifier: Json = {"specifier": protocol.specifier(identifier)}
    told = await connection.call(
        "llm", "getModelInfo", {**specifier, "throwIfNotFound": True}, deadline_s=deadlines.call_s
    )
    info = as_object(told)
    if as_text(info.get("deviceIdentifier")) != device_of(model):
        raise UnsupportedModel(
            f"LM Studio loaded {model.key!r} on another device than was asked for",
            hint="Run LMStrix where the model is.",
        )
    context = as_context(info.get("contextLength"))
    if not context:
        raise EngineUnavailable("LM Studio does not report the context length of the loaded model")
    with suppress(LMStrixError):
        config = await connection.call(
            "llm", "getLoadConfig", specifier, deadline_s=deadlines.ask_s
        )
        fields = map(as_object, as_list(as_object(config).get("fields")))
        sessions = next((f.get("value") for f in fields if f.get("key") == SESSIONS), None)
        if sessions not in (None, 1):
            count = as_count(sessions)
            many = "an unknown number of" if count is None else str(count)
            note(f"LM Studio loaded the model for {many} sessions instead of one.")
    return context


async def listed(connection: Connection, deadline_s: float) -> list[Json]:
    """The loaded models, as LM Studio lists them. Raises `EngineUnavailable` if it is not a list:
    nobody may take it for "nothing is loaded".
    """
    answer = await connection.call("llm", "listLoaded", deadline_s=deadline_s)
    if not isinstance(answer, list):
        raise EngineUnavailable("LM Studio's answer is not a list of loaded models")
    return [as_object(entry) for entry in cast("list[object]", answer)]


async def unload(connection: Connection, identifiers: set[str], deadline_s: float) -> set[str]:
    """Unload what is loaded of `identifiers`; returns those that were.

    What a process of ours that died has left is unloaded too, if it lets itself: it comes last,
    and its trouble is not ours.
    """
    loaded = {as_text(e.get("identifier")) for e in await listed(connection, deadline_s)}
    mine = loaded & identifiers
    for identifier in sorted(mine):
        await _unload(connection, identifier, deadline_s)
    with suppress(LMStrixError):  # another process may have been quicker
        for identifier in sorted(loaded - mine):
            if is_orphan(identifier):
                await _unload(connection, identifier, deadline_s)
    return mine


async def _unload(connection: Connection, identifier: str, deadline_s: float) -> None:
    await connection.call("llm", "unloadModel", {"identifier": identifier}, deadline_s=deadline_s)


# Identifiers -------------------------------------------------------------------------------------

_OURS = re.compile(r"lmstrix-([0-9a-f]{12})-([1-9][0-9]{0,8})-[0-9a-f]{16}")


def new_identifier() -> str:
    """An identifier that nobody else uses, and that tells this process."""
    return f"lmstrix-{_here()}-{os.getpid()}-{secrets.token_hex(8)}"


def is_ours(identifier: str) -> bool:
    """Whether a process of LMStrix has loaded it, this one or another."""
    return _OURS.fullmatch(identifier) is not None


def is_orphan(identifier: str) -> bool:
    """Whether a process of this machine that is gone has loaded it. In doubt it is none: on
    another machine, where the number of the process is in use again, and on Windows.
    """
    ours = _OURS.fullmatch(identifier)
    return ours is not None and ours[1] == _here() and not runs(int(ours[2]))


@cache
def _here() -> str:
    """What process numbers mean something in: this system, on Linux its PID namespace.

    Its name is not enough, since many machines have the same one: what tells them apart is the
    number of this boot on Linux, elsewhere the address of a network card.
    """
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
        machine = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        # Where there is no such address it is another one in each process: nothing is an orphan.
        namespace, machine = "", f"{uuid.getnode():x}"
    name = f"{platform.system()} {platform.node()} {namespace} {machine}"
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
