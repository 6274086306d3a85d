"""Each package's third-party imports are declared for the extra that installs it, so that a slim image still starts."""

import ast
import sys
from importlib.metadata import PackageNotFoundError, files, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_ROOT = Path(__file__).parents[2]
_EXTRAS = ("backend", "server", "client", "train", "bench", "deploy", "engines")
_EXTRA_OF_ITS_OWN = {"plans", "deploy"}  # folders that their package's extra does not serve
_INSIDE_TRITON = {"triton_python_backend_utils", "autoglm_site"}  # the Python backend brings them
_ON_GPU_MACHINES = {"tensorrt"}  # imported where it is used, from an extra that no test machine installs


@pytest.mark.parametrize(
    ("package", "extra"),
    [
        ("protocol/autoglm_protocol", ""),
        ("gateway/autoglm_gateway", "gateway"),
        ("client/autoglm_client", "client"),
        ("client/autoglm_client/deploy", "deploy"),
        ("python_backend/autoglm_backend", "backend"),
        ("python_backend/autoglm_backend/plans", "engines"),
        ("training/autoglm_training", "train"),
    ],
)
def test_every_import_is_declared(package: str, extra: str):
    provided = {module for distribution in _declared(extra) for module in _modules(distribution)}

    undeclared = _third_party_imports(_ROOT / package) - provided - _ON_GPU_MACHINES

    assert not undeclared, f"add to the extra {extra!r} in pyproject.toml"


def test_every_import_of_the_tests_is_declared():
    groups = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    declared = {Requirement(text).name for text in groups["dev"]}
    declared |= {name for extra in _EXTRAS for name in _declared(extra)}
    provided = {module for distribution in declared for module in _modules(distribution)}

    undeclared = _third_party_imports(_ROOT / "tests") - provided

    assert not undeclared - {"benchmarks", "tests", "tomli", "tomllib"}, "add to the group dev in pyproject.toml"


def _declared(extra: str) -> set[str]:
    """The distributions that autoglm-triton[extra] names, extras of its own followed."""
    names: set[str] = set()
    for text in requires("autoglm-triton") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == "autoglm-triton":
            names |= {name for inner in requirement.extras for name in _declared(inner)}
        else:
            names.add(canonicalize_name(requirement.name))
    return names


def _modules(distribution: str) -> set[str]:
    """The top-level modules that an installed distribution brings."""
    try:
        found = files(distribution) or []
    except PackageNotFoundError:  # declared for another Python version
        return set()
    return {path.parts[0].split(".")[0] for path in found if path.suffix in (".py", ".so")}


def _third_party_imports(package: Path) -> set[str]:
    modules: set[str] = set()
    for source in package.rglob("*.py"):
        if _EXTRA_OF_ITS_OWN & set(source.relative_to(package).parts):
            continue
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules.add(node.module.split(".")[0])
    ours = {module for module in modules if module.startswith("autoglm_")}
    return modules - ours - _INSIDE_TRITON - set(sys.stdlib_module_names)
