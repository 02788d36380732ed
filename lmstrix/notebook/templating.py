"""Templates whose every value is escaped twice: for HTML, and against characters that steer."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from lmstrix.reports.escaping import escape_controls

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["fill"]


def fill(name: str, **values: object) -> str:
    """The template `name` with these values, as an HTML fragment."""
    return _environment().get_template(f"{name}.html.j2").render(values).strip()


@cache
def _environment() -> Environment:
    # Here, because `import lmstrix` comes past this module, and most programs show no page.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    return Environment(
        loader=PackageLoader("lmstrix.notebook"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )


def _harmless(value: object) -> object:
    """Model names may turn the reading direction, in a page as in a terminal."""
    return escape_controls(value, keep="\n") if type(value) is str else value
