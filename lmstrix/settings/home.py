"""Where LM Studio keeps its things on this machine."""

from __future__ import annotations

from pathlib import Path

from lmstrix.settings.problems import SettingsError

__all__ = ["INTERNAL", "find_home"]

INTERNAL = ".internal"
"""LM Studio's own folder in its home: it is there as soon as LM Studio has run once."""
_POINTER = ".lmstudio-home-pointer"
_HINT = "Start LM Studio once, or name its folder with --home."


def find_home(chosen: Path | None = None, *, user_home: Path | None = None) -> Path:
    """LM Studio's home, with links followed: `chosen`, or where LM Studio's own tools look.

    They take the path in ``~/.lmstudio-home-pointer``, else ``~/.cache/lm-studio`` if there is
    one, else ``~/.lmstudio``. Raises `SettingsError` where LM Studio never ran there.
    """
    try:
        home = _pointed(user_home or Path.home()) if chosen is None else chosen.expanduser()
    except RuntimeError as error:  # the system does not tell who the user is
        raise SettingsError(f"your home folder is not known: {error}", hint=_HINT) from error
    try:
        home = home.resolve(strict=True)
        ran = (home / INTERNAL).is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # missing, a NUL inside, a loop
        raise SettingsError(f"there is no LM Studio home at {home}", hint=_HINT) from error
    if not ran:
        raise SettingsError(f"{home} is no LM Studio home: it has no {INTERNAL}", hint=_HINT)
    return home


def _pointed(user_home: Path) -> Path:
    pointer = user_home / _POINTER
    try:
        pointed = pointer.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        pointed = ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{pointer} cannot be read: {error}", hint=_HINT) from error
    if not pointed:
        legacy = user_home / ".cache" / "lm-studio"
        return legacy if legacy.is_dir() else user_home / ".lmstudio"
    if "\0" in pointed or not Path(pointed).is_absolute():
        raise SettingsError(f"{pointer} names no absolute path: {pointed[:200]!r}", hint=_HINT)
    return Path(pointed)
