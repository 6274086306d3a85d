"""`autoglm build-engines`: the encoders of a checkpoint as checked ONNX files, and as TensorRT plans for a GPU."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PRECISIONS = ("fp16", "fp32", "int8")
MIB = 1 << 20
_SOURCE_ROOT = Path(__file__).resolve().parents[3]
FAILED = 1
NEEDS_SOMETHING = 3
"""Exit status when TensorRT, a GPU or an extra is missing: nothing is wrong with the checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    checkpoint: Path
    output: Path
    precision: str = "fp16"
    onnx_only: bool = False
    calibration: Path | None = None
    workspace_mib: int = 4096
    model_repository: Path = _SOURCE_ROOT / "model_repository"


def main(argv: Sequence[str]) -> int:
    """Returns 0, 1 for a checkpoint or export that is wrong, 3 for what this machine lacks."""
    options = _parse(argv)
    try:
        import onnx  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
        import onnxruntime  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
    except ImportError as error:
        print(f"autoglm build-engines needs ONNX ({error}): pip install 'autoglm-triton[engines]'", file=sys.stderr)
        return NEEDS_SOMETHING

    # torch and onnx are slow to import: --help and the checks above come first
    from autoglm_backend.models.config import CheckpointError
    from autoglm_backend.plans.onnx_export import ExportError
    from autoglm_backend.plans.tensorrt_build import BuildError, require_tensorrt

    try:
        trt = None if options.onnx_only else require_tensorrt()
    except BuildError as error:
        print(f"autoglm build-engines: {error} (--onnx-only exports and checks without it)", file=sys.stderr)
        return NEEDS_SOMETHING
    try:
        _build(options, trt)
    except (CheckpointError, ExportError, BuildError, OSError, ValueError) as error:
        print(f"autoglm build-engines: {error}", file=sys.stderr)
        return FAILED
    return 0


def _build(options: BuildOptions, trt: object | None) -> None:
    import torch

    from autoglm_backend.plans import onnx_export, tensorrt_build
    from autoglm_backend.plans.calibration import clips, pictures
    from autoglm_backend.plans.int8 import quantize
    from autoglm_backend.plans.triton_config import plan_config

    dtype = torch.float16 if options.precision == "fp16" else torch.float32
    report: dict[str, object] = {"checkpoint": options.checkpoint.name, "precision": options.precision}
    for encoder in onnx_export.encoders_of(options.checkpoint, dtype):
        name = encoder.contract.model
        began = time.perf_counter()
        onnx_path = options.output / "onnx" / f"{name}.onnx"
        if options.precision == "int8":
            assert options.calibration is not None
            feeds = pictures if name == "vision_encoder" else clips
            onnx_path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as folder:
                plain = Path(folder) / onnx_path.name
                error = onnx_export.export(encoder, plain)
                quantize(plain, onnx_path, feeds(options.calibration, options.checkpoint))
            int8_error = max(onnx_export.difference(encoder, onnx_path, sample) for sample in encoder.samples)
            _say(f"{name}: exported to ONNX, {error:.1e} off PyTorch; as int8 {int8_error:.1e}", began)
            report[name] = {"onnx_error": error, "int8_error": int8_error}
        else:
            error = onnx_export.export(encoder, onnx_path)
            _say(f"{name}: exported to ONNX, {error:.1e} off PyTorch (relative, {len(encoder.samples)} sizes)", began)
            report[name] = {"onnx_error": error}
        if trt is None:
            continue
        began = time.perf_counter()
        model = options.output / name
        tensorrt_build.build_plan(
            trt,
            onnx_path,
            model / "1" / "model.plan",
            tensorrt_build.ranges_of(encoder.graph),
            options.workspace_mib * MIB,
        )
        (model / "config.pbtxt").write_text(plan_config(encoder.contract), encoding="utf-8")
        _say(f"{name}: TensorRT plan built", began)
    (options.output / "engines.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if trt is not None:
        for template in options.model_repository.glob("*/config.pbtxt"):
            if not (options.output / template.parent.name / "config.pbtxt").exists():
                shutil.copytree(template.parent, options.output / template.parent.name, dirs_exist_ok=True)
        print(f"Serve them: autoglm serve --checkpoint {options.checkpoint} --model-repository {options.output}")


def _say(text: str, began_s: float) -> None:
    print(f"[{time.perf_counter() - began_s:5.1f} s] {text}", flush=True)


def _parse(argv: Sequence[str]) -> BuildOptions:
    parser = argparse.ArgumentParser(
        prog="autoglm build-engines",
        description="Export the ViT and the speech encoder to ONNX, check them against PyTorch, build TensorRT plans.",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="becomes a Triton model repository, with onnx/ beside the models",
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16", help="(default: %(default)s)")
    parser.add_argument("--onnx-only", action="store_true", help="export and check; needs neither TensorRT nor a GPU")
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR", help="screenshots and WAV files like those to be served, for int8"
    )
    parser.add_argument(
        "--workspace-mib", type=int, default=4096, metavar="N", help="memory TensorRT may try tactics in (%(default)s)"
    )
    parser.add_argument(
        "--model-repository",
        type=Path,
        default=_SOURCE_ROOT / "model_repository",
        metavar="DIR",
        help="templates of the models that stay Python (%(default)s)",
    )
    options = BuildOptions(**vars(parser.parse_args(argv)))
    if options.precision == "int8" and options.calibration is None:
        parser.error("--precision int8 needs --calibration DIR: scales come from real inputs")
    return options
