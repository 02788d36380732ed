"""Plug-ins by name: our own and those that other packages register as entry points."""

from __future__ import annotations

from collections.abc import Mapping
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
    try:
        factory = found[name].load()
        return factory(**settings)
    except ImportError as error:
        raise ConfigurationError(f"{name!r} cannot be imported: {error}") from error
    except TypeError as error:
        names = ", ".join(settings) or "none"
        raise ConfigurationError(f"{name!r} does not take these settings: {names}") from error
