"""The options for one adapter only, and measurements through the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import attrs
import pytest
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner

from lmstrix import plugins
from lmstrix.adapters import llama_server, ollama, openai
from lmstrix.adapters.lmstudio import discovery
from lmstrix.testing.http_server import Answer, HttpServer, Request, StandInError
from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.ollama import OllamaServer
from lmstrix.testing.openai import OpenAIScript, OpenAIServer
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel
from lmstrix_cli.main import lmstrix

MODEL = SimulatedModel(key="m:latest", declared=2048, true_context=1400, beyond=Beyond.FORGETS_ALL)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@attrs.frozen
class Result:
    """What a command printed, and its exit code."""

    exit_code: int
    stdout: str
    stderr: str


async def run(server: HttpServer | None, adapter: str, *arguments: str) -> Result:
    """In a process of its own, which a server in this one can answer."""
    host = ("--host", server.host) if server else ()
    command = [sys.executable, "-m", "lmstrix_cli", "--adapter", adapter, *host]
    done = await anyio.run_process([*command, "--store", "memory", *arguments], check=False)
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


async def test_a_model_in_ollama() -> None:
    async with OllamaServer(SimulatedAdapter(MODEL)) as server:
        result = await run(server, "ollama", "test", "m", "--json")
        report = json.loads(result.stdout)
        assert (result.exit_code, report["cause"]) == (0, "forgets")
        assert report["bracket"] == [1408, 1472]
        assert server.left_behind == []
        assert "m:latest" in (await run(server, "ollama", "scan")).stdout
        assert (await run(server, "ollama", "infer", "m", "Hello")).exit_code == 0


async def test_the_users_model_in_ollama() -> None:
    async with OllamaServer(SimulatedAdapter(MODEL), preload=[("m:latest", 1024)]) as server:
        result = await run(server, "ollama", "test", "m")
        assert result.exit_code == 4
        assert "ollama stop" in result.stderr
        assert (server.loaded, server.loads) == ({"m:latest": 1024}, 0)
        assert (await run(server, "ollama", "test", "m", "--force")).exit_code == 0
        assert server.loaded == {"m:latest": 1024}


async def test_a_declared_context_for_a_server_that_tells_none() -> None:
    script = OpenAIScript(declares=False)
    async with OpenAIServer(SimulatedAdapter(MODEL), script=script) as server:
        result = await run(server, "openai", "--declared", "2048", "test", "m:latest", "--json")
        report = json.loads(result.stdout)
        assert (report["declared_context"], report["bracket"]) == (2048, [1408, 1472])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("ollama", "--declared", "5"), "--declared is for --adapter openai"),
        (("lmstudio", "--yes"), "--yes is for --adapter openai"),
        (("openai", "--binary", "x"), "--binary is for --adapter llama-server"),
        (("llama-server", "--server-args", "-ngl 9"), "--binary"),
        (("llama-server", "--binary", "/no/such"), "not a program"),
    ],
)
async def test_options_for_another_adapter(options: tuple[str, ...], words: str) -> None:
    result = await run(None, *options, "scan")
    assert result.exit_code == 2
    assert words in result.stderr


async def test_the_key_is_in_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTRIX_API_KEY", "sk-secret")
    log = tmp_path / "log"
    async with OpenAIServer(
        SimulatedAdapter(MODEL), script=OpenAIScript(repeats_key=True)
    ) as server:
        result = await run(
            server, "openai", "--verbose", "--log-file", str(log), "test", "m:latest", "--json"
        )
    assert result.exit_code == 3
    assert "secret" not in result.stdout + result.stderr + log.read_text(encoding="utf-8")


async def test_servers_of_this_machine_are_found(free_tcp_port: int) -> None:
    """On their own ports; a server on another port is looked at if it is named."""
    async with OllamaServer(SimulatedAdapter(MODEL)) as server:
        checks = json.loads((await run(server, "ollama", "doctor", "--json")).stdout)["checks"]
        found = {check["check"]: check for check in checks}
        assert found["other servers"]["verdict"] == "ok"
        assert server.host in found["other servers"]["found"]
        assert found["LM Studio's server"]["verdict"] == "ok"
    away = await run(None, "ollama", "--host", f"127.0.0.1:{free_tcp_port}", "doctor")
    assert "ollama serve" in away.stdout


class LlamaServer(HttpServer):
    """A llama-server that serves models of these names; all but their list may want a key."""

    def __init__(self, *names: str, key: str = "") -> None:
        super().__init__()
        self._names = names
        self._key = key

    async def handle(self, request: Request, answer: Answer) -> None:
        """The list of models; its health for anything else."""
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
    for name in ("LMSTRIX_ADAPTER", "LMSTRIX_HOST"):
        monkeypatch.delenv(name, raising=False)
    nobody = f"http://127.0.0.1:{free_tcp_port}"
    monkeypatch.setenv("HOME", str(tmp_path))
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


def shell(*arguments: str) -> Result:
    """In this process."""
    done = CliRunner().invoke(lmstrix, ["--store", "memory", *arguments])
    return Result(done.exit_code, done.stdout, done.stderr)


def models(*keys: str) -> SimulatedAdapter:
    return SimulatedAdapter(*(attrs.evolve(MODEL, key=key) for key in keys))


def adapter_of(result: Result) -> str:
    """The adapter in a report, and that there is a result."""
    assert result.exit_code == 0, result.stderr
    adapter: str = json.loads(result.stdout)["environment"]["adapter"]
    return adapter


def test_the_one_server_that_has_a_model_is_used(serve: Serve) -> None:
    serve(OllamaServer(models("m:latest", "org/deep")), LMStudioServer(models("studio")))
    assert adapter_of(shell("test", "m", "--quick", "--json")) == "ollama"
    assert adapter_of(shell("test", "studio", "--quick", "--json")) == "lmstudio"
    both = shell("test", "deep", "studio", "--quick", "--json")
    reports = [json.loads(line) for line in both.stdout.splitlines()]
    assert [one["environment"]["adapter"] for one in reports] == ["ollama", "lmstudio"]


@pytest.mark.parametrize(
    "command",
    [
        ("infer", "org/deep", "Hello"),
        ("map", "org/deep", "--max-context", "1k", "--force"),
        ("bench", "org/deep", "--max-context", "1k", "--rounds", "1"),
        ("test", "org/deep", "--dry-run"),
    ],
)
def test_every_command_finds_the_server(serve: Serve, command: tuple[str, ...]) -> None:
    serve(OllamaServer(models("org/deep")))
    result = shell(*command)
    assert result.exit_code == 0, result.stderr


def test_scan_lists_the_models_of_every_server(serve: Serve, tmp_path: Path) -> None:
    away = shell("scan")
    assert away.exit_code == 3
    assert "LM Studio does not answer" in away.stderr
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


def test_status_shows_a_server_that_answers(serve: Serve) -> None:
    assert shell("status").exit_code == 3
    serve(OllamaServer(models("m:latest"), preload=[("m:latest", 1024)]))
    only = shell("status")
    assert (only.exit_code, "m:latest" in only.stdout) == (0, True)
    serve(LMStudioServer(models("studio")))
    both = shell("status")
    assert "--adapter ollama status" in both.stderr
    assert "m:latest" not in both.stdout


def test_all_says_what_it_leaves_out(serve: Serve) -> None:
    serve(LMStudioServer(models("studio")), OllamaServer(models("m:latest", "n:latest")))
    result = shell("test", "--all", "--dry-run")
    assert result.exit_code == 0
    assert "not included: 2 models on ollama" in result.stderr


def test_a_name_that_no_server_has(serve: Serve) -> None:
    serve(OllamaServer(models("qwen3:8b")))
    missing = shell("test", "qwen4")
    assert missing.exit_code == 3
    assert "no model 'qwen4' on ollama, and LM Studio does not answer" in missing.stderr
    assert 'Did you mean "qwen3:8b"?' in missing.stderr


def test_a_model_in_use_is_no_failure_at_a_length(serve: Serve) -> None:
    serve(OllamaServer(SimulatedAdapter(MODEL), preload=[("m:latest", 1024)]))
    result = shell("test", "m", "--at", "1k", "--json")
    assert result.exit_code == 4
    check = json.loads(result.stdout)
    assert (check["outcome"], check["cause"]) == ("inconclusive", "model_in_use")


def test_force_reaches_the_server_that_was_found(serve: Serve) -> None:
    server = OllamaServer(SimulatedAdapter(MODEL), preload=[("m:latest", 1024)])
    serve(server)
    assert "--force" in shell("test", "m", "--quick").stderr
    assert shell("test", "m", "--quick", "--force").exit_code == 0
    assert server.loaded == {"m:latest": 1024}


@pytest.mark.parametrize("command", [("test",), ("test", "--dry-run"), ("infer",), ("map",)])
def test_two_servers_that_have_a_model_are_not_guessed(
    serve: Serve, command: tuple[str, ...]
) -> None:
    ollamas = OllamaServer(models("m:latest", "other"))
    serve(ollamas, LMStudioServer(models("m")), LlamaServer("org/m", "other"))
    result = shell(*command, "m", *(["Hello"] if command == ("infer",) else []))
    assert result.exit_code == 2
    assert "'m' is on several servers: lmstudio, ollama, llama-server" in result.stderr
    assert "--adapter lmstudio" in result.stderr
    assert "on several servers: ollama, llama-server" in shell("test", "other").stderr
    assert adapter_of(shell("--adapter", "ollama", "test", "m", "--quick", "--json")) == "ollama"
    assert ollamas.left_behind == []


def test_nothing_is_measured_if_one_of_several_names_is_ambiguous(serve: Serve) -> None:
    server = OllamaServer(models("m", "other"))
    serve(server, LMStudioServer(models("m")))
    result = shell("test", "other", "m")
    assert (result.exit_code, server.loads) == (2, 0)


def test_near_names_come_from_all_servers(serve: Serve) -> None:
    serve(OllamaServer(models("qwen3:8b")), LlamaServer("qwen3:14b"))
    away = shell("test", "qwen3:9b")
    assert away.exit_code == 3
    assert "LM Studio does not answer" in away.stderr
    assert '"qwen3:8b" or "qwen3:14b"' in away.stderr
    serve(LMStudioServer(models("qwen3-9b", "unlike")))
    result = shell("test", "qwen3:9b", "--json")
    assert result.exit_code == 4
    assert "LM Studio has no model 'qwen3:9b'" in result.stderr
    for key in ("qwen3:8b", "qwen3:14b", "qwen3-9b"):
        assert f'"{key}"' in result.stderr
    assert json.loads(result.stdout)["cause"] == "model_not_found"


def test_who_names_a_place_or_a_file_asks_no_other_server(serve: Serve, tmp_path: Path) -> None:
    served, studio = LlamaServer("m", "file.gguf"), LMStudioServer(models("studio"))
    serve(served, studio)
    assert shell("--adapter", "lmstudio", "test", "m").exit_code == 4
    assert shell("--host", studio.host, "test", "m").exit_code == 4
    assert shell("test", str(tmp_path / "file.gguf")).exit_code == 4
    assert served.requests == []


def test_a_key_that_cannot_be_one_is_wrong_usage(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve()
    monkeypatch.setenv("LMSTRIX_API_KEY", "kéy")
    result = shell("test", "m")
    assert result.exit_code == 2
    assert "LMSTRIX_API_KEY" in result.stderr


def keys_sent_to(server: HttpServer) -> set[str]:
    """The keys in its requests so far, which are forgotten; there were some requests."""
    assert server.requests
    keys = {request.headers.get("authorization", "") for request in server.requests}
    server.requests.clear()
    return keys


def test_only_a_server_that_was_named_is_sent_the_key(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMSTRIX_API_KEY", "sk-secret")
    ollamas, served = OllamaServer(models("m:latest")), LlamaServer("other")
    serve(ollamas, served)
    for command in (("test", "m", "--quick"), ("infer", "m", "Hello"), ("scan",), ("doctor",)):
        shell(*command)
        assert keys_sent_to(ollamas) == keys_sent_to(served) == {""}
    shell("--adapter", "ollama", "test", "m", "--quick")
    assert keys_sent_to(ollamas) == {"Bearer sk-secret"}
    monkeypatch.setenv("LMSTRIX_ADAPTER", "llama-server")
    shell("scan")
    assert keys_sent_to(served) == {"Bearer sk-secret"}


def test_a_server_that_wants_a_key_has_to_be_named(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMSTRIX_API_KEY", "sk-secret")
    served = LlamaServer("m", key="sk-secret")
    serve(served)
    result = shell("test", "m")
    assert result.exit_code == 3
    assert "answered 401" in result.stderr
    assert "name the server with --adapter" in result.stderr
    assert "llm" in shell("scan").stdout  # it lists its models to everybody
    checks = json.loads(shell("doctor", "--json").stdout)["checks"]
    (found,) = [check for check in checks if check["check"] == "other servers"]
    assert found["verdict"] == "ok"
    assert "--adapter" in found["advice"]
    assert keys_sent_to(served) == {""}
    assert shell("--adapter", "llama-server", "scan").exit_code == 0
    monkeypatch.setenv("LMSTRIX_API_KEY", "sk-wrong")
    wrong = shell("--adapter", "llama-server", "test", "m", "--json")
    assert wrong.exit_code == 3
    assert "Invalid API Key Bearer [key]" in wrong.stderr
    assert "sk-wrong" not in wrong.stdout + wrong.stderr


def test_a_key_that_is_part_of_a_models_name(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of local servers are often no secrets."""
    monkeypatch.setenv("LMSTRIX_API_KEY", "lm")
    serve(OllamaServer(models("lm/m:latest")), LlamaServer("lm/m"))
    assert shell("--adapter", "ollama", "test", "lm/m", "--quick").exit_code == 0
    assert '"lm/m"' in shell("--adapter", "llama-server", "scan", "--json").stdout


