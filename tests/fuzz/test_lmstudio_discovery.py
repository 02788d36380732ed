"""Where LM Studio is said to be: files in its home, hosts, and who greets."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz_counts import put_through
from fuzz_values import NAMES, TEXTS, damaged, deep, fuzz, texts_of
from hypothesis import example, given
from hypothesis import strategies as st

from lmstrix.adapters.llamacpp.catalogue import Catalogue, default_folders
from lmstrix.adapters.lmstudio.discovery import (
    addresses,
    parse_host,
    says_lmstudio,
    told_port,
)
from lmstrix.adapters.lmstudio_home import existing_home
from lmstrix.errors import ConfigurationError, SettingsError

GREETING = json.dumps({"lmstudio": True}).encode()
DEEP = b"[" * 100_000


@fuzz
@given(texts_of({"port": 41343, "host": "127.0.0.1"}))
@example("[" * 100_000)
def test_ports(text: str) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder, ".internal", "http-server.json")
        file.parent.mkdir()
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        port = put_through("LM Studio's http-server.json", lambda: told_port(Path(folder)))
        assert port is None or 0 < port < 65536


@fuzz
@given(NAMES | st.sampled_from(["127.0.0.1:1234", "http://[::1]:80/", "x:99999", "a:b@c:1"]))
def test_hosts(text: str) -> None:
    host = put_through("--host", lambda: parse_host(text), ConfigurationError)
    assert host is None or (host.isprintable() and not set("/?#@\\ ") & set(host))


@fuzz
@given(NAMES)
@example("/nul\0inside")
def test_pointers(pointer: str) -> None:
    file = Path.home() / ".lmstudio-home-pointer"
    file.write_bytes(pointer.encode("utf-8", "surrogatepass"))
    try:
        assert put_through("LM Studio's home pointer", lambda: addresses(None))
        put_through("LM Studio's home pointer", existing_home, SettingsError)
        found = put_through(
            "LM Studio's home pointer", lambda: Catalogue(default_folders()[:1]).list_models()
        )
        assert not found
    finally:
        file.unlink()


@fuzz
@given(damaged(GREETING) | TEXTS.map(lambda text: text.encode("utf-8", "replace")))
@example(DEEP)
@example(json.dumps(deep(300)).encode())
def test_greetings(content: bytes) -> None:
    assert put_through("LM Studio's greeting", lambda: says_lmstudio(content)) in (True, False)
