"""LM Studio's home is found as its own tools find it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lmstrix.adapters.llamacpp.catalogue import default_folders
from lmstrix.adapters.lmstudio.discovery import addresses
from lmstrix.adapters.lmstudio_home import existing_home, lmstudio_home
from lmstrix.errors import SettingsError


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


@pytest.mark.parametrize(
    ("pointed", "advice"),
    [
        (b"relative/lms", "--home"),
        (b"/a\0b", "--home"),
        (b"/no/such/folder", "--home"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_pointer_to_nowhere_is_an_error_and_no_other_home_is_taken(
    tmp_path: Path, pointed: bytes, advice: str
) -> None:
    ran_in(tmp_path / ".lmstudio")
    (tmp_path / ".lmstudio-home-pointer").write_bytes(pointed)
    with pytest.raises(SettingsError) as caught:
        existing_home()
    assert advice in f"{caught.value} {caught.value.hint}"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_home_behind_a_link_is_that_home(tmp_path: Path) -> None:
    real = ran_in(tmp_path / "disk" / "lms")
    (tmp_path / ".lmstudio").symlink_to(real)
    assert existing_home() == real


def test_a_folder_where_lm_studio_never_ran_is_no_home(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no LM Studio home at"):
        existing_home()
    with pytest.raises(SettingsError, match=r"it has no \.internal"):
        existing_home(tmp_path)


def test_without_a_home_directory_the_rest_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(SettingsError, match="your home directory is not known"):
        lmstudio_home()
    assert addresses(None)
    assert len(default_folders()) == 1
