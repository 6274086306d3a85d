"""`autoglm serve` on directories that are no usable checkpoint: one sentence naming the file, and nothing starts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_checkpoint import write_checkpoint

AUTOGLM = Path(sys.executable).with_name("autoglm")


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = json.loads(path.read_text(encoding="utf-8"))
    change(raw)
    path.write_text(json.dumps(raw), encoding="utf-8")


def another_architecture(directory: Path) -> None:
    change_json(directory / "config.json", lambda raw: raw.update(model_type="qwen2_vl"))


def truncated_shard(directory: Path) -> None:
    shard = directory / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])


def no_special_tokens(directory: Path) -> None:
    change_json(directory / "tokenizer.json", lambda raw: raw.update(added_tokens=[]))


def no_roles_in_the_template(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text("{{ messages[-1].content }}", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (another_architecture, "/config.json: model_type is 'qwen2_vl', this server runs 'glm4v'"),
        (truncated_shard, "/model.safetensors: damaged or truncated safetensors file"),
        (no_special_tokens, ": tokenizer.json: the special token [gMASK] is missing"),
        (no_roles_in_the_template, ": chat template: "),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_it_is_refused_in_one_sentence_before_anything_starts(
    tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    damage(write_checkpoint(tmp_path))
    command = [AUTOGLM, "serve", "--checkpoint", tmp_path, "--device", "cpu"]

    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert ended.stdout == ""
    (sentence,) = ended.stderr.splitlines()
    assert sentence.startswith(f"[ERROR] {tmp_path}{named}")
