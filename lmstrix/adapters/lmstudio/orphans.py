"""Identifiers of our instances, and which of them a process that died has left loaded.

LM Studio unloads what idles for its time to live, half an hour; until then the memory is taken. So
each identifier says which process loaded it, and whoever loads next releases what has no
process any more. Only identifiers of exactly our form are ever looked at.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import sys
import uuid
from functools import cache
from pathlib import Path

__all__ = ["is_orphan", "new_identifier"]

_OURS = re.compile(r"lmstrix-([0-9a-f]{12})-([1-9][0-9]{0,8})-[0-9a-f]{16}")


def new_identifier() -> str:
    """An identifier that nobody else uses, and that tells this process."""
    return f"lmstrix-{_here()}-{os.getpid()}-{secrets.token_hex(8)}"


def is_orphan(identifier: str) -> bool:
    """Whether a process of this machine that is gone has loaded it. In doubt it is none: on
    another machine, where the number of the process is in use again, and on Windows.
    """
    ours = _OURS.fullmatch(identifier)
    return ours is not None and ours[1] == _here() and _is_gone(int(ours[2]))


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


def _is_gone(pid: int) -> bool:
    if sys.platform == "win32":  # there is no signal that only asks
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return False
