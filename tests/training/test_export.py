"""An exported checkpoint (random weights) is read by transformers and by us, and both say the same."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, Glm4vForConditionalGeneration

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_backend.models.vision import VisionEncoder
from autoglm_training.checkpoint import save_atomically
from autoglm_training.config.recipes import SPEECH, TEXT, VISION
from autoglm_training.decoder_model import TrainableDecoder
from autoglm_training.export import export_checkpoint
from autoglm_training.export_command import main
from autoglm_training.generate import generate
from autoglm_training.loading import LoadedCheckpoint, load_checkpoint
from autoglm_training.samples import Row, RowBuilder
from autoglm_training.tokenizer import load_tokenizer, number_token_ids, save_tokenizer_json, train_tokenizer

NEW_TOKENS = 8


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(5)
    tokenizer = train_tokenizer(["open WeChat", "tap Bluetooth"] * 20, "", TEXT.vocab_size)
    model = TrainableDecoder(number_token_ids(tokenizer))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    export_checkpoint(path, tokenizer, model.decoder, model.exits, VisionEncoder(VISION), SpeechEncoder(SPEECH))
    return path


@pytest.fixture(scope="module")
def loaded(directory: Path) -> LoadedCheckpoint:
    return load_checkpoint(directory)


@pytest.fixture(scope="module")
def reference(directory: Path) -> Any:
    model: Any = Glm4vForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
    return model.eval()


def test_text_answer_equals_transformers(directory: Path, loaded: LoadedCheckpoint, reference: Any) -> None:
    prompt = "[gMASK]<sop><|user|>\nopen WeChat<|assistant|>\n"
    row = Row()
    RowBuilder(loaded.tokenizer).add_text(row, prompt)
    ids = AutoTokenizer.from_pretrained(directory)(prompt, return_tensors="pt")["input_ids"]
    assert ids[0].tolist() == row.ids
    expected = reference.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False)[0, ids.shape[1] :].tolist()
    ours = generate(loaded.decoder, loaded.exits, [row], [()], 24, loaded.eos_ids, NEW_TOKENS)[0]
    assert ours == [token for token in expected if token not in loaded.eos_ids]


def test_picture_answer_equals_transformers(loaded: LoadedCheckpoint, reference: Any) -> None:
    builder, row = RowBuilder(loaded.tokenizer), Row()
    builder.add_text(row, "[gMASK]<sop><|user|>\n")
    builder.add_image(row, (4, 3))
    builder.add_text(row, "tap Bluetooth<|assistant|>\n")
    patches = torch.randn(48, VISION.patch_dim, generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([row.ids])
    expected = reference.generate(
        input_ids=ids,
        pixel_values=patches,
        image_grid_thw=torch.tensor([[1, 8, 6]]),
        mm_token_type_ids=(ids == builder.image).int(),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
    )[0, len(row.ids) :].tolist()
    media = ((builder.image, loaded.vision(patches, [(8, 6)])),)
    ours = generate(loaded.decoder, loaded.exits, [row], [media], 24, loaded.eos_ids, NEW_TOKENS)[0]
    assert ours == [token for token in expected if token not in loaded.eos_ids]


def test_padded_batch_answers_like_lone_rows(loaded: LoadedCheckpoint) -> None:
    builder = RowBuilder(loaded.tokenizer)
    rows = []
    for text in ("open WeChat", "tap Bluetooth, then wait for a long while"):
        row = Row()
        builder.add_text(row, text)
        rows.append(row)
    together = generate(loaded.decoder, loaded.exits, rows, [(), ()], 6, loaded.eos_ids, NEW_TOKENS)
    alone = [generate(loaded.decoder, loaded.exits, [row], [()], 6, loaded.eos_ids, NEW_TOKENS)[0] for row in rows]
    assert together == alone


def test_whole_checkpoint_is_below_40_mb(directory: Path) -> None:
    assert sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) < 40e6


def export_again(directory: Path, value: float) -> list[str]:
    """A checkpoint whose decoder's norm is `value` throughout."""
    tokenizer = train_tokenizer(["open WeChat"] * 20, "", TEXT.vocab_size)
    model = TrainableDecoder(number_token_ids(tokenizer))
    torch.nn.init.constant_(model.decoder.norm.weight, value)
    return export_checkpoint(directory, tokenizer, model.decoder, model.exits, VisionEncoder(VISION), None)


def norm_of(directory: Path) -> float:
    return float(load_checkpoint(directory).decoder.norm.weight[0])


def test_what_belonged_to_the_old_weights_is_gone_and_named(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoint"
    assert export_again(directory, 1.0) == []
    (directory / "README.md").write_text("a card", encoding="utf-8")
    for name in ("certificate.json", "gates.json", "router.json"):
        (directory / "exits" / name).write_text("{}", encoding="utf-8")
    assert export_again(directory, 2.0) == ["exits/certificate.json", "exits/gates.json", "exits/router.json"]
    assert (directory / "README.md").read_text(encoding="utf-8") == "a card"
    assert sorted(path.name for path in (directory / "exits").iterdir()) == ["exits.json", "exits.safetensors"]
    assert norm_of(directory) == 2.0


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"thesis\.tex is no file of this export"):
        export_again(tmp_path, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_checkpoint_without_speech_has_no_sidecar(tmp_path: Path) -> None:
    export_again(tmp_path / "checkpoint", 1.0)
    assert load_checkpoint(tmp_path / "checkpoint").speech is None


KILLED = """
import sys
from pathlib import Path
from autoglm_training import export
from tests.training.test_export import export_again
def stop(*arguments, **options):
    print("weights are written", flush=True)
    sys.stdin.read()
export.save_exits = stop
export_again(Path(sys.argv[1]), 2.0)
"""


def test_a_killed_export_leaves_the_old_checkpoint_whole(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoint"
    export_again(directory, 1.0)
    command = [sys.executable, "-c", KILLED, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "weights are written\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert norm_of(directory) == 1.0


def test_an_export_of_nothing_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run-dir", str(tmp_path / "nowhere"), "--checkpoint", str(tmp_path / "checkpoint")]) == 1
    told = capsys.readouterr().err
    assert told.startswith("autoglm export: none of ")
    assert told.count("\n") == 1
    assert not (tmp_path / "checkpoint").exists()


def finished_run(folder: Path) -> Path:
    folder.mkdir()
    tokenizer = load_tokenizer(Path("checkpoints/autoglm-phone-tiny/tokenizer.json"))
    save_tokenizer_json(tokenizer, folder / "tokenizer.json")
    modules = {"model": TrainableDecoder(number_token_ids(tokenizer)).state_dict()}
    save_atomically({"modules": modules, "progress": {}}, folder / "decoder.pt")
    save_atomically({"modules": {"encoder": VisionEncoder(VISION).state_dict()}, "progress": {}}, folder / "vision.pt")
    return folder


def test_an_export_without_a_speech_encoder_has_to_be_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "checkpoint"
    options = ["--run-dir", str(finished_run(tmp_path / "run")), "--checkpoint", str(directory)]
    options += ["--speech-dir", str(tmp_path / "none")]
    assert main(options) == 1
    assert "--without-speech" in capsys.readouterr().err
    assert not directory.exists()
    assert main([*options, "--without-speech"]) == 0
    assert load_checkpoint(directory).speech is None


def test_the_help_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "python -m" not in capsys.readouterr().out
