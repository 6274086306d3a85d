"""Encoders to ONNX files, each compared with PyTorch by onnxruntime before anybody uses it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoglm_backend.models.config import VisionConfig, load_model_config
from autoglm_backend.models.shards import checkpoint_shards, vision_name
from autoglm_backend.models.speech import SpeechEncoder, load_speech_encoder
from autoglm_backend.models.vision import VisionEncoder
from autoglm_backend.models.weights import load_module
from autoglm_backend.plans.graphs import SpeechGraph, VisionGraph
from autoglm_protocol.tensors import SPEECH_ENCODER, VISION_ENCODER, ModelContract

OPSET = 20  # the first with a cubic GridSample, which the picture's position embedding needs
TOLERANCE = {torch.float32: 1e-4, torch.float16: 3e-2}
"""Largest error allowed, relative to the largest value: rounding of the same graph in another order."""

Inputs = dict[str, Tensor]


class ExportError(Exception):
    """An ONNX file that does not compute what PyTorch computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """One encoder ready to be exported."""

    contract: ModelContract
    graph: nn.Module
    samples: tuple[Inputs, ...]
    """Inputs of several sizes; the first one is traced, all are compared."""
    dynamic_shapes: Mapping[str, dict[int, object] | None]


def encoders_of(checkpoint_dir: Path, dtype: torch.dtype) -> tuple[Encoder, ...]:
    """The ViT, and the speech encoder where the checkpoint has one. Raises CheckpointError."""
    vision = load_model_config(checkpoint_dir).vision
    module = VisionEncoder(vision)
    load_module(module, checkpoint_shards(checkpoint_dir), vision_name)
    encoders = [vision_export(module, dtype)]
    speech = load_speech_encoder(checkpoint_dir)
    if speech is not None:
        encoders.append(speech_export(speech, dtype))
    return tuple(encoders)


def vision_export(encoder: VisionEncoder, dtype: torch.dtype) -> Encoder:
    merge = encoder.config.spatial_merge_size
    blocks = torch.export.Dim("num_blocks", min=2)
    sizes = ((4, 6), (10, 3), (22, 10))  # in merge blocks: wide, tall, and a small screenshot's shape
    return Encoder(
        contract=VISION_ENCODER,
        graph=VisionGraph(encoder.to(dtype)).eval().requires_grad_(False),
        samples=tuple(_picture(encoder.config, rows * merge, columns * merge) for rows, columns in sizes),
        dynamic_shapes={"patches": {0: merge * merge * blocks}, "grids": None},
    )


def speech_export(encoder: SpeechEncoder, dtype: torch.dtype) -> Encoder:
    return Encoder(
        contract=SPEECH_ENCODER,
        graph=SpeechGraph(encoder.to(dtype)).eval().requires_grad_(False),
        samples=tuple({"mel": _noise(frames, encoder.config.num_mels)} for frames in (130, 57, 401)),
        dynamic_shapes={"mel": {0: torch.export.Dim.DYNAMIC}},
    )


def export(encoder: Encoder, path: Path) -> float:
    """Write the ONNX file and compare it with PyTorch on every sample. Returns the largest relative error.

    Raises ExportError naming the tensor and the size when it is above TOLERANCE.
    """
    outputs = [spec.name for spec in encoder.contract.outputs]
    with warnings.catch_warnings():
        # The exporter warns of its own insides (deprecated tree specs, torchvision that is not installed).
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            encoder.graph,
            kwargs=dict(encoder.samples[0]),
            input_names=list(encoder.samples[0]),
            output_names=outputs,
            dynamic_shapes=dict(encoder.dynamic_shapes),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    # One file: a plan builder or a person who copies it must not lose the weights beside it.
    program.save(path, external_data=False)
    return max(compare(encoder, path, sample) for sample in encoder.samples)


def compare(encoder: Encoder, path: Path, sample: Inputs) -> float:
    """`difference`, checked. Raises ExportError when it is more than rounding."""
    dtype = next(encoder.graph.parameters()).dtype
    error = difference(encoder, path, sample)
    if not error <= TOLERANCE[dtype]:
        shapes = {name: list(tensor.shape) for name, tensor in sample.items()}
        raise ExportError(
            f"{path.name} is off by {error:.1e} of its largest value at {shapes}; {TOLERANCE[dtype]:.0e} is rounding"
        )
    return error


def difference(encoder: Encoder, path: Path, sample: Inputs) -> float:
    """Largest error of the file's embeddings, relative to PyTorch's largest value."""
    with torch.inference_mode():
        result = encoder.graph(**sample)
    want = (result[0] if isinstance(result, tuple) else result).numpy()
    got = run_onnx(path, sample)[0]
    return float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-9))


def run_onnx(path: Path, inputs: Inputs) -> list[NDArray[np.generic]]:
    import onnxruntime  # in the [engines] extra only

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return [np.asarray(output) for output in outputs]


def _picture(config: VisionConfig, rows: int, columns: int) -> Inputs:
    return {
        "patches": _noise(rows * columns, config.patch_dim),
        "grids": torch.tensor([[rows, columns]], dtype=torch.int32),
    }


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
