"""Fixtures shared by all tests: both event loops, and the real demo model."""

from __future__ import annotations

import os
import ssl
from collections.abc import Generator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import anyio
import pytest

from lmstrix.demo import fetch_demo_model
from lmstrix.locks import FOLDER_VARIABLE

pytest.register_assert_rewrite("lmstrix.testing.contracts")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test runs on both event loops."""
    return str(request.param)


@pytest.fixture(scope="session", autouse=True)
def turns_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Tests, and processes that they start, wait for no measurement of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("turns")))
        yield


@pytest.fixture(scope="session", autouse=True)
def certificates_read_once() -> Generator[None]:
    """httpx reads all of the system's certificates for every client, also for one that speaks to
    a server of ours without encryption: a third of what a test with LM Studio's SDK takes.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", cache(ssl.create_default_context))
        yield


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demo model's GGUF file, fetched once into the user's cache.

    ``LMSTRIX_TEST_GGUF`` names another file to use instead. Where it cannot be fetched, the
    tests that need it fail rather than pass unseen: ``-m "not engine"`` leaves them out.
    """
    if find_spec("xllamacpp") is None:
        pytest.skip("the extra `llamacpp` is not installed")
    given = os.environ.get("LMSTRIX_TEST_GGUF")
    return Path(given) if given else anyio.run(fetch_demo_model)
