"""What an adapter's errors are called on LM Studio's wire."""

from __future__ import annotations

from lmstrix.errors import (
    EngineCrashed,
    InvalidModel,
    LMStrixError,
    LoadRefused,
    ModelNotFound,
    OutOfMemory,
)
from lmstrix.testing.lmstudio.wire import WireError

__all__ = ["LOAD_CANCELLED", "UNLOADED", "load_error", "no_instance", "no_model", "wire_error"]

GUARDRAIL = (
    "Model load error: Model loading was stopped due to insufficient system resources. Under "
    "the current settings, this model requires approximately more memory than is available. "
    "If you believe this is a mistake, you can try to change the model loading guardrails in "
    "the settings."
)
CRASHED = "The model has crashed without additional information. (Exit code: 18446744072635812000)"

LOAD_CANCELLED = WireError("Failed to load model", cause="Operation canceled.")
UNLOADED = WireError("Model unloaded.", cause="The model was unloaded while it worked.")


def no_model(name: str) -> WireError:
    """No downloaded model has that key."""
    return WireError(
        f"Cannot find a model with path or key {name!r}",
        suggestion="Use one of the downloaded models.",
        display_data={"code": "generic.noModelMatchingQuery", "query": {"path": name}},
    )


def no_instance(identifier: str, loaded: list[str]) -> WireError:
    """No loaded model has that identifier."""
    return WireError(
        f"Cannot find a loaded model with identifier {identifier!r}",
        display_data={
            "code": "generic.identifierNotFound",
            "identifier": identifier,
            "loadedModelsSample": loaded[:5],
            "totalLoadedModels": len(loaded),
        },
    )


def load_error(error: LMStrixError) -> WireError:
    """Why a load failed."""
    match error:
        case LoadRefused():
            return WireError(GUARDRAIL, suggestion="Load a smaller context.")
        case OutOfMemory():
            return WireError(
                "Failed to load model", cause=f"error loading model: unable to allocate: {error}"
            )
        case InvalidModel():
            return WireError("Error loading model.", cause=f"invalid model file: {error}")
        case ModelNotFound():
            return no_model(str(error))
        case EngineCrashed():
            return WireError(CRASHED)
        case _:
            return WireError("Failed to load model", cause=str(error))


def wire_error(error: Exception) -> WireError:
    """What any error is called that is not about a load."""
    if isinstance(error, WireError):
        return error
    if isinstance(error, EngineCrashed):
        return WireError(CRASHED, cause=str(error))
    return WireError("Error in channel handler", cause=str(error) or repr(error))
