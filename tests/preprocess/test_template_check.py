"""Templates and tokenizers that would serve wrong answers are refused at the start, with what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny_checkpoint import TEMPLATE, write_texts

from autoglm_backend.models.config import CheckpointError, load_model_config
from autoglm_backend.preprocess.chat_template import load_chat_template
from autoglm_backend.preprocess.template_check import check_template


def checked(directory: Path, template: str = TEMPLATE) -> tuple[str, ...]:
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    config = load_model_config(directory)
    return check_template(load_chat_template(directory, config), config)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_texts(tmp_path)


def test_the_public_checkpoints_template_passes(directory: Path) -> None:
    assert checked(directory) == ()


def test_the_default_checkpoint_passes_and_says_that_system_text_is_left_out() -> None:
    default = Path(__file__).parents[2] / "checkpoints" / "autoglm-phone-tiny"
    config = load_model_config(default)

    (notice,) = check_template(load_chat_template(default, config), config)

    assert "leaves system messages out" in notice


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[gMASK]<sop>", "", r"does not begin with \[gMASK\]<sop>"),
        ("<|begin_of_image|><|image|><|end_of_image|>", "", "placed 0 of 2 image items"),
        ("<|begin_of_image|><|image|><|end_of_image|>", "<|image|>", "the first picture .* is missing"),
        ("<|user|>", "User:", "expected <\\|user\\|>"),
        ("{%- if add_generation_prompt %}<|assistant|>{{ '\\n' }}", "{%- if false %}", "closing <\\|assistant\\|>"),
        ("{{ item.text }}", "", "the text after it .* is missing"),
        ("{{ '\\n' }}{{ msg.content }}", "{{ '\\n' }}", "the assistant's text"),
        ("<|system|>\n{{ msg.content }}", "<|system|>", "a branch for system messages, and loses their text"),
    ],
)
def test_a_template_that_loses_something_is_refused(directory: Path, old: str, new: str, complaint: str) -> None:
    assert old in TEMPLATE

    with pytest.raises(CheckpointError, match=complaint):
        checked(directory, TEMPLATE.replace(old, new))


@pytest.mark.parametrize("content", ["<|user|>", "<|image|>", "</think>", "<answer>"])
def test_a_tokenizer_without_a_special_token_is_refused(directory: Path, content: str) -> None:
    path = directory / "tokenizer.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] != content]
    path.write_text(json.dumps(raw), encoding="utf-8")

    with pytest.raises(CheckpointError, match=r"tokenizer\.json: (the|no) special token"):
        checked(directory)
