"""The default checkpoint's tokenizer: byte-level BPE of 4096 entries, GLM's special tokens, one token per number."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from autoglm_training.files import save_json, save_text

SPECIAL_TOKENS = (
    "<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>",
    "<|observation|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>",
    "<|video|>", "<|begin_of_audio|>", "<|audio|>", "<|end_of_audio|>",
)  # fmt: skip
# Visible in the answer, so not "special", as in GLM-4.1V.
TAG_TOKENS = ("<think>", "</think>", "<answer>", "</answer>")
EOS_TOKENS = ("<|endoftext|>", "<|user|>", "<|observation|>", "</answer>")
PAD_TOKEN = "<|endoftext|>"
NUM_NUMBERS = 1000
# Words may take one leading space or mark; digits go in groups of at most three, so every coordinate is one token.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[A-Za-z]+|\p{Han}|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "[gMASK]<sop>"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}"
    "<|user|>{{ '\\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] in ('image', 'image_url') -%}<|begin_of_image|><|image|><|end_of_image|>"
    "{%- elif part['type'] in ('audio', 'input_audio') -%}<|begin_of_audio|><|audio|><|end_of_audio|>"
    "{%- elif part['type'] == 'text' -%}{{ part['text'] }}"
    "{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{%- elif message['role'] == 'assistant' -%}"
    "<|assistant|>{{ '\\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{{ '\\n' }}{%- endif -%}"
)


def train_tokenizer(texts: Iterable[str], characters: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn the merges from `texts`; numbers and `characters` are repeated until each is one token.

    Raises:
        ValueError: a number does not fit in one token, so the vocabulary is too small.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # Initial alphabet first, so that any text in any script round-trips.
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS) - len(TAG_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = list(texts)
    # Enough to outweigh any pair of the corpus, few enough to stay fast.
    emphasis = max(50, len(lines) // 100)
    numbers = [str(number) for number in range(NUM_NUMBERS)]
    lines += [" ".join(numbers)] * emphasis
    lines += ["".join(dict.fromkeys(characters))] * emphasis
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in TAG_TOKENS])
    split = [number for number in numbers if len(tokenizer.encode(number).ids) != 1]
    if split:
        raise ValueError(f"{len(split)} numbers need more than one token, first {split[0]}: enlarge the vocabulary")
    return tokenizer


def number_token_ids(tokenizer: Tokenizer) -> list[int]:
    """Token of every number 0..999, in order."""
    return [tokenizer.encode(str(number)).ids[0] for number in range(NUM_NUMBERS)]


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Id of one added token. Raises ValueError where there is none."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token}")
    return found


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer.json. Raises OSError, or ValueError for a file that holds no tokenizer."""
    text = path.read_text(encoding="utf-8")
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"{path} is damaged or is no tokenizer: {error}") from error


def save_tokenizer_json(tokenizer: Tokenizer, path: Path) -> None:
    """Only tokenizer.json. Raises OSError."""
    save_text(tokenizer.to_str(pretty=True), path)


def save_tokenizer(tokenizer: Tokenizer, directory: Path, max_length: int) -> None:
    """tokenizer.json, tokenizer_config.json, special_tokens_map.json, chat_template.jinja. Raises OSError."""
    save_tokenizer_json(tokenizer, directory / "tokenizer.json")
    special = {
        "eos_token": PAD_TOKEN,
        "pad_token": PAD_TOKEN,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
    }
    config = {
        **special,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    save_json(config, directory / "tokenizer_config.json")
    save_json(special, directory / "special_tokens_map.json")
    save_text(CHAT_TEMPLATE, directory / "chat_template.jinja")
