"""Parts by name, object or path: our own and those that other packages register as entry points.

Whatever makes a part raises `ConfigurationError` for a name that nobody registered, and for an
object of another shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from lmstrix.errors import ConfigurationError, PluginNotFound
from lmstrix.models import ModelInfo
from lmstrix.ports import Adapter, SearchStrategy, Store, Validator

__all__ = [
    "ADAPTERS",
    "DEFAULT_ADAPTER",
    "DEFAULT_STORE",
    "EMBEDDED_ADAPTER",
    "STORES",
    "STRATEGIES",
    "VALIDATORS",
    "Adapters",
    "as_adapter",
    "as_store",
    "as_strategy",
    "as_validator",
    "is_model_file",
    "make_plugin",
    "plugin_names",
]

ADAPTERS = "lmstrix.adapters"
STRATEGIES = "lmstrix.strategies"
VALIDATORS = "lmstrix.validators"
STORES = "lmstrix.stores"

DEFAULT_ADAPTER = "lmstudio"
EMBEDDED_ADAPTER = "llamacpp"
"""Measures a GGUF file if no adapter was named."""
DEFAULT_STORE = "sqlite"
STORE_SUFFIXES = frozenset({".sqlite3", ".sqlite", ".db"})


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


def is_model_file(model: str | ModelInfo) -> bool:
    """Whether `model` is named as a GGUF file; LM Studio's own keys do not end like one."""
    if isinstance(model, str):
        return model.lower().endswith(".gguf")
    return model.path.lower().endswith(".gguf") and Path(model.path).is_absolute()


def as_adapter(adapter: Adapter | str, settings: Mapping[str, object]) -> Adapter:
    """The adapter that was given, or the one of that name with `settings`."""
    made = make_plugin(ADAPTERS, adapter, **settings) if isinstance(adapter, str) else adapter
    if not isinstance(made, Adapter):
        raise ConfigurationError(f"{adapter!r} is not an adapter")
    return made


class Adapters:
    """The adapter that was given, or those that stand in for it if none was.

    The defaults are made when they are needed: a file needs no LM Studio, and a server no engine
    of ours. `settings` go to the adapter that is named, or to the default one.
    """

    def __init__(self, adapter: Adapter | str | None, settings: Mapping[str, object]) -> None:
        self._settings = dict(settings)
        self._given = None if adapter is None else as_adapter(adapter, self._settings)
        self._defaults: dict[str, Adapter] = {}
        # An adapter that was passed as an object is its owner's to close.
        named = self._given is not None and isinstance(adapter, str)
        self._made: list[Adapter] = [self._given] if self._given and named else []

    @property
    def usual(self) -> Adapter:
        """The adapter for models that are not files."""
        return self._default(DEFAULT_ADAPTER) if self._given is None else self._given

    def of(self, model: str | ModelInfo) -> Adapter:
        """Where `model` lives: `usual`, unless none was given and it is a GGUF file."""
        if self._given is None and is_model_file(model):
            return self._default(EMBEDDED_ADAPTER)
        return self.usual

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that the adapters used so far want the user to read."""
        used = [self._given, *self._defaults.values()]
        return tuple(text for adapter in used for text in getattr(adapter, "warnings", ()))

    async def aclose(self) -> None:
        """Close the adapters made here; unload any model they left loaded. Idempotent."""
        for adapter in self._made:
            aclose = getattr(adapter, "aclose", None)
            if aclose is not None:
                await aclose()

    def _default(self, name: str) -> Adapter:
        if name not in self._defaults:
            settings = self._settings if name == DEFAULT_ADAPTER else {}
            self._defaults[name] = as_adapter(name, settings)
            self._made.append(self._defaults[name])
        return self._defaults[name]


def as_strategy(strategy: SearchStrategy | str) -> SearchStrategy:
    """The strategy that was given, or the one of that name."""
    made = make_plugin(STRATEGIES, strategy) if isinstance(strategy, str) else strategy
    if not isinstance(made, SearchStrategy):
        raise ConfigurationError(f"{strategy!r} is not a search strategy")
    return made


def as_validator(validator: Validator | str) -> Validator:
    """The validator that was given, or the one of that name."""
    made = make_plugin(VALIDATORS, validator) if isinstance(validator, str) else validator
    if not isinstance(made, Validator):
        raise ConfigurationError(f"{validator!r} is not a validator")
    return made


def as_store(store: Store | str | Path | None) -> Store:
    """The store that was given, that of a name or a path, or the default one."""
    if isinstance(store, Path) or (isinstance(store, str) and _is_path(store)):
        made = make_plugin(STORES, DEFAULT_STORE, path=Path(store))
    elif store is None or isinstance(store, str):
        made = make_plugin(STORES, store or DEFAULT_STORE)
    else:
        made = store
    if not isinstance(made, Store):
        raise ConfigurationError(f"{store!r} is not a store")
    return made


def _is_path(text: str) -> bool:
    """Whether `text` names a file rather than a plug-in."""
    return "/" in text or "\\" in text or Path(text).suffix in STORE_SUFFIXES
