"""The error tree of LMStrix.

::

    LMStrixError
    ├── ConfigurationError (ValueError)   a name, a value or a combination that cannot work
    │   └── PluginNotFound (LookupError)  no adapter, strategy, validator or store of that name
    ├── ModelError
    │   ├── ModelNotFound (LookupError)   no such model; suggests near names
    │   ├── InvalidModel (ValueError)     the file is truncated, corrupt or not a model
    │   ├── UnsupportedModel (ValueError) a valid model that cannot generate text
    │   ├── ModelInUse                    loading it would replace the user's own instance
    │   └── NotMeasured                   the model has no finished true context
    ├── LoadError                         the engine did not give a loaded model
    │   ├── LoadRefused                   a guardrail said no before trying
    │   ├── LoadFailed                    the engine tried and failed
    │   │   └── OutOfMemory (MemoryError) memory ran out
    │   └── LoadHung                      the load made no progress, and the server answers
    ├── PredictionError                   the engine did not give a reply
    │   ├── ContextOverflow (ValueError)  the prompt does not fit the effective context
    │   │   └── PromptTruncated           the engine dropped part of the prompt
    │   ├── PredictionTooSlow             the reply would take longer than the caller allowed
    │   └── EngineCrashed                 the engine died while it worked
    ├── InfrastructureError (ConnectionError)
    │   ├── EngineUnavailable             the engine is not installed or does not answer
    │   │   └── ConnectionLost            the connection ended during a call, or the server failed
    │   └── EngineTimeout (TimeoutError)  the engine stopped making progress
    ├── SettingsError                     a settings file cannot be changed safely
    ├── StoreError (OSError)              the store cannot be read or written
    ├── FormatError (ValueError)          a text is not a report (`lmstrix.serialize`)
    └── DemoUnavailable                   the demo model cannot be had (`lmstrix.demo`)

Only `LoadError` and `PredictionError` say something about a model's context. An
`InfrastructureError` never does: it is retried on a new engine, and if it persists
the measurement ends without a verdict.

Texts inside these errors may come from a server, a file or a model: they are data.
Escape them before showing them in a terminal or a page.
"""

from __future__ import annotations


class LMStrixError(Exception):
    """Root of every error that LMStrix raises on purpose.

    `hint` is one sentence that tells the user what to do next, or an empty string.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(LMStrixError, ValueError):
    """A name, a value or a combination of settings that cannot work."""


class PluginNotFound(ConfigurationError, LookupError):
    """No plug-in of that family has that name."""


class ModelError(LMStrixError):
    """Something is wrong with the model that was named."""


class ModelNotFound(ModelError, LookupError):
    """There is no such model."""


class InvalidModel(ModelError, ValueError):
    """The file is truncated, corrupt, or not a model at all."""


class UnsupportedModel(ModelError, ValueError):
    """A valid model that cannot be asked questions, such as an embedding model."""


class ModelInUse(ModelError):
    """The user has loaded the model, and the engine holds only one instance of it."""


class NotMeasured(ModelError):
    """The model has no finished true context."""


class LoadError(LMStrixError):
    """The engine did not give a loaded model at the requested context length."""


class LoadRefused(LoadError):
    """A guardrail refused the load before the engine tried it."""


class LoadFailed(LoadError):
    """The engine tried to load the model and failed."""


class OutOfMemory(LoadFailed, MemoryError):
    """The load failed because memory ran out."""


class LoadHung(LoadError):
    """The load made no progress, although the engine answered other calls."""


class PredictionError(LMStrixError):
    """The engine did not give a reply to a prompt.

    `refused` says that a server declined the request, rather than failed at it.
    """

    def __init__(self, message: str, *, hint: str = "", refused: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.refused = refused


class ContextOverflow(PredictionError, ValueError):
    """The prompt does not fit the effective context; nothing was truncated.

    `prompt_tokens` and `context_length` are the engine's own numbers, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        prompt_tokens: int | None = None,
        context_length: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class PromptTruncated(ContextOverflow):
    """The engine read fewer prompt tokens than it was sent: it dropped part of the prompt.

    `read_tokens` and `sent_tokens` are the engine's own counts.
    """

    def __init__(
        self,
        message: str,
        *,
        read_tokens: int,
        sent_tokens: int,
        context_length: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(
            message, prompt_tokens=sent_tokens, context_length=context_length, hint=hint
        )
        self.read_tokens = read_tokens
        self.sent_tokens = sent_tokens


class PredictionTooSlow(PredictionError):
    """The reply would take longer than the caller allowed."""


class EngineCrashed(PredictionError):
    """The engine died while it worked on a prompt; the instance is gone."""


class InfrastructureError(LMStrixError, ConnectionError):
    """The engine or the connection to it failed. Says nothing about a context length."""


class EngineUnavailable(InfrastructureError):
    """The engine is not installed, not running, or does not answer."""


class ConnectionLost(EngineUnavailable):
    """The connection to the engine ended during a call, or the server failed at the call."""


class EngineTimeout(InfrastructureError, TimeoutError):
    """The engine made no progress within its deadline."""


class SettingsError(LMStrixError):
    """Another program's settings cannot be found, understood or changed safely."""


class StoreError(LMStrixError, OSError):
    """The store cannot be read or written."""
