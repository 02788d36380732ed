"""Plug-ins by name: our own and those that other packages register as entry points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points

from lmstrix.errors import ConfigurationError, PluginNotFound

__all__ = ["ADAPTERS", "STORES", "STRATEGIES", "VALIDATORS", "make_plugin", "plugin_names"]

ADAPTERS = "lmstrix.adapters"
STRATEGIES = "lmstrix.strategies"
VALIDATORS = "lmstrix.validators"
STORES = "lmstrix.stores"


def _found(group: str) -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def plugin_names(group: str) -> tuple[str, ...]:
    """The names that `make_plugin` knows in a group, sorted."""
    return tuple(sorted(_found(group)))


def make_plugin(group: str, name: str, **settings: object) -> object:
    """A new plug-in object, made with `settings`.

    Raises:
        PluginNotFound: no package registers that name.
        ConfigurationError: it cannot be imported, or takes no such settings.
    """
    found = _found(group)
    family = group.rpartition(".")[2]
    if name not in found:
        raise PluginNotFound(
            f"there is no {name!r} among the {family}",
            hint=f"Known {family}: {', '.join(sorted(found)) or 'none'}.",
        )
    factory = _load(found[name])
    try:
        return factory(**settings)
    except TypeError as error:
        names = ", ".join(settings) or "none"
        raise ConfigurationError(f"{name!r} does not take these settings: {names}") from error


def _load(point: EntryPoint) -> Callable[..., object]:
    """What the entry point names; a package that is broken or half removed is said to be."""
    try:
        loaded: object = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{point.name!r} cannot be imported: {error}") from error
    if not callable(loaded):
        raise ConfigurationError(f"{point.name!r} is {point.value}, which cannot be called")
    return loaded
