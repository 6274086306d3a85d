"""`autoglm build-engines` as it is called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from google.protobuf import text_format
from PIL import Image
from tests.tiny_checkpoint import write_checkpoint
from tritonclient.grpc import model_config_pb2

from autoglm_backend.plans import command, tensorrt_build
from autoglm_backend.plans.triton_config import plan_config
from autoglm_protocol.tensors import SPEECH_ENCODER, VISION_ENCODER, ModelContract

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def test_onnx_only_leaves_checked_files_and_a_report(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    status = command.main(
        [f"--checkpoint={checkpoint}", f"--output={tmp_path / 'out'}", "--onnx-only", "--precision=fp32"]
    )
    assert status == 0
    assert (tmp_path / "out" / "onnx" / "vision_encoder.onnx").is_file()
    report = json.loads((tmp_path / "out" / "engines.json").read_text())
    assert report["vision_encoder"]["onnx_error"] < 1e-4
    assert report["speech_encoder"]["onnx_error"] < 1e-4


def test_int8_takes_its_scales_from_real_inputs(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for shade in range(3):
        Image.effect_noise((56, 84), 30 + 60 * shade).convert("RGB").save(pictures / f"{shade}.png")
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 16000).astype(np.float32)
    soundfile.write(pictures / "clip.wav", noise, 16000)
    arguments = [f"--checkpoint={checkpoint}", f"--output={tmp_path / 'out'}", "--onnx-only", "--precision=int8"]
    assert command.main([*arguments, f"--calibration={pictures}"]) == 0
    report = json.loads((tmp_path / "out" / "engines.json").read_text())
    assert 0 < report["vision_encoder"]["int8_error"] < 0.5


def test_int8_without_calibration_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["--checkpoint=x", "--output=y", "--precision=int8"])
    assert "needs --calibration" in capsys.readouterr().err


def test_missing_tensorrt_is_said_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_here() -> object:
        raise tensorrt_build.BuildError("building plans needs the tensorrt package")

    monkeypatch.setattr(tensorrt_build, "require_tensorrt", nothing_here)
    assert command.main([f"--checkpoint={tmp_path}", f"--output={tmp_path / 'out'}"]) == command.NEEDS_SOMETHING
    assert "--onnx-only" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_folder_that_is_no_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([f"--checkpoint={tmp_path}", f"--output={tmp_path / 'out'}", "--onnx-only"]) == command.FAILED
    assert str(tmp_path / "config.json") in capsys.readouterr().err


@pytest.mark.parametrize("contract", [VISION_ENCODER, SPEECH_ENCODER], ids=lambda contract: contract.model)
def test_plan_config_has_the_tensors_of_the_python_model(contract: ModelContract) -> None:
    config = text_format.Parse(plan_config(contract), model_config_pb2.ModelConfig())
    template = Path("model_repository") / contract.model / "config.pbtxt"
    python = text_format.Parse(template.read_text(), model_config_pb2.ModelConfig())
    assert config.platform == "tensorrt_plan"
    assert list(config.input) == list(python.input)
    assert list(config.output) == list(python.output)