def test_a_short_key_is_hidden_in_a_streamed_error(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMSTRIX_API_KEY", "sk-short")
    serve(LlamaServer("m"))
    result = shell("--adapter", "llama-server", "infer", "m", "Hello")
    assert result.exit_code == 1
    assert "bad key [key]" in result.stderr


def test_another_program_may_have_the_usual_port(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, another = LlamaServer("m"), OllamaServer(models("x"))
    serve(served, another)
    addresses = (f"http://{another.host}", f"http://{served.host}")
    monkeypatch.setattr(llama_server, "DEFAULT_ADDRESSES", addresses)
    assert shell("--adapter", "llama-server", "scan", "--json").exit_code == 0


class SilentServer(HttpServer):
    """Takes requests and answers none."""

    async def handle(self, request: Request, answer: Answer) -> None:
        """Wait to be closed."""
        await anyio.sleep_forever()


def test_a_server_that_answers_nothing_keeps_nobody_waiting(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "ANSWER_S", 0.3)
    serve(SilentServer(), LMStudioServer(models("studio")))
    assert adapter_of(shell("test", "studio", "--quick", "--json")) == "lmstudio"


REMOTE = ("--adapter", "openai", "--host")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    """A server that is taken for one on another machine."""

    def is_loopback(address: str) -> bool:
        return not address

    monkeypatch.setattr(openai, "is_loopback", is_loopback)
    server = OpenAIServer(SimulatedAdapter(MODEL))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server):
        yield server


@pytest.mark.parametrize(
    "command", [("test", "m:latest"), ("test", "--all"), ("map", "m:latest"), ("bench", "m:latest")]
)
def test_a_measurement_elsewhere_is_refused_before_a_request(
    elsewhere: OpenAIServer, command: tuple[str, ...]
) -> None:
    result = shell(*REMOTE, elsewhere.host, *command)
    assert result.exit_code == 2
    assert "is not this machine" in result.stderr
    assert "--budget-tokens" in result.stderr
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    "command",
    [
        ("test", "m:latest", "--quick", "--budget-tokens", "200k"),
        ("--yes", "test", "m:latest", "--quick"),
        ("test", "m:latest", "--dry-run"),
        ("infer", "m:latest", "Hello"),
        ("scan",),
    ],
)
def test_what_a_server_elsewhere_is_asked(
    elsewhere: OpenAIServer, command: tuple[str, ...]
) -> None:
    result = shell(*REMOTE, elsewhere.host, *command)
    assert result.exit_code == 0, result.stderr
