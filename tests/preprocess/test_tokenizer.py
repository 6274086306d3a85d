"""What /tokenize says beyond the ids, beside the tokenizers library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from autoglm_backend.preprocess.tokenizer import load_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    alphabet = {piece: index for index, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    theirs = tokenizers.Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    theirs.add_special_tokens(["[gMASK]", "<sop>", "<eop>"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize("in_sequence", [False, True])
def test_special_tokens_are_added_as_the_library_does(folder: Path, in_sequence: bool) -> None:
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [(name, theirs.token_to_id(name)) for name in ("[gMASK]", "<sop>", "<eop>")]
    template = processors.TemplateProcessing(single="[gMASK] <sop> $A <eop>", special_tokens=ids)
    theirs.post_processor = processors.Sequence([processors.ByteLevel(), template]) if in_sequence else template
    theirs.save(str(folder / "tokenizer.json"))
    ours = load_tokenizer(folder)
    assert list(ours.with_special(ours.encode("hi 你"))) == theirs.encode("hi 你").ids


def test_without_a_template_nothing_is_added(folder: Path) -> None:
    assert load_tokenizer(folder).with_special([1, 2]) == (1, 2)


def test_a_piece_is_spelled_as_the_library_does(folder: Path) -> None:
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = theirs.encode("a 你<sop>").ids
    ours = load_tokenizer(folder)
    assert [ours.piece(token) for token in ids] == [theirs.id_to_token(token) for token in ids]
    size = max(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"].values())
    assert ours.piece(size + 1000) == ""
