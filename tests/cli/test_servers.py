"""Servers: found or named, their own options and keys, and measurements through them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import attrs
import platformdirs
import pytest
from anyio.from_thread import start_blocking_portal
from cli_shell import NOBODY, invoked
from click.testing import Result

from lmstrix import plugins
from lmstrix.adapters import llama_server, ollama, openai
from lmstrix.adapters.lmstudio import discovery
from lmstrix.testing.http_server import Answer, HttpServer, Request, StandInError
from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.ollama import OllamaServer
from lmstrix.testing.openai import OpenAIScript, OpenAIServer
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

MODEL = SimulatedModel(key="m:latest", declared=2048, true_context=1400, beyond=Beyond.FORGETS_ALL)
OPENAI = ("--adapter", "openai", "--host")


class LlamaServer(HttpServer):
    """A llama-server that serves models of these names; all but their list may want a key."""

    def __init__(self, *names: str, key: str = "") -> None:
        super().__init__()
        self._names = names
        self._key = key

    async def handle(self, request: Request, answer: Answer) -> None:
        given = request.headers.get("authorization", "")
        if self._key not in given and request.path not in {"/v1/models", "/health"}:
            raise StandInError(401, {"message": f"Invalid API Key {given}", "code": 401})
        listed = {"data": [{"id": name, "meta": {"n_ctx_train": 2048}} for name in self._names]}
        told: dict[str, object] = {"default_generation_settings": {"n_ctx": 2048}, "tokens": [1]}
        if request.path == "/completion":
            error = {"message": f"bad key {given.removeprefix('Bearer ')}", "code": 400}
            await answer.begin("text/event-stream")
            await answer.piece(b"data: " + json.dumps({"error": error}).encode() + b"\n\n")
            await answer.end()
        else:
            await answer.whole(listed if request.path == "/v1/models" else told)


Serve = Callable[..., None]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_tcp_port: int) -> Iterator[Serve]:
    """Puts stand-ins at the addresses at which LMStrix looks for each server."""
    for name in ("LMSTRIX_ADAPTER", "LMSTRIX_HOST", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    nobody = f"http://127.0.0.1:{free_tcp_port}"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(discovery, "DEFAULT_PORTS", ())
    monkeypatch.setattr(ollama, "DEFAULT_ADDRESS", nobody)
    monkeypatch.setattr(llama_server, "DEFAULT_ADDRESSES", (nobody, nobody))
    internal = tmp_path / ".lmstudio" / ".internal"
    internal.mkdir(parents=True)

    def start(*servers: HttpServer | LMStudioServer) -> None:
        for server in servers:
            stack.enter_context(portal.wrap_async_context_manager(server))
            match server:
                case OllamaServer():
                    monkeypatch.setattr(ollama, "DEFAULT_ADDRESS", f"http://{server.host}")
                case LMStudioServer():
                    port = server.host.rpartition(":")[2]
                    (internal / "http-server.json").write_text(f'{{"port": {port}}}')
                case _:
                    addresses = (nobody, f"http://{server.host}")
                    monkeypatch.setattr(llama_server, "DEFAULT_ADDRESSES", addresses)

    with start_blocking_portal() as portal, ExitStack() as stack:
        yield start


def shell(*arguments: str, code: int | None = None) -> Result:
    return invoked("--store", "memory", *arguments, code=code)


def models(*keys: str) -> SimulatedAdapter:
    return SimulatedAdapter(*(attrs.evolve(MODEL, key=key) for key in keys))


SHORT = ("--quick", "--max-context", "512", "--levels", "none")
"""Options of a measurement that asks little more than the baseline."""


def adapter_of(*words: str) -> str:
    """The adapter in the report of a quick measurement."""
    result = shell(*words, *SHORT, "--json", code=0)
    adapter: str = json.loads(result.stdout)["environment"]["adapter"]
    return adapter


def test_the_one_server_that_has_a_model_is_used(serve: Serve) -> None:
    serve(OllamaServer(models("m:latest", "org/deep")), LMStudioServer(models("studio")))
    both = shell("test", "deep", "studio", *SHORT, "--json")
    reports = [json.loads(line) for line in both.stdout.splitlines()]
    assert [one["environment"]["adapter"] for one in reports] == ["ollama", "lmstudio"]
    for command in (
        ("infer", "org/deep", "Hello"),
        ("map", "org/deep", "--max-context", "1k", "--force"),
        ("bench", "org/deep", "--max-context", "1k", "--rounds", "1"),
        ("test", "org/deep", "--dry-run"),
    ):
        shell(*command, code=0)


def test_scan_lists_files_and_lm_studios_models(serve: Serve) -> None:
    away = shell("scan", code=3)
    assert "LM Studio does not answer" in away.stderr
    assert "lmstrix demo" in away.stderr
    file = platformdirs.user_cache_path("lmstrix") / "models" / "one.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"GGUF" + bytes(60))  # not a sound model, but a file to be listed
    result = shell("scan", "--json", code=0)
    assert "LM Studio does not answer" in result.stderr
    assert json.loads(result.stdout)["key"] == str(file)  # what `lmstrix test` takes
    for named in (("--host", NOBODY), ("--adapter", "lmstudio")):
        shell("scan", "--json", *named, code=3)
    serve(LMStudioServer(models("served")))
    result = shell("scan", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    keys = [json.loads(line)["key"] for line in result.stdout.splitlines()]
    assert keys == ["served", str(file)]


def test_scan_lists_the_models_of_every_server(serve: Serve) -> None:
    serve(OllamaServer(models("m:latest")), LlamaServer("org/served"))
    lines = [line.split() for line in shell("scan").stdout.splitlines()]
    assert lines[0][:2] == ["MODEL", "SERVER"]
    assert [line[:2] for line in lines[1:]] == [
        ["m:latest", "ollama"],
        ["org/served", "llama-server"],
    ]
    serve(LMStudioServer(models("studio")))
    found = [json.loads(line) for line in shell("scan", "--json").stdout.splitlines()]
    assert [(one["adapter"], one["key"]) for one in found] == [
        ("lmstudio", "studio"),
        ("ollama", "m:latest"),
        ("llama-server", "org/served"),
    ]
    one = shell("--adapter", "ollama", "scan").stdout
    assert "m:latest" in one
    assert "SERVER" not in one


def test_another_program_at_the_address_and_a_variable_are_named(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = LlamaServer("served")
    serve(server)
    found = shell("--adapter", "lmstudio", "--host", server.host, "scan", code=3)
    assert f"the program that answers at {server.host} is not LM Studio" in found.stderr
    monkeypatch.setenv("LMSTRIX_HOST", "127.0.0.1:9")
    assert "LMSTRIX_HOST names that address" in shell("--adapter", "lmstudio", "scan").stderr
    unknown = shell("test", "m", "--levels", "all")
    assert "unknown validator 'all'" in unknown.stderr
    assert "LMSTRIX" not in unknown.stderr


def test_status_and_all_say_what_they_leave_out(serve: Serve) -> None:
    shell("status", code=3)
    serve(OllamaServer(models("m:latest", "n:latest"), preload=[("m:latest", 1024)]))
    only = shell("status")
    assert (only.exit_code, "m:latest" in only.stdout) == (0, True)
    serve(LMStudioServer(models("studio")))
    both = shell("status")
    assert "--adapter ollama status" in both.stderr
    assert "m:latest" not in both.stdout
    every = shell("test", "--all", "--dry-run", code=0)
    assert "not included: 2 models on Ollama" in every.stderr


def test_the_users_model_is_in_use_unless_it_is_forced(serve: Serve) -> None:
    server = OllamaServer(SimulatedAdapter(MODEL), preload=[("m:latest", 1024)])
    serve(server)
    one_length = shell("test", "m", "--at", "1k", "--json")
    check = json.loads(one_length.stdout)
    assert (check["outcome"], check["cause"]) == ("inconclusive", "model_in_use")  # no failure
    refused = shell("test", "m", "--quick")
    assert (one_length.exit_code, refused.exit_code, server.loads) == (4, 4, 0)
    assert "ollama stop" in refused.stderr
    assert "--force" in refused.stderr
    shell("test", "m", *SHORT, "--force", code=0)
    assert server.loaded == {"m:latest": 1024}


def test_two_servers_that_have_a_model_are_not_guessed(serve: Serve) -> None:
    ollamas = OllamaServer(models("m:latest", "other", "alone"))
    serve(ollamas, LMStudioServer(models("m")), LlamaServer("org/m", "other"))
    for words in (("test", "m"), ("test", "--dry-run", "m"), ("infer", "m", "Hello"), ("map", "m")):
        result = shell(*words, code=2)
        assert "'m' is on several servers: lmstudio, ollama, llama-server" in result.stderr
        assert "--adapter lmstudio" in result.stderr
    assert "on several servers: ollama, llama-server" in shell("test", "other").stderr
    shell("test", "alone", "m", code=2)
    assert ollamas.loads == 0
    shell("--adapter", "ollama", "infer", "m", "Hello", code=0)
    assert ollamas.left_behind == []


def test_near_names_come_from_all_servers(serve: Serve) -> None:
    serve(OllamaServer(models("qwen3:8b")), LlamaServer("qwen3:14b"))
    away = shell("test", "qwen3:9b", code=4)
    on = "no server that answers has a model 'qwen3:9b' (models on Ollama: 1, llama-server: 1)"
    assert f"{on}; LM Studio does not answer" in away.stderr
    assert '"qwen3:8b" or "qwen3:14b"' in away.stderr
    serve(LMStudioServer(models("qwen3-9b", "unlike")))
    result = shell("test", "qwen3:9b", "--json", code=4)
    assert "(models on LM Studio: 2, Ollama: 1, llama-server: 1)" in result.stderr
    for key in ("qwen3:8b", "qwen3:14b", "qwen3-9b"):
        assert f'"{key}"' in result.stderr
    assert json.loads(result.stdout)["cause"] == "model_not_found"


def test_who_names_a_place_or_a_file_asks_no_other_server(serve: Serve, tmp_path: Path) -> None:
    served, studio = LlamaServer("m", "file.gguf"), LMStudioServer(models("studio"))
    serve(served, studio)
    shell("--adapter", "lmstudio", "test", "m", code=4)
    shell("--host", studio.host, "test", "m", code=4)
    shell("test", str(tmp_path / "file.gguf"), code=4)
    assert served.requests == []


def keys_sent_to(server: HttpServer) -> set[str]:
    """The keys in its requests so far, which are forgotten; there were some requests."""
    assert server.requests
    keys = {request.headers.get("authorization", "") for request in server.requests}
    server.requests.clear()
    return keys


def test_only_a_named_server_is_sent_the_key(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTRIX_API_KEY", "sk-secret")
    ollamas, served = OllamaServer(models("m:latest")), LlamaServer("other")
    serve(ollamas, served)
    measuring = ("test", "m", "--quick", "--max-context", "512")
    for command in (measuring, ("infer", "m", "Hello"), ("scan",), ("doctor",)):
        shell(*command)
        assert keys_sent_to(ollamas) == keys_sent_to(served) == {""}
    shell("--adapter", "ollama", "test", "m", "--quick")
    assert keys_sent_to(ollamas) == {"Bearer sk-secret"}
    monkeypatch.setenv("LMSTRIX_ADAPTER", "llama-server")
    shell("scan")
    assert keys_sent_to(served) == {"", "Bearer sk-secret"}  # once it is known to be one


def test_a_server_with_a_key_has_to_be_named(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTRIX_API_KEY", "sk-secret")
    served = LlamaServer("m", key="sk-secret")
    serve(served)
    result = shell("test", "m", code=3)
    assert "answered 401" in result.stderr
    assert "name the server with --adapter" in result.stderr
    assert "llm" in shell("scan").stdout  # it lists its models to everybody
    checks = json.loads(shell("doctor", "--json").stdout)["checks"]
    (found,) = [check for check in checks if check["check"] == "other servers"]
    assert found["verdict"] == "ok"
    assert "--adapter" in found["advice"]
    assert keys_sent_to(served) == {""}
    shell("--adapter", "llama-server", "scan", code=0)
    monkeypatch.setenv("LMSTRIX_API_KEY", "sk-wrong")
    wrong = shell("--adapter", "llama-server", "test", "m", "--json", code=3)
    assert "Invalid API Key Bearer [key]" in wrong.stderr
    assert "sk-wrong" not in wrong.stdout + wrong.stderr
    monkeypatch.setenv("LMSTRIX_API_KEY", "kéy")  # which no header can hold
    none = shell("test", "m")
    assert (none.exit_code, "LMSTRIX_API_KEY" in none.stderr) == (2, True)


def test_a_key_that_is_part_of_a_models_name(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of local servers are often no secrets."""
    monkeypatch.setenv("LMSTRIX_API_KEY", "lm")
    serve(OllamaServer(models("lm/m:latest")), LlamaServer("lm/m"))
    shell("--adapter", "ollama", "infer", "lm/m", "Hello", code=0)
    assert '"lm/m"' in shell("--adapter", "llama-server", "scan", "--json").stdout


