"""ONNX files to TensorRT plans: dynamic shape profiles, strongly typed networks.

TensorRT 11 knows no precision flags any more: precision stands in the graph, as half-precision weights (fp16) or as
quantize/dequantize pairs (int8), so the ONNX file that was checked is the one that is built.
"""

from __future__ import annotations

import ctypes.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from autoglm_backend.plans.graphs import SpeechGraph, VisionGraph

MAX_PATCHES = 24_576
"""Of a plan's largest picture: a 1440x3200 screenshot has 23,256. The profile bounds a plan's memory."""
MAX_FRAMES = 6_000


class BuildError(Exception):
    """TensorRT is not here, or refuses; the message says what is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Smallest, most usual and largest shape of one input: the plan is tuned for the middle one."""

    least: tuple[int, ...]
    usual: tuple[int, ...]
    most: tuple[int, ...]


def ranges_of(graph: nn.Module) -> dict[str, Range]:
    """The shapes that a plan of this graph must take."""
    if isinstance(graph, VisionGraph):
        config = graph.encoder.config
        return vision_ranges(config.patch_dim, config.spatial_merge_size)
    assert isinstance(graph, SpeechGraph)
    return speech_ranges(graph.encoder.config.num_mels)


def vision_ranges(patch_dim: int, merge: int) -> dict[str, Range]:
    block = merge * merge
    return {
        # 3,080 patches: a 1080x2400 screenshot within a budget of 770 tokens.
        "patches": Range(least=(block, patch_dim), usual=(770 * block, patch_dim), most=(MAX_PATCHES, patch_dim)),
        "grids": Range(least=(1, 2), usual=(1, 2), most=(1, 2)),
    }


def speech_ranges(num_mels: int) -> dict[str, Range]:
    return {"mel": Range(least=(2, num_mels), usual=(250, num_mels), most=(MAX_FRAMES, num_mels))}


def require_tensorrt() -> Any:
    """The `tensorrt` module. Raises BuildError in one sentence when it, or a GPU to build for, is missing."""
    try:
        import tensorrt  # pyright: ignore[reportMissingImports] # on GPU machines
    except ImportError as error:
        raise BuildError(
            f"building plans needs the tensorrt package ({error}): pip install 'autoglm-triton[tensorrt]'"
        ) from error
    if ctypes.util.find_library("cuda") is None:
        raise BuildError("building plans needs an NVIDIA GPU and its driver: a plan is made for the GPU it is built on")
    return tensorrt


def build_plan(trt: Any, onnx_path: Path, plan_path: Path, ranges: Mapping[str, Range], workspace_bytes: int) -> None:
    """Write the plan, whole or not at all. Raises BuildError with what the parser said."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # Needed by TensorRT 10, the only way in 11.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BuildError(f"TensorRT cannot read {onnx_path.name}: {reasons}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    profile = builder.create_optimization_profile()
    for name, shapes in ranges.items():
        profile.set_shape(name, shapes.least, shapes.usual, shapes.most)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"TensorRT built no plan of {onnx_path.name}; its log above says why")
    plan_path.parent.mkdir(parents=True, exist_ok=True)
    part = plan_path.with_suffix(".part")
    part.write_bytes(bytes(plan))
    part.replace(plan_path)
