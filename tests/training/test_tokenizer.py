"""The default checkpoint's tokenizer: numbers, round trips, special tokens, and its chat template."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from autoglm_training.tokenizer import (
    NUM_NUMBERS,
    SPECIAL_TOKENS,
    TAG_TOKENS,
    number_token_ids,
    save_tokenizer,
    token_id,
    train_tokenizer,
)

TEXTS = ("open WeChat", "tap Bluetooth please", 'do(action="Tap", element=[1,2])', "打开微信", "点击蓝牙") * 20


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, "打开微信点击蓝牙", 1600)


def test_every_number_to_999_is_one_token(tokenizer: Tokenizer) -> None:
    assert len(set(number_token_ids(tokenizer))) == NUM_NUMBERS


def test_coordinates_are_two_number_tokens(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("element=[499,7]").tokens
    assert [token for token in tokens if token.isdigit()] == ["499", "7"]


@given(text=st.text(max_size=60))
def test_any_text_round_trips(text: str) -> None:
    tokenizer = ROUND_TRIP
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_known_chinese_characters_are_one_token(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("微").ids) == 1


def test_special_tokens_disappear_and_tags_stay(tokenizer: Tokenizer) -> None:
    text = "[gMASK]<sop><|user|>hi<|image|><think>x</think><answer>y</answer>"
    shown = tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=True)
    assert shown == "hi<think>x</think><answer>y</answer>"


def test_all_added_tokens_are_known(tokenizer: Tokenizer) -> None:
    ids = [token_id(tokenizer, token) for token in (*SPECIAL_TOKENS, *TAG_TOKENS)]
    assert len(set(ids)) == len(SPECIAL_TOKENS) + len(TAG_TOKENS)


def test_too_small_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="enlarge the vocabulary"):
        train_tokenizer(TEXTS, "", 500)


def test_transformers_loads_it_with_its_template(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path, 16384)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    messages = [
        {"role": "system", "content": "left out"},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "open WeChat"}]},
        {"role": "assistant", "content": "<think>a</think><answer>b</answer>"},
        {"role": "user", "content": "Hi"},
    ]
    text = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "[gMASK]<sop><|user|>\n<|begin_of_image|><|image|><|end_of_image|>open WeChat"
        "<|assistant|>\n<think>a</think><answer>b</answer><|user|>\nHi<|assistant|>\n"
    )
    assert loaded(text)["input_ids"] == tokenizer.encode(text).ids


ROUND_TRIP = train_tokenizer(TEXTS, "", 1600)
