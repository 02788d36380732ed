"""Sphinx: ``nox -s docs``. Warnings are errors, and so is a reference that leads nowhere."""

from importlib import metadata

from sphinx.application import Sphinx

project = "LMStrix"
author = "The LMStrix developers"
project_copyright = "2026, The LMStrix developers"
release = metadata.version("lmstrix")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"LMStrix {release}"

myst_heading_anchors = 3
# A single backtick in a docstring is code, as it is in Markdown.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False

# Documented elsewhere. Linking there would need the network at every build.
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|contextlib|datetime|enum|importlib|pathlib|typing)(\..*)?"),
    (r"py:.*", r"(anyio|h11)\..*"),
    (r"py:.*", r"(Connection|Lookup|Memory|OS|Timeout|Value)Error"),
    (r"py:.*", r"lmstrix\.(\w+\.)*_\w+"),
]
doctest_global_setup = """
from lmstrix.measure.options import BenchOptions
from lmstrix.models import ModelInfo
from lmstrix.apply import llama_server_arguments, ollama_modelfile, recommended_context
from lmstrix.stats import binomial_tail, fisher_tail, isotonic_fall, wilson
"""


def setup(app: Sphinx) -> None:
    """Keep napoleon away from fields: it takes ``first words: more`` for a type."""
    kept: dict[str, list[str]] = {}

    def keep(_app: Sphinx, what: str, name: str, _o: object, _n: object, lines: list[str]) -> None:
        if what in {"attribute", "property"}:
            kept[name] = lines.copy()

    def restore(
        _app: Sphinx, what: str, name: str, _o: object, _n: object, lines: list[str]
    ) -> None:
        if what in {"attribute", "property"}:
            lines[:] = kept.pop(name)

    # Napoleon's own listener has the default priority, 500.
    app.connect("autodoc-process-docstring", keep, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)
