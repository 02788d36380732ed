"""Parts by name, object or path: our own and those that other packages register as entry points.

The functions raise `ConfigurationError` for a name that nobody registered, and for an object of
another shape.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import anyio

from lmstrix.errors import (
    ConfigurationError,
    InfrastructureError,
    LMStrixError,
    ModelNotFound,
    PluginNotFound,
    UnsupportedModel,
)
from lmstrix.models import ModelInfo
from lmstrix.names import may_mean, suggestion
from lmstrix.ports import Adapter, SearchStrategy, Store, Validator

ADAPTERS = "lmstrix.adapters"
STRATEGIES = "lmstrix.strategies"
VALIDATORS = "lmstrix.validators"
STORES = "lmstrix.stores"

DEFAULT_ADAPTER = "lmstudio"
EMBEDDED_ADAPTER = "llamacpp"
"""Measures a GGUF file if no adapter was named."""
DEFAULT_STORE = "sqlite"
ANSWER_S = 3.0
"""How long a server besides the default one may take to answer."""
STORE_SUFFIXES = frozenset({".sqlite3", ".sqlite", ".db"})


@cache
def _on_path(group: str, _path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def _registered(group: str) -> Mapping[str, EntryPoint]:
    """By name. Read once, because every package on the path is looked at."""
    return _on_path(group, tuple(sys.path))


def plugin_names(group: str) -> tuple[str, ...]:
    """The names that `make_plugin` knows in a group, sorted. A package that is installed later is
    known in the next process.
    """
    return tuple(sorted(_registered(group)))


def make_plugin(group: str, name: str, **settings: object) -> object:
    """A new plug-in object, made with `settings`.

    Raises:
        PluginNotFound: no package registers that name.
        ConfigurationError: it cannot be imported (its package may be broken or half removed), or
            does not take these settings.
    """
    found = _registered(group)
    family = group.rpartition(".")[2]
    if name not in found:
        one = "strategy" if family == "strategies" else family.removesuffix("s")
        raise PluginNotFound(
            f"unknown {one} {name!r}",
            hint=f"Known {family}: {', '.join(sorted(found)) or 'none'}.",
        )
    try:
        factory: object = found[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{name!r} cannot be imported: {error}") from error
    if not callable(factory):
        raise ConfigurationError(f"{name!r} is {found[name].value}, which cannot be called")
    try:
        return factory(**settings)
    except TypeError as error:
        names = ", ".join(settings) or "none"
        raise ConfigurationError(f"{name!r} does not take these settings: {names}") from error


def is_model_file(model: str | ModelInfo) -> bool:
    """Whether `model` is named as a GGUF file; LM Studio's own keys do not end like one."""
    if not isinstance(model, str | ModelInfo):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"a model must be a string or a ModelInfo, not {type(model).__name__}",
            hint="For a path: str(path)." if isinstance(model, os.PathLike) else "",
        )
    if isinstance(model, str):
        return model.lower().endswith(".gguf")
    return model.path.lower().endswith(".gguf") and Path(model.path).is_absolute()


def _check_ending(model: str) -> None:
    """Raises `ModelNotFound` for a file or folder that would be taken for the name of a model."""
    if os.path.isdir(model):
        raise ModelNotFound(
            f"{model[:200]!r} is a folder", hint="Give the path of a GGUF file that is in it."
        )
    if not is_model_file(model) and os.path.isfile(model):
        raise ModelNotFound(
            f"{model[:200]!r} is a file, but its name does not end in .gguf",
            hint="Rename it, or make a link to it with a name that does.",
        )


def as_adapter(adapter: Adapter | str, settings: Mapping[str, object]) -> Adapter:
    """The given adapter, or the one of that name with `settings`."""
    made = make_plugin(ADAPTERS, adapter, **settings) if isinstance(adapter, str) else adapter
    if isinstance(made, type) or not isinstance(made, Adapter):
        raise ConfigurationError(f"{adapter!r} is not an adapter")
    return made


