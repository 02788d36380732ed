"""LM Studio's home folder. Outside of `lmstudio/`, so that reading it imports no SDK."""

from __future__ import annotations

from pathlib import Path

from lmstrix.errors import SettingsError

INTERNAL = ".internal"
"""LM Studio's own folder in its home; LM Studio creates it at its first start."""
_POINTER = ".lmstudio-home-pointer"
_HINT = "Start LM Studio once, or name its folder with --home."


def lmstudio_home() -> Path:
    """LM Studio's home, where its own tools look for it; the folder need not exist.

    They use the path in ``~/.lmstudio-home-pointer``, else ``~/.cache/lm-studio`` if it exists,
    else ``~/.lmstudio``. Raises `SettingsError` if the user has no home directory or the
    pointer does not name a path.
    """
    try:
        user_home = Path.home()
    except RuntimeError as error:
        raise SettingsError("your home directory is not known", hint=_HINT) from error
    pointer = user_home / _POINTER
    try:
        pointed = pointer.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        pointed = ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{pointer} cannot be read: {error}", hint=_HINT) from error
    if not pointed:
        legacy = user_home / ".cache" / "lm-studio"
        return legacy if legacy.is_dir() else user_home / ".lmstudio"
    if "\0" in pointed or not Path(pointed).is_absolute():
        raise SettingsError(
            f"{pointer} does not name an absolute path: {pointed[:200]!r}", hint=_HINT
        )
    return Path(pointed)


def existing_home(chosen: Path | None = None) -> Path:
    """`chosen`, or else `lmstudio_home`, with links resolved.

    Raises `SettingsError` if LM Studio never ran there.
    """
    home = lmstudio_home() if chosen is None else chosen
    try:
        found = home.expanduser().resolve(strict=True)
        ran = (found / INTERNAL).is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # missing, a NUL, a loop of links
        raise SettingsError(f"there is no LM Studio home at {home}", hint=_HINT) from error
    if not ran:
        raise SettingsError(f"{found} is not an LM Studio home: it has no {INTERNAL}", hint=_HINT)
    return found
