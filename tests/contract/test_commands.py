"""Every verb of `autoglm` is there to be loaded."""

import ast
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.mark.parametrize("point", entry_points(group="autoglm.commands"), ids=lambda point: point.name)
def test_a_verb_names_a_function(point: EntryPoint):
    spec = find_spec(point.module)

    assert spec is not None
    assert spec.origin is not None
    functions = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    assert point.attr in {node.name for node in functions if isinstance(node, ast.FunctionDef)}


def test_the_server_and_the_client_have_their_verbs():
    assert {"serve", "chat"} <= {point.name for point in entry_points(group="autoglm.commands")}