def test_a_key_is_in_no_log(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTRIX_API_KEY", "sk-secret")
    log = tmp_path / "log"
    script = OpenAIScript(repeats_key=True)
    server, served = OpenAIServer(SimulatedAdapter(MODEL), script=script), LlamaServer("m")
    serve(server, served)
    words = ("--verbose", "--log-file", str(log), "test", "m:latest", *SHORT, "--json")
    result = shell(*OPENAI, server.host, *words, code=3)
    assert "secret" not in result.stdout + result.stderr + log.read_text(encoding="utf-8")
    streamed = shell("--adapter", "llama-server", "infer", "m", "Hello", code=1)
    assert "bad key [key]" in streamed.stderr


class SilentServer(HttpServer):
    """Takes requests and answers none."""

    async def handle(self, request: Request, answer: Answer) -> None:
        await anyio.sleep_forever()


def test_a_silent_server_keeps_nobody_waiting(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "ANSWER_S", 0.3)
    serve(SilentServer(), LMStudioServer(models("studio")))
    assert adapter_of("test", "studio") == "lmstudio"


def test_a_declared_context_for_a_server_that_tells_none(serve: Serve) -> None:
    server = OpenAIServer(SimulatedAdapter(MODEL), script=OpenAIScript(declares=False))
    serve(server)
    result = shell(*OPENAI, server.host, "--declared", "2048", "test", "m:latest", "--json")
    report = json.loads(result.stdout)
    assert (report["declared_context"], report["bracket"]) == (2048, [1408, 1472])


def test_the_command_to_go_on_names_the_server_that_was_measured(
    serve: Serve, tmp_path: Path
) -> None:
    store = ("--store", str(tmp_path / "s.sqlite3"))
    server, other = (OpenAIServer(SimulatedAdapter(MODEL)) for _ in range(2))
    serve(server, other)
    shell(*store, *OPENAI, server.host, "test", "m:latest", "--budget-tokens", "3000", code=5)
    [command] = json.loads(shell(*store, *OPENAI, other.host, "status", "--json").stdout)["go_on"]
    assert f"--host http://{server.host}/v1 " in command


def test_doctor_looks_at_the_server_that_is_named(serve: Serve) -> None:
    server = OllamaServer(SimulatedAdapter(MODEL))
    serve(server)
    named = shell("--adapter", "ollama", "--host", server.host, "doctor", "--json")
    found = {check["check"]: check for check in json.loads(named.stdout)["checks"]}
    assert found["other servers"]["verdict"] == found["LM Studio's server"]["verdict"] == "ok"
    assert server.host in found["other servers"]["found"]
    away = shell("--adapter", "ollama", "--host", NOBODY, "doctor")
    assert "ollama serve" in away.stdout


def test_measuring_elsewhere_needs_consent(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = OpenAIServer(SimulatedAdapter(MODEL))
    serve(server)
    # As on another machine.
    monkeypatch.setattr(openai, "is_loopback", str.isspace)
    for words in ("test m:latest", "test --all", "map m:latest", "bench m:latest"):
        refused = shell(*OPENAI, server.host, *words.split(), code=2)
        assert "is on another machine" in refused.stderr
        assert "--budget-tokens" in refused.stderr
    assert server.requests == []
    for words in (
        f"test m:latest {' '.join(SHORT)} --budget-tokens 200k",
        f"--yes test m:latest {' '.join(SHORT)}",
        "test m:latest --dry-run",
        "infer m:latest Hello",
        "scan",
    ):
        shell(*OPENAI, server.host, *words.split(), code=0)
