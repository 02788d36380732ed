"""Settings for other servers are text; a model's path cannot smuggle in another line."""

from __future__ import annotations

import pytest

from lmstrix.apply import llama_server_arguments, ollama_modelfile
from lmstrix.testing.samples import sample_model


def test_llama_server() -> None:
    assert llama_server_arguments(6144) == "-c 6144"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/models/m.gguf", "/models/m.gguf"),
        ("/my models/m.gguf", '"/my models/m.gguf"'),
        ("pub/repo/m.gguf", "NAME-OF-YOUR-MODEL"),
        ("/models/mlx", "NAME-OF-YOUR-MODEL"),
        ("", "NAME-OF-YOUR-MODEL"),
        ("/m\nSYSTEM evil.gguf", "NAME-OF-YOUR-MODEL"),
        ('/m".gguf', "NAME-OF-YOUR-MODEL"),
        ("/m\u2028x.gguf", "NAME-OF-YOUR-MODEL"),
    ],
)
def test_ollama(path: str, source: str) -> None:
    text = ollama_modelfile(sample_model(path=path), 6144)
    assert text == f"FROM {source}\nPARAMETER num_ctx 6144"
