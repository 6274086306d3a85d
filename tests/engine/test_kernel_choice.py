"""The measured choice of matrix product forms and its memory on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from autoglm_backend.engine import kernel_choice
from autoglm_backend.engine.kernel_choice import prepare_decoder, remembered_choices
from autoglm_backend.models.config import TextConfig
from autoglm_backend.models.decoder import TextDecoder


def decoder(dtype: torch.dtype = torch.float32) -> TextDecoder:
    config = TextConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        max_positions=64,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        rotary_dim=16,
        mrope_section=(2, 3, 3),
        tie_word_embeddings=False,
    )
    return TextDecoder(config).to(dtype).eval().requires_grad_(False)


class Slow:
    """A form that loses against any other."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        self.weight_NK = weight_NK

    def __call__(self, x_TK: Tensor) -> Tensor:
        for _ in range(20):
            torch.matmul(x_TK, self.weight_NK.T)
        return x_TK @ self.weight_NK.T


class Fast(Slow):
    def __call__(self, x_TK: Tensor) -> Tensor:
        return x_TK @ self.weight_NK.T


@pytest.fixture(autouse=True)
def few_weights_and_all_the_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for one another have the pace of whatever else the machine does
    monkeypatch.setattr(kernel_choice, "COLD_BYTES", 1 << 18)
    monkeypatch.setattr(kernel_choice, "BUDGET_S", float("inf"))  # a busy machine must not cut the measuring short
    yield
    torch.set_num_threads(threads)


def test_the_faster_form_is_chosen_for_every_product(tmp_path: Path) -> None:
    choices = remembered_choices(decoder(), {"slow": Slow, "fast": Fast}, tmp_path)
    assert set(choices) == {"qkv", "o", "gate_up", "down", "head"}
    assert {choice.many for choice in choices.values()} == {"fast"}


def test_a_second_start_reads_what_the_first_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = remembered_choices(decoder(), {"slow": Slow, "fast": Fast}, tmp_path)
    monkeypatch.setattr(kernel_choice, "_time_form", None)
    assert remembered_choices(decoder(), {"slow": Slow, "fast": Fast}, tmp_path) == first


def test_what_time_was_too_short_for_is_measured_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_choice, "BUDGET_S", -1.0)
    assert remembered_choices(decoder(), {"slow": Slow, "fast": Fast}, tmp_path) == {}
    moments = iter([0.0, 0.0, 2.0])
    monkeypatch.setattr(kernel_choice, "BUDGET_S", 1.0)
    monkeypatch.setattr(kernel_choice.time, "monotonic", lambda: next(moments))
    assert set(remembered_choices(decoder(), {"slow": Slow, "fast": Fast}, tmp_path)) == {"qkv"}
    monkeypatch.undo()
    monkeypatch.setattr(kernel_choice, "_time_form", lambda make, weights, size: 1.0)
    first = remembered_choices(decoder(), {"slow": Slow, "fast": Fast}, tmp_path)
    assert set(first) == {"qkv", "o", "gate_up", "down", "head"}
    assert first["qkv"].many == "fast"


def test_a_form_of_our_own_stays_unless_another_is_clearly_quicker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"Slow": 1.05, "Fast": 1.0}
    monkeypatch.setattr(kernel_choice, "_time_form", lambda make, weights, size: seconds[make.__name__])
    forms = {"plain": Fast, "streamed": Slow}
    assert {choice.few for choice in kernel_choice.measure_choices(decoder(), forms).values()} == {"streamed"}
    seconds["Slow"] = 1.2
    assert {choice.few for choice in kernel_choice.measure_choices(decoder(), forms).values()} == {"plain"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"qkv": 3}', '{"qkv": {"few": "fast"}}'])
def test_a_damaged_file_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str) -> None:
    forms = {"slow": Slow, "fast": Fast}
    first = remembered_choices(decoder(), forms, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text(content, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert set(remembered_choices(decoder(), forms, tmp_path)) == set(first)
    assert "is made anew" in caplog.text
    assert remembered_choices(decoder(), forms, tmp_path).keys() == first.keys()


def test_a_folder_that_cannot_be_written_costs_a_warning_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "a file"
    blocked.touch()
    with caplog.at_level(logging.WARNING):
        assert remembered_choices(decoder(), {"fast": Fast}, blocked / "inside")
    assert "cannot be kept" in caplog.text


def test_other_shapes_or_precisions_have_choices_of_their_own(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        remembered_choices(decoder(dtype), {"fast": Fast}, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_float64_keeps_the_plain_layers(tmp_path: Path) -> None:
    plain = decoder(torch.float64)
    prepare_decoder(plain, "auto", 4, tmp_path)
    assert plain.prepared is None


def test_quantization_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="int8"):
        prepare_decoder(decoder(torch.float64), "int8", 4, tmp_path)
