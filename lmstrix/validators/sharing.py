"""Makes validators ask about one document, so that none reads what another one has read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import attrs

from lmstrix.ports import Validator
from lmstrix.validators.haystack import PLAIN, HaystackSpec

__all__ = ["share_haystack"]


def share_haystack(validators: Sequence[Validator]) -> tuple[Validator, ...]:
    """The same validators, each on the haystack that has what any of them needs.

    Those of others, without a `spec`, are left as they are.
    """
    spec = PLAIN
    for validator in validators:
        spec |= _spec_of(validator) or PLAIN
    return tuple(v if _spec_of(v) is None else _with(v, spec) for v in validators)


def _spec_of(validator: Validator) -> HaystackSpec | None:
    spec = getattr(validator, "spec", None)
    return spec if isinstance(spec, HaystackSpec) and attrs.has(type(validator)) else None


def _with(validator: Validator, spec: HaystackSpec) -> Validator:
    return cast("Validator", attrs.evolve(cast("Any", validator), spec=spec))
