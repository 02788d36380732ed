"""The process in which llama.cpp runs: ``python -m lmstrix.adapters.llamacpp.child``.

A process of its own, because the system kills an engine that runs out of memory, and because
ending the process is the only way to stop the engine that never hangs (deleting a server right
after its start does). It uses only the standard library and `xllamacpp`, so that it can be
started by its path without importing the rest of LMStrix.

Protocol: one JSON line of settings on standard input (so that the key to the server is never
among arguments or environment variables), one JSON line on standard output: ``address``, or
``error`` and ``kind``. The end of standard input ends the process at once, also during a
load: whatever ends the parent closes the pipe. PR_SET_PDEATHSIG is not used, because it fires
when the *thread* that started the child ends. Logs go to standard error.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

OK = 0
FAILED = 3
"""Exit status after an error that was reported on standard output."""
CANNOT_RUN = (126, 127)
"""Exit codes of a program that cannot be started, for a library of its own is missing."""
HELP_S = 20.0
"""Longest that a program may take to print its help."""
LOG_S = 0.3
"""Time for the log's thread to write its last lines."""
POLL_S = 0.1


def main() -> None:
    """Read the settings, serve the model, and end with the parent."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    answers = _own_stdout()
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):  # the parent died before it sent the settings
        os._exit(OK)
    settings: dict[str, Any] = json.loads(line)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    _be_the_first_to_go()
    if settings.get("binary"):
        _serve_binary(answers, settings, parent)
    try:
        _limit_memory(settings)
        engine: Any = importlib.import_module("xllamacpp")
    except Exception as error:  # noqa: BLE001 - a broken extension raises anything
        _fail(answers, "engine", error)
    try:
        server = engine.Server(_parameters(engine, settings))
    except MemoryError as error:
        _fail(answers, "memory", error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        _fail(answers, "load", error)
    _say(answers, {"address": server.listening_address})
    # Standard input stays open if a fork of the parent inherited it: watch the parent too.
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(OK)


def _own_stdout() -> BinaryIO:
    """Keep standard output for the one answer; what native code prints goes to the log."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _end_with_stdin() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    _end_all()


def _end_all() -> NoReturn:
    """End this process, and a server that it started: they are a process group of their own."""
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    for server in _servers:
        server.kill()
    os._exit(OK)


_servers: list[subprocess.Popen[bytes]] = []
"""The user's own llama-server, if this process has started it."""


def _serve_binary(answers: BinaryIO, settings: dict[str, Any], parent: int) -> NoReturn:
    """Run the user's own llama-server, and end as it ends."""
    binary = settings["binary"]
    try:
        told = subprocess.run(  # noqa: S603 - the user named it
            [binary, "--help"], capture_output=True, check=False, timeout=HELP_S
        )
        if told.returncode in CANNOT_RUN:
            words = told.stderr.decode("utf-8", "replace").strip()
            _fail(answers, "program", RuntimeError(words or f"it ended with {told.returncode}"))
        if b"--ctx-size" not in told.stdout + told.stderr:
            _fail(answers, "program", RuntimeError("its --help is not that of llama-server"))
        port = _free_port()
        command = [binary, *settings["arguments"], "-m", settings["model"]]
        command += ["-c", str(settings["n_ctx"]), "-np", "1"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        if b"--fit " in told.stdout:  # the requested context, or an error
            command += ["--fit", "off"]
        # By environment: everybody can read the arguments of a process.
        environment = {**os.environ, "LLAMA_API_KEY": settings["api_key"]}
        # As newer builds do by themselves: the level of a line tells errors from the rest.
        environment |= {"LLAMA_LOG_PREFIX": "1", "LLAMA_LOG_TIMESTAMPS": "1"}
        server = subprocess.Popen(  # noqa: S603 - as above
            command, stdin=subprocess.DEVNULL, stdout=2, env=environment
        )
        _servers.append(server)
    except subprocess.TimeoutExpired:
        _fail(answers, "program", RuntimeError(f"no answer to --help within {HELP_S:.0f} s"))
    except (OSError, subprocess.SubprocessError) as error:
        _fail(answers, "program", error)
    while not _is_healthy(port):
        if server.poll() is not None:
            killed = server.returncode == -getattr(signal, "SIGKILL", 9)
            _fail(
                answers,
                "memory" if killed else "load",
                RuntimeError(f"llama-server ended: {server.returncode}"),
            )
        time.sleep(POLL_S)
    _say(answers, {"address": f"http://127.0.0.1:{port}"})
    while server.poll() is None:
        if os.getppid() != parent:
            server.kill()
            _end_all()
        time.sleep(POLL_S)
    code = server.returncode
    os._exit(code if code >= 0 else 128 - code)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks no proxy of the user's: the server is on the loopback."""


def _is_healthy(port: int) -> bool:
    try:
        with _DIRECT.open(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError, ValueError):
        return False


def work_of(pid: int) -> str:
    """Processor time and memory of a process; empty if the system does not show them."""
    try:
        # Fields 14, 15 and 24 of proc(5): user time, system time, resident pages. The second field
        # may hold spaces, and ends with the last bracket.
        fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return " ".join((fields[11], fields[12], fields[21]))
    except (OSError, IndexError):
        return ""


def _say(answers: BinaryIO, answer: dict[str, str]) -> None:
    try:
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()
    except OSError:  # nobody listens any more
        os._exit(OK)


def _fail(answers: BinaryIO, kind: str, error: Exception) -> NoReturn:
    _say(answers, {"error": f"{type(error).__name__}: {error}"[:2000], "kind": kind})
    # A thread of its own writes llama.cpp's log, which says why: it may be late.
    time.sleep(LOG_S)
    os._exit(FAILED)


def _be_the_first_to_go() -> None:
    """If memory runs out on Linux, this process is killed and not one of the user's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _limit_memory(settings: dict[str, Any]) -> None:
    limit = settings["memory_limit_bytes"]
    if limit is None:
        return
    if sys.platform == "win32":
        raise OSError("a memory limit cannot be set on this system")
    resource = importlib.import_module("resource")  # absent on Windows
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _parameters(engine: Any, settings: dict[str, Any]) -> Any:  # noqa: ANN401 - no type stubs
    flash = engine.llama_flash_attn_type
    wanted = {
        "hostnames": ["127.0.0.1"],
        "port": 0,
        "api_keys": [settings["api_key"]],
        "ui": False,
        "n_ctx": settings["n_ctx"],
        "n_parallel": 1,  # each further slot takes its share of the context
        "n_batch": settings["batch_tokens"],
        "n_ubatch": settings["batch_tokens"],
        "flash_attn_type": flash.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "swa_full": True,  # without it, stepping back to a shorter prefix gives wrong logits
        "cache_ram_mib": 0,  # no second copy of old prompts
        "fit_params": False,  # the requested context, or an error
        "ctx_shift": False,  # never drop the head of a prompt
        "warmup": False,
    }
    parameters = engine.CommonParams()
    parameters.model.path = settings["model"]
    threads = settings["threads"] or _allowed_cores()
    if threads:
        parameters.cpuparams.n_threads = threads
        parameters.cpuparams_batch.n_threads = threads
    for name, value in wanted.items():
        setattr(parameters, name, value)
    return parameters


def _allowed_cores() -> int | None:
    """Fewer cores than the machine has, if this process is bound to fewer; else None, and the
    engine itself counts the physical ones.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        return None
    return allowed if allowed < (os.cpu_count() or 1) else None


if __name__ == "__main__":
    main()
