"""Both generations of config.json, and what is refused with the file and the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_checkpoint import write_texts

from autoglm_backend.models.config import CheckpointError, load_model_config


def changed(directory: Path, change: dict[str, Any], *, section: str | None = None) -> Path:
    """A checkpoint whose config.json (or a section of it) has these fields; None removes one."""
    path = write_texts(directory) / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    table = raw if section is None else raw[section]
    table.update(change)
    for name in [name for name, value in change.items() if value is None]:
        del table[name]
    path.write_text(json.dumps(raw), encoding="utf-8")
    return directory


def test_the_older_format_means_the_same(tmp_path: Path) -> None:
    new = load_model_config(write_texts(tmp_path / "new"))
    older: dict[str, Any] = {
        "rope_parameters": None,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "rope_scaling": {"type": "default", "mrope_section": [1, 1, 1]},
    }

    assert load_model_config(changed(tmp_path / "old", older, section="text_config")) == new


TEXT: list[tuple[dict[str, Any], str]] = [
    ({"rope_parameters": {"rope_type": "yarn"}}, r"text_config\.rope_parameters\.rope_type is 'yarn'"),
    ({"rope_parameters": {"rope_theta": 1e4, "mrope_section": [1, 1, 1]}}, "partial_rotary_factor is missing"),
    ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "mrope_section is missing"),
    (
        {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 2]}},
        r"mrope_section \[1, 1, 2\] must sum to half of the rotary dimension 6",
    ),
    (
        {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5, "mrope_section": [3]}},
        "mrope_section is .*, must be three numbers",
    ),
    (
        {
            "rope_parameters": {
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.5,
                "mrope_section": [1, 1, 1],
                "mrope_interleaved": True,
            }
        },
        "mrope_interleaved is set",
    ),
    ({"rope_theta": 500000.0}, "rope_theta is 500000.0, but another place says 10000.0"),
    ({"head_dim": 16}, r"text_config\.head_dim is 16, this server runs 12 only"),
    ({"hidden_act": "gelu"}, r"text_config\.hidden_act is 'gelu'"),
    ({"num_hidden_layers": "40"}, r"text_config\.num_hidden_layers is '40', must be a whole number"),
    ({"rms_norm_eps": None}, r"text_config\.rms_norm_eps is missing"),
    ({"num_key_value_heads": 3}, "4 heads with 3 KV heads do not divide"),
]


@pytest.mark.parametrize(("change", "complaint"), TEXT, ids=[complaint[:40] for _, complaint in TEXT])
def test_a_wrong_text_field_is_named(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        load_model_config(changed(tmp_path, change, section="text_config"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model_type": "qwen2_vl"}, r"config\.json: model_type is 'qwen2_vl', this server runs 'glm4v'"),
        ({"text_config": 5}, "text_config must be a JSON object"),
        ({"image_token_id": None}, "image_token_id is missing"),
        ({"video_token_id": 100000}, r"video_token_id \[100000\] lies outside the vocabulary"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        load_model_config(changed(tmp_path, change))


def test_a_config_that_is_no_json_is_named(tmp_path: Path) -> None:
    (write_texts(tmp_path) / "config.json").write_text("{", encoding="utf-8")

    with pytest.raises(CheckpointError, match=r"config\.json: not valid JSON"):
        load_model_config(tmp_path)
