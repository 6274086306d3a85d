"""docs/architecture.md names modules; a name that leads nowhere is a page that nobody refreshed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
_SECTIONS = re.findall(r"^### (\S+/\S+)\n(.*?)(?=^###|\Z)", _PAGE, re.DOTALL | re.MULTILINE)


def named_modules(section: str) -> list[str]:
    """The names in the first column of the section's table."""
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_every_package_has_its_section() -> None:
    assert [package for package, _ in _SECTIONS] == [
        "protocol/autoglm_protocol",
        "gateway/autoglm_gateway",
        "python_backend/autoglm_backend",
        "client/autoglm_client",
        "training/autoglm_training",
    ]


@pytest.mark.parametrize(("package", "section"), _SECTIONS, ids=[package for package, _ in _SECTIONS])
def test_every_module_on_the_page_exists(package: str, section: str) -> None:
    names = named_modules(section)
    assert names
    missing = [name for name in names if not _exists(ROOT / package, name)]
    assert missing == []


def _exists(package: Path, name: str) -> bool:
    return (package / name).is_dir() if name.endswith("/") else (package / f"{name}.py").is_file()
