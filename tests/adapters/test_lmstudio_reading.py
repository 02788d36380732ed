"""What LM Studio lists, says and sends is read; its home and its address are found."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmstrix import errors
from lmstrix.adapters.http import named_model
from lmstrix.adapters.llamacpp.catalogue import default_folders
from lmstrix.adapters.lmstudio import LMStudioAdapter, discovery, protocol
from lmstrix.adapters.lmstudio.listing import device_of, parse_listing, wire_key
from lmstrix.adapters.lmstudio.protocol import Generation
from lmstrix.adapters.lmstudio_home import existing_home, lmstudio_home
from lmstrix.json_values import Json, as_count, as_seconds
from lmstrix.models import Reply, StopReason
from lmstrix.testing.lmstudio import ODD_LISTING

CRASH = "The model has crashed without additional information. (Exit code: 18446744072635812000)"
LOADS = {
    errors.LoadRefused: [
        "Model load error: Model loading was stopped due to insufficient system resources. …",
        "Load blocked by a Guardrail",
    ],
    errors.LoadFailed: [CRASH, "Failed to load model", "Error loading model", ""],
    errors.OutOfMemory: [
        "Failed to load model\nerror loading model: unable to allocate CUDA0 buffer",
        "ggml_metal: error: Insufficient Memory (00000008)",
        "vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
    ],
    errors.ModelNotFound: [
        "Cannot find a model with path or key 'x'\ngeneric.noModelMatchingQuery",
        "{'code': 'generic.pathNotFound'}",
    ],
    errors.EngineUnavailable: ["Failed to load model\nOperation canceled."],
}
PREDICTIONS = {
    errors.ContextOverflow: [
        "Trying to keep the first 9000 tokens when context the overflows",
        "Cannot truncate prompt with n_keep (9000) >= n_ctx (4096)",
        "Context size has been exceeded.",
    ],
    errors.EngineCrashed: [CRASH, "Exit code: 6"],
    errors.EngineUnavailable: [
        "Model unloaded.",
        "Model is unloaded.",
        "No model found that fits the query",
        "Cannot find a loaded model with identifier 'x'",
    ],
    errors.PredictionError: ["something else", ""],
}
CALLS = {
    errors.EngineCrashed: [CRASH],
    errors.ModelNotFound: ["Cannot find a model with path or key 'x'"],
    errors.EngineUnavailable: [
        "Cannot find a loaded model with identifier 'x'",
        "No model found that fits the query generic.noModelMatchingQuery",
        "no idea",
    ],
}


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (protocol.load_error, LOADS),
        (protocol.prediction_error, PREDICTIONS),
        (protocol.call_error, CALLS),
    ],
)
def test_words_become_errors(
    error: Callable[[str], errors.LMStrixError], kinds: dict[type[errors.LMStrixError], list[str]]
) -> None:
    for kind, texts in kinds.items():
        assert {text: type(error(text)) for text in texts} == dict.fromkeys(texts, kind)


# What is listed ----------------------------------------------------------------------------------


GEMMA = {
    "type": "llm",
    "modelKey": "google/gemma-3-4b",
    "format": "gguf",
    "path": "google/gemma-3-4b/gemma.gguf",
    "sizeBytes": 3_000_000_000,
    "paramsString": "4B",
    "architecture": "gemma3",
    "maxContextLength": 131072,
    "quantization": {"name": "Q4_K_M", "bits": 4},
}
EMBEDDING = {"type": "embedding", "modelKey": "nomic/embed", "maxContextLength": 2048}


def test_a_model_is_read_whole() -> None:
    (model,) = parse_listing([GEMMA])
    assert (model.key, model.type, model.format) == ("google/gemma-3-4b", "llm", "gguf")
    assert (model.size_bytes, model.declared_context) == (3_000_000_000, 131072)
    assert (model.parameters, model.architecture) == ("4B", "gemma3")
    assert model.quantization == "Q4_K_M"
    assert model.digest


def test_what_the_sdk_does_not_know_is_kept() -> None:
    models = {model.key: model for model in parse_listing([*ODD_LISTING, GEMMA])}
    assert models["odd/drafter"].type == "drafter"
    there = models["odd/pte (on another-machine)"]
    assert (there.format, there.quantization) == ("pte", "Q4_K_M")
    assert (wire_key(there), device_of(there)) == ("odd/pte", "another-machine")
    variant = models["odd/pte@q8_0 (on another-machine)"]
    assert (wire_key(variant), variant.quantization) == ("odd/pte@q8_0", "Q8_0")
    assert "odd/pte@q4_k_m (on another-machine)" not in models
    assert models["odd/bare"].declared_context is None
    assert list(models) == sorted(models)


def test_names() -> None:
    twins = [{**GEMMA, "modelKey": f"{place}/twin"} for place in "ab"]
    models, (gemma,) = parse_listing([GEMMA, EMBEDDING, *twins]), parse_listing([GEMMA])
    for name in ("google/gemma-3-4b", "gemma-3-4b"):
        assert named_model(models, name, "LM Studio") == gemma
    with pytest.raises(errors.UnsupportedModel):
        named_model(models, "nomic/embed", "LM Studio")
    with pytest.raises(errors.ModelNotFound) as caught:
        named_model(models, "gemma-3-4", "LM Studio")
    assert "google/gemma-3-4b" in caught.value.hint
    with pytest.raises(errors.ModelNotFound, match="could be any of 2"):
        named_model(models, "twin", "LM Studio")
    with pytest.raises(errors.ModelNotFound):
        named_model([], "", "LM Studio")


def test_a_model_elsewhere_and_a_changed_file_are_other_models() -> None:
    here, there = parse_listing([GEMMA, {**GEMMA, "deviceIdentifier": "attic"}])
    (changed,) = parse_listing([{**GEMMA, "sizeBytes": 5}])
    assert here.key != there.key
    assert len({here.digest, there.digest, changed.digest}) == 3
    assert wire_key(here) == wire_key(there)


NO_COUNTS: tuple[object, ...] = (math.nan, math.inf, -1, 1.5, True, "7", None, 10**400, [], {})


def test_counts_and_seconds() -> None:
    assert [as_count(value) for value in (7, 7.0, 0)] == [7, 7, 0]
    assert {as_count(value) for value in NO_COUNTS} == {None}
    assert [as_seconds(value) for value in (0.5, math.nan, "1")] == [0.5, None, None]


# What the packets of a prediction mean -----------------------------------------------------------


def started(*, sent: int | None = 100, context: int = 512, thinks: bool = False) -> Generation:
    return Generation(prompt_tokens=sent, max_tokens=10, context=context, in_thought=thinks)


def fragment(content: object, kind: object = "none") -> Json:
    return {"type": "fragment", "fragment": {"content": content, "reasoningType": kind}}


def success(reason: str = "eosFound", read: object = 100, generated: object = 3) -> Json:
    stats = {"stopReason": reason, "promptTokensCount": read, "predictedTokensCount": generated}
    return {"type": "success", "stats": stats}


def progress(**details: object) -> Json:
    return {"type": "promptProcessingProgress", "progress": 0.5, "details": details}


def reply_of(generation: Generation, *packets: Json) -> Reply:
    for packet in packets:
        generation.feed(packet, 1.5)
    assert generation.reply is not None
    return generation.reply


@pytest.mark.parametrize("reason", ["eosFound", "contextLengthReached"])
@pytest.mark.parametrize("read", [0, -1, None, 10**9, "100", float("nan"), True])
def test_an_unknown_number_of_prompt_tokens_is_no_limit(read: object, reason: str) -> None:
    # But without any count, that the context is full is believed.
    believed = read is None and reason == "contextLengthReached"
    with pytest.raises(errors.ContextOverflow if believed else errors.EngineUnavailable):
        started().feed(success(reason, read=read, generated=0), 0.0)


def test_less_read_than_sent_is_a_truncated_prompt() -> None:
    with pytest.raises(errors.PromptTruncated) as caught:
        started().feed(success(read=99), 0.0)
    assert (caught.value.read_tokens, caught.value.sent_tokens) == (99, 100)
    generation = started()
    assert reply_of(generation, success(read=101)).prompt_tokens == 101
    assert generation.surplus == 1


def test_the_end_of_the_context() -> None:
    full = success("contextLengthReached", generated=3)
    assert reply_of(started(), full).stop_reason is StopReason.CONTEXT_LENGTH
    for generation, packet in (
        (started(context=105), full),
        (started(), success("contextLengthReached", generated=0)),
    ):
        with pytest.raises(errors.ContextOverflow) as caught:
            generation.feed(packet, 0.0)
        assert caught.value.prompt_tokens == 100


def test_other_ends() -> None:
    with pytest.raises(errors.EngineUnavailable):
        started().feed(success("modelUnloaded"), 0.0)
    with pytest.raises(errors.PredictionError):
        started().feed(success("failed"), 0.0)
    assert reply_of(started(), success("of tomorrow")).stop_reason is StopReason.UNKNOWN


# Where LM Studio is ------------------------------------------------------------------------------


HOSTS = {
    "127.0.0.1:1234": "127.0.0.1:1234",
    " localhost:80/ ": "localhost:80",
    "http://studio.local:1234": "studio.local:1234",
    "[::1]:1234": "[::1]:1234",
}
NO_HOSTS = ("", "localhost", ":1", "a:0", "a:99999", "https://a:1", "a:1/b", "u@a:1", "a\n:1")


def test_hosts() -> None:
    assert {text: discovery.parse_host(text) for text in HOSTS} == HOSTS
    for text in NO_HOSTS:
        with pytest.raises(errors.ConfigurationError):
            discovery.parse_host(text)


def test_what_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in ({"stall_s": 0}, {"call_s": -1}, {"load_s": float("nan")}):
        with pytest.raises(errors.ConfigurationError):
            LMStudioAdapter(**settings)  # pyright: ignore[reportArgumentType] - on purpose
    monkeypatch.setenv("LMSTRIX_HOST", "nonsense")
    with pytest.raises(errors.ConfigurationError, match="nonsense"):
        LMStudioAdapter()


@pytest.fixture(autouse=True)
def user_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))


def ran_in(home: Path) -> Path:
    (home / ".internal").mkdir(parents=True)
    return home.resolve()


def test_the_older_one_then_the_pointer_then_what_the_user_says(tmp_path: Path) -> None:
    ran_in(tmp_path / ".lmstudio")
    older = ran_in(tmp_path / ".cache" / "lm-studio")
    assert existing_home() == older
    elsewhere = ran_in(tmp_path / "big disk" / "lms")
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{elsewhere}\n")
    assert existing_home() == elsewhere
    chosen = ran_in(tmp_path / "copy")
    assert existing_home(chosen) == chosen


def test_a_pointer_to_nowhere_is_an_error(tmp_path: Path) -> None:
    ran_in(tmp_path / ".lmstudio")
    advice = dict.fromkeys((b"relative/lms", b"/a\0b", b"/no/such/folder"), "--home")
    for pointed, words in (advice | {b"\xff\xfe": "cannot be read"}).items():
        (tmp_path / ".lmstudio-home-pointer").write_bytes(pointed)
        with pytest.raises(errors.SettingsError) as caught:
            existing_home()
        assert words in f"{caught.value} {caught.value.hint}"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_home_behind_a_link_is_that_home(tmp_path: Path) -> None:
    real = ran_in(tmp_path / "disk" / "lms")
    (tmp_path / ".lmstudio").symlink_to(real)
    assert existing_home() == real


def test_a_folder_where_lm_studio_never_ran_is_no_home(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match="no LM Studio home at"):
        existing_home()
    with pytest.raises(errors.SettingsError, match=r"it has no \.internal"):
        existing_home(tmp_path)


def test_without_a_home_directory_the_rest_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(errors.SettingsError, match="your home directory is not known"):
        lmstudio_home()
    assert discovery.addresses(None)
    assert len(default_folders()) == 1
