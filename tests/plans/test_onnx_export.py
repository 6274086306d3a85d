"""Encoders as ONNX files compute what PyTorch computes, at sizes that were not traced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autoglm_backend.models.config import SpeechConfig, VisionConfig
from autoglm_backend.models.speech import SpeechEncoder
from autoglm_backend.models.vision import VisionEncoder
from autoglm_backend.plans.graphs import SpeechGraph, VisionGraph
from autoglm_backend.plans.onnx_export import ExportError, compare, export, run_onnx, speech_export, vision_export
from autoglm_protocol.tensors import EMPTY_SLOT

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def small_vision() -> VisionEncoder:
    torch.manual_seed(0)
    config = VisionConfig(
        depth=1, hidden_size=16, num_heads=2, intermediate_size=24, out_hidden_size=20, in_channels=3, patch_size=2,
        temporal_patch_size=2, spatial_merge_size=2, image_size=16, rms_norm_eps=1e-5,
        rope_theta=10000.0, attention_bias=False,
    )  # fmt: skip
    return VisionEncoder(config).eval().requires_grad_(False)


def small_speech(num_pieces: int) -> SpeechEncoder:
    torch.manual_seed(0)
    config = SpeechConfig(
        num_mels=8, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=24, out_hidden_size=20,
        frames_per_token=4, rotary_fraction=0.5, num_pieces=num_pieces,
    )  # fmt: skip
    return SpeechEncoder(config).eval().requires_grad_(False)


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (4, 10), (12, 6)])
def test_vision_graph_finds_the_places_that_the_encoder_is_told(rows: int, columns: int) -> None:
    encoder = small_vision()
    patches = torch.randn(rows * columns, encoder.config.patch_dim)
    by_graph = VisionGraph(encoder)(patches, torch.tensor([[rows, columns]], dtype=torch.int32))
    assert torch.equal(by_graph, encoder(patches, [(rows, columns)]))


@pytest.mark.parametrize("frames", [2, 57, 130])
def test_speech_graph_hears_what_the_encoder_hears(frames: int) -> None:
    encoder = small_speech(num_pieces=5)
    mel = torch.randn(frames, 8)
    embeddings, _ = SpeechGraph(encoder)(mel)
    assert torch.equal(embeddings, encoder(mel[None])[0])


def test_heard_tokens_stand_at_the_end_in_order() -> None:
    graph = SpeechGraph(small_speech(num_pieces=5))
    scores = torch.nn.functional.one_hot(torch.tensor([0, 3, 3, 0, 3, 1]), 6).float()
    graph.encoder.piece_head = torch.nn.Identity()
    assert graph._hear(scores).tolist() == [0, 0, 0, 3, 3, 1]


def test_exported_vision_matches_at_every_size(tmp_path: Path) -> None:
    encoder = vision_export(small_vision(), torch.float32)
    assert export(encoder, tmp_path / "vision.onnx") < 1e-4


def test_exported_speech_matches_at_every_length(tmp_path: Path) -> None:
    encoder = speech_export(small_speech(num_pieces=5), torch.float32)
    assert export(encoder, tmp_path / "speech.onnx") < 1e-4
    with torch.inference_mode():
        _, ids = encoder.graph(**encoder.samples[1])
    assert np.array_equal(run_onnx(tmp_path / "speech.onnx", encoder.samples[1])[1], ids.numpy())
    assert set(ids.tolist()) == {EMPTY_SLOT}, "this encoder names no tokens of the decoder"


def test_half_precision_keeps_float32_at_the_doors(tmp_path: Path) -> None:
    encoder = vision_export(small_vision(), torch.float16)
    export(encoder, tmp_path / "vision.onnx")
    assert run_onnx(tmp_path / "vision.onnx", encoder.samples[0])[0].dtype == np.float32


def test_file_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    encoder = vision_export(small_vision(), torch.float32)
    export(encoder, tmp_path / "vision.onnx")
    torch.nn.init.normal_(encoder.graph.get_parameter("encoder.merger.proj.weight"))
    with pytest.raises(ExportError, match=r"vision\.onnx is off by"):
        compare(encoder, tmp_path / "vision.onnx", encoder.samples[0])
