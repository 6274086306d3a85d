"""Every command and every program of the README runs as it stands there, on the server that it speaks of."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.stack.conftest import EXAMPLES, ROOT, Server

_BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n)?```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    language: str
    code: str
    line: int

    @property
    def id(self) -> str:
        return f"{self.language}-line{self.line}"


def blocks(text: str) -> list[Block]:
    """The code blocks of a Markdown text, but those that a comment right before them says are not run, and why."""
    return [
        Block(language=found[2], code=found[3], line=text.count("\n", 0, found.start()) + 1)
        for found in _BLOCK.finditer(text)
        if found[1] is None
    ]


def run(command: list[str], server: Server, folder: Path) -> str:
    """What a command prints in a folder that holds what the README's reader has: the examples and `autoglm`."""
    (folder / "examples").symlink_to(EXAMPLES)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "autoglm").symlink_to(Path(sys.executable).parent / "autoglm")
    environment = {**os.environ, "AUTOGLM_BASE_URL": server.http_url, "AUTOGLM_TRITON": server.triton_grpc_url}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def on(server: Server, code: str) -> str:
    """`code` with the addresses of this server in place of the default ones."""
    code = code.replace("http://127.0.0.1:8000", server.http_url)
    return code.replace("127.0.0.1:8001", server.triton_grpc_url)


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_shows_shell_and_python_only() -> None:
    assert {block.language for block in blocks(README)} == {"bash", "python", "text"}


@pytest.mark.triton
@pytest.mark.parametrize("block", [b for b in blocks(README) if b.language == "bash"], ids=lambda block: block.id)
def test_a_command_of_the_readme_answers(block: Block, server: Server, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    output = run([bash, "-euo", "pipefail", "-c", on(server, block.code)], server, tmp_path)
    assert "do(action=" in output


@pytest.mark.triton
@pytest.mark.parametrize("block", [b for b in blocks(README) if b.language == "python"], ids=lambda block: block.id)
def test_a_program_of_the_readme_answers(block: Block, server: Server, tmp_path: Path) -> None:
    assert run([sys.executable, "-c", on(server, block.code)], server, tmp_path).strip()


@pytest.mark.triton
@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_answers(example: Path, server: Server, tmp_path: Path) -> None:
    assert run([sys.executable, str(example)], server, tmp_path).strip()


@pytest.mark.parametrize("document", ["README.md", "docs/architecture.md"])
def test_every_link_of_a_document_leads_somewhere(document: str) -> None:
    path = ROOT / document
    shown = re.sub(r"<!--.*?-->", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?:)([^)#]+)", shown)
    assert [link for link in links if not (path.parent / link).exists()] == []
