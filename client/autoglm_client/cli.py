"""The `autoglm` command: finds the verb among the installed entry points, imports it alone, and hands over.

A verb is an entry point of the group `autoglm.commands`: `main(argv: list[str]) -> int`, its module's docstring begins
with what `autoglm --help` shows: "`autoglm VERB`: one line".
"""

from __future__ import annotations

import ast
import sys
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

GROUP = "autoglm.commands"
# the longest name that a verb's module begins with
_EXTRAS = {
    "autoglm_client.deploy": "deploy",
    "autoglm_client": "client",
    "autoglm_backend": "server",
    "autoglm_gateway": "gateway",
}
_DEFAULT_EXTRA = "train"


def main(argv: list[str] | None = None) -> int:
    """Exit status of the verb; 2 for wrong usage, 1 for a verb whose packages are not installed."""
    words = sys.argv[1:] if argv is None else argv
    verbs = {point.name: point for point in entry_points(group=GROUP)}
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage(verbs), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    verb = verbs.get(words[0])
    if verb is None:
        print(f"autoglm: there is no verb {words[0]!r}, only {', '.join(sorted(verbs))}", file=sys.stderr)
        return 2
    try:
        return verb.load()(words[1:])
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("autoglm_"):
            raise
        extra = next((_EXTRAS[name] for name in _EXTRAS if verb.module.startswith(name)), _DEFAULT_EXTRA)
        print(
            f"autoglm {verb.name} needs the package {error.name.partition('.')[0]}, which is not installed; "
            f'from the checkout: pip install -c constraints.txt -e ".[{extra}]"',
            file=sys.stderr,
        )
        return 1


def _usage(verbs: dict[str, EntryPoint]) -> str:
    width = max((len(name) for name in verbs), default=0)
    lines = [f"  {name:<{width}}  {_summary(verbs[name])}".rstrip() for name in sorted(verbs)]
    return "\n".join(["usage: autoglm VERB [OPTIONS]; autoglm VERB --help lists them", "", *lines])


def _summary(verb: EntryPoint) -> str:
    """First line of the module's docstring, read without importing the module: training would load torch."""
    try:
        spec = find_spec(verb.module)
        if spec is None or spec.origin is None:
            return ""
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (ModuleNotFoundError, OSError, SyntaxError):
        return ""  # the verb itself will say what is wrong with it
    return (ast.get_docstring(tree) or "").partition("\n")[0].removeprefix(f"`autoglm {verb.name}`: ")
