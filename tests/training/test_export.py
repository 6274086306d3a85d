"""An exported checkpoint (random weights) is read by transformers and by us, and both say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, Glm4vForConditionalGeneration

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_backend.models.vision import VisionEncoder
from autoglm_training.config.recipes import SPEECH, TEXT, VISION
from autoglm_training.decoder_model import TrainableDecoder
from autoglm_training.export import export_checkpoint
from autoglm_training.generate import generate
from autoglm_training.loading import LoadedCheckpoint, load_checkpoint
from autoglm_training.samples import Row, RowBuilder
from autoglm_training.tokenizer import number_token_ids, train_tokenizer

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
