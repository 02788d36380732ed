"""The plug-ins of docs/guides/extending.md, exactly as printed there, under the contract suites.

Sybil runs the guide's snippets. Here only their imports, constants and classes are executed, and
pytest collects the test classes among them.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "extending.md"
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.Assign, ast.ClassDef)

_text = GUIDE.read_text(encoding="utf-8")
_blocks = re.findall(r"^```python\n(.*?)^```", _text, re.DOTALL | re.MULTILINE)
_nodes = [node for block in _blocks for node in ast.parse(block).body]
_kept = [node for node in _nodes if isinstance(node, DEFINITIONS)]
_classes = {node.name: node for node in _kept if isinstance(node, ast.ClassDef)}
_namespace: dict[str, object] = {"__name__": __name__}
for _node in _kept:
    exec(compile(ast.Module([_node], []), str(GUIDE), "exec"), _namespace)

globals().update({name: _namespace[name] for name in _classes if name.startswith("Test")})


def test_every_family_is_tested() -> None:
    tested = {name for name in _classes if name.startswith("Test")}
    assert tested == {"TestCountingStore", "TestEcho", "TestLadder", "TestLockers"}


def test_the_guide_imports_only_the_public_packages() -> None:
    modules = {n.module for n in _kept if isinstance(n, ast.ImportFrom) and n.module}
    ours = {module for module in modules if module.startswith("lmstrix")}
    assert ours == {"lmstrix", "lmstrix.testing", "lmstrix.testing.contracts"}