class Adapters:
    """The given adapter, or the defaults if none was given.

    Defaults are made when they are needed: a file needs no LM Studio, and a server needs no
    embedded engine. `settings` go to the named adapter, or to the default one. `others` are names
    of servers besides the default one, with their settings: they are searched too if no adapter
    was given.
    """

    def __init__(
        self,
        adapter: Adapter | str | None,
        settings: Mapping[str, object],
        others: Mapping[str, Mapping[str, object]],
    ) -> None:
        self._settings = dict(settings)
        self._others = dict(others) if adapter is None else {}
        self._places: dict[str, Adapter] = {}
        """The adapters that `look_for` found for names."""
        self._given = None if adapter is None else as_adapter(adapter, self._settings)
        self._defaults: dict[str, Adapter] = {}
        # An adapter that was passed as an object is its owner's to close.
        named = isinstance(adapter, str)
        self._made: list[Adapter] = [self._given] if self._given and named else []

    @property
    def usual(self) -> Adapter:
        """The adapter for models that are not files."""
        return self._default(DEFAULT_ADAPTER) if self._given is None else self._given

    def of(self, model: str | ModelInfo) -> Adapter:
        """The adapter of `model`: `usual`, unless none was given and `model` is a GGUF file or was
        found on another server.
        """
        if self._given is None and is_model_file(model):
            return self._default(EMBEDDED_ADAPTER)
        name = model if isinstance(model, str) else model.key
        return self._places.get(name) or self.usual

    async def find(self, model: str | ModelInfo) -> tuple[Adapter, ModelInfo]:
        """`model` and its adapter. Raises like `look_for` and `Adapter.find_model`."""
        if isinstance(model, ModelInfo):
            if not model.generates_text:
                raise UnsupportedModel(
                    f"{model.key!r} is of type {model.type!r}, which cannot answer questions"
                )
            return self.of(model), model
        elsewhere = await self.look_for([model])
        adapter = self.of(model)
        try:
            info = await adapter.find_model(model)
        except (ModelNotFound, InfrastructureError) as error:
            _check_ending(model)
            if path := await self._file_of(model):
                error.hint = f"Did you mean the file {path!r}? {error.hint}"
                raise
            if elsewhere and model not in self._places:
                nowhere = _nowhere(model, [*await _keys(adapter), *elsewhere], error)
                if nowhere is not None:
                    raise nowhere from error
                raise
            if isinstance(error, InfrastructureError) and self._others:
                names = " and ".join(self._others)
                error.hint = f"{names} do not answer or have no models. {error.hint}"
            raise
        if model in self._places:
            self._places[info.key] = adapter
        return adapter, info

    async def _file_of(self, name: str) -> str:
        """The path of the file that the embedded engine takes `name` for, if no adapter was given
        and there is one.
        """
        if self._given is not None:
            return ""
        try:
            return (await self._default(EMBEDDED_ADAPTER).find_model(name)).path
        except LMStrixError:
            return ""

    async def look_for(self, names: Iterable[str]) -> Sequence[tuple[Adapter, str]]:
        """Find the server of each name, for `of`; returns the keys of the other servers' models.

        Skips files and names that were found before. Raises `ConfigurationError` if several
        servers have a model of that name.
        """
        wanted = [name for name in names if not is_model_file(name) and name not in self._places]
        if not wanted or not self._others:
            return ()
        keys = [pair for adapter in await self.answering() for pair in await _keys(adapter)]
        claimed = [name for name in wanted if any(may_mean(name, key) for _, key in keys)]
        everywhere = [*await _keys(self.usual), *keys] if claimed else []
        for name in claimed:
            having = {one.name: one for one, key in everywhere if may_mean(name, key)}
            if len(having) > 1:
                choices = " or ".join(f"--adapter {server}" for server in having)
                raise ConfigurationError(
                    f"{name[:200]!r} is on several servers: {', '.join(having)}",
                    hint=f"Choose one with {choices}.",
                )
            (self._places[name],) = having.values()
        return keys

    async def answering(self) -> Sequence[Adapter]:
        """The other servers that answer, if only that they want a key."""
        # Imported here because a measurement of LM Studio's models needs no HTTP client.
        from lmstrix.adapters.http import KEY_HINT  # noqa: PLC0415

        found: set[str] = set()

        async def ask(name: str, adapter: Adapter) -> None:
            with anyio.move_on_after(ANSWER_S):
                status = await adapter.status()
                if status.available or status.hint == KEY_HINT:
                    found.add(name)

        # Made here, so that an error of settings is not raised inside a group.
        made = {name: self._default(name) for name in self._others}
        async with anyio.create_task_group() as group:
            for name, adapter in made.items():
                group.start_soon(ask, name, adapter)
        return [made[name] for name in self._others if name in found]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the user from the adapters used so far."""
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
            settings = self._settings if name == DEFAULT_ADAPTER else self._others.get(name, {})
            self._defaults[name] = as_adapter(name, settings)
            self._made.append(self._defaults[name])
        return self._defaults[name]


def _nowhere(
    name: str, models: Sequence[tuple[Adapter, str]], error: LMStrixError
) -> ModelNotFound | None:
    """What to say instead of the usual server's `error` if others answered and lack the model too;
    None if several are meant.
    """
    if any(may_mean(name, key) for _, key in models):
        return None
    counts = Counter(getattr(adapter, "engine", adapter.name) for adapter, _ in models)
    asked = ", ".join(f"{engine}: {count}" for engine, count in counts.items())
    said = f"no server that answers has a model {name[:200]!r} (models on {asked})"
    hint = suggestion(name, [key for _, key in models]) or "`lmstrix scan` lists them."
    if isinstance(error, InfrastructureError):
        return ModelNotFound(f"{said}; {error}", hint=f"{hint} {error.hint}")
    return ModelNotFound(
        said, hint=f"{hint} A server that is elsewhere: name it with --adapter and --host."
    )


async def _keys(adapter: Adapter) -> Sequence[tuple[Adapter, str]]:
    """The keys of its models; none if it does not answer."""
    try:
        return [(adapter, model.key) for model in await adapter.list_models()]
    except LMStrixError:
        return ()


def as_strategy(strategy: SearchStrategy | str) -> SearchStrategy:
    """The given strategy, or the one of that name."""
    made = make_plugin(STRATEGIES, strategy) if isinstance(strategy, str) else strategy
    if isinstance(made, type) or not isinstance(made, SearchStrategy):
        raise ConfigurationError(f"{strategy!r} is not a search strategy")
    return made


def as_validator(validator: Validator | str) -> Validator:
    """The given validator, or the one of that name."""
    made = make_plugin(VALIDATORS, validator) if isinstance(validator, str) else validator
    if isinstance(made, type) or not isinstance(made, Validator):
        raise ConfigurationError(f"{validator!r} is not a validator")
    return made


def as_store(store: Store | str | Path | None) -> Store:
    """The given store, that of a name or a path, or the default one.

    A text with a slash, a backslash or a database's suffix is a path.
    """
    made: object = store
    if isinstance(store, str) and ({*"/\\"} & {*store} or Path(store).suffix in STORE_SUFFIXES):
        store = Path(store)
    if isinstance(store, Path):
        made = make_plugin(STORES, DEFAULT_STORE, path=store)
    elif store is None or isinstance(store, str):
        made = make_plugin(STORES, store or DEFAULT_STORE)
    if isinstance(made, type) or not isinstance(made, Store):
        raise ConfigurationError(f"{store!r} is not a store")
    return made
