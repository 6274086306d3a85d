"""The Triton configuration of a plan: the tensors of the Python model it replaces, on a GPU."""

from __future__ import annotations

from autoglm_protocol.tensors import ModelContract

PLATFORM = "tensorrt_plan"


def plan_config(contract: ModelContract) -> str:
    """config.pbtxt of the plan that stands in for `contract`'s model."""
    lines = [
        "# Written by `autoglm build-engines`. Tensors: autoglm_protocol/tensors.py.",
        f'name: "{contract.model}"',
        f'platform: "{PLATFORM}"',
        "# each call is one picture or one clip, so no tensor has a batch dimension",
        "max_batch_size: 0",
    ]
    for kind, specs in (("input", contract.inputs), ("output", contract.outputs)):
        for spec in specs:
            dims = ", ".join(str(dim) for dim in spec.dims)
            lines.append(f'{kind} {{ name: "{spec.name}" data_type: TYPE_{spec.dtype} dims: [ {dims} ] }}')
    lines.append("instance_group { count: 1 kind: KIND_GPU }")
    return "\n".join(lines) + "\n"
