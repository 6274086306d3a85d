"""Checkpoints with exits, gates and certificates over random weights, and the dense reference they are judged by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tests.engine.test_engine import add_exits
from tests.random_checkpoint import Shape, random_checkpoint
from tokenizers import Tokenizer, decoders
from torch import Tensor

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.models.certificate import Certificate, checkpoint_sha256
from autoglm_backend.models.config import load_model_config
from autoglm_backend.models.decoder import TextDecoder, causal_attend
from autoglm_backend.models.exits import load_exit_heads
from autoglm_backend.models.gates import ExitGates, gate_description, gate_tensors, load_gates
from autoglm_backend.models.shards import checkpoint_shards, text_name
from autoglm_backend.models.weights import load_module

EXITS = (1, 2)
POISON = 1e30
"""Finite, so that masked slots still weigh exactly nothing; any read of one ruins the answer."""


def certified_checkpoint(
    directory: Path, thresholds: Mapping[int, float], *, uses_margin: bool = False, delta: float = 0.02
) -> Path:
    """Four layers, exits after 1 and 2, random gates that are sure about half of the time at threshold 0.5."""
    directory.mkdir(exist_ok=True)
    random_checkpoint(directory, Shape())
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    add_exits(directory, list(EXITS))
    gates = ExitGates(EXITS, hidden_size=64, uses_margin=uses_margin)
    torch.manual_seed(5)
    for parameter in gates.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    (directory / "exits" / "gates.json").write_text(json.dumps(gate_description(gates)))
    save_file(gate_tensors(gates), directory / "exits" / "gates.safetensors")
    write_certificate(directory, thresholds, delta=delta)
    return directory


def write_certificate(directory: Path, thresholds: Mapping[int, float], **changes: object) -> None:
    certificate = Certificate(
        risk="parsed action differs from full depth",
        delta=0.02,
        epsilon=0.05,
        num_requests=400,
        num_mismatches=0,
        max_tokens=64,
        dtype="float64",
        quantization="none",
        checkpoint_sha256=checkpoint_sha256(directory),
        thresholds=thresholds,
        mean_layers=2.0,
    )
    (directory / "exits" / "certificate.json").write_text(json.dumps({**certificate.to_json(), **changes}))


def service(directory: Path, **options: object) -> DecoderService:
    """float64, so that one-token and many-token kernels agree to the last choice; unwritten slots are poison."""
    engine = DecoderService.from_checkpoint(
        directory,
        EngineOptions(device="cpu", dtype="float64", threads=1, **options),  # type: ignore[arg-type]
    )
    cache = engine._engine._runner.spans.cache  # type: ignore[attr-defined]
    for tensor in (*cache.keys, *cache.values):
        tensor.fill_(POISON)
    return engine


@dataclass(frozen=True, slots=True)
class DenseAnswer:
    ids: list[int]
    layers: list[int]


class Dense:
    """The reference: no cache, no batch, no deferral; every token from a forward pass over the whole text."""

    def __init__(self, directory: Path) -> None:
        config = load_model_config(directory)
        self.decoder = TextDecoder(config.text)
        load_module(self.decoder, checkpoint_shards(directory), text_name)
        self.decoder.double()
        exits = load_exit_heads(directory, config.text)
        assert exits is not None
        self.exits = exits.double()
        gates = load_gates(directory, config.text.hidden_size, exits.depths)
        assert gates is not None
        self.gates = gates

    def keys_values(self, ids: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Per layer, the keys and values [T, G, d] of a text."""
        seen: list[tuple[Tensor, Tensor]] = []

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            seen.append((k, v))
            return causal_attend(layer, q, k, v)

        self._states(ids, attend)
        return seen

    @torch.no_grad()
    def full_logits(self, ids: list[int]) -> Tensor:
        """Full depth's logits [V] for the token after a text."""
        return self.decoder.lm_head(self.decoder.norm(self._states(ids)[4][-1]))

    @torch.no_grad()
    def fixed(self, prompt: np.ndarray, count: int, depth: int) -> list[int]:
        """Greedy tokens of a shallow exit."""
        ids = prompt.tolist()
        for _ in range(count):
            ids.append(int(self.decoder.lm_head(self.exits(depth, self._states(ids)[depth][-1])).argmax()))
        return ids[len(prompt) :]

    @torch.no_grad()
    def certified(self, prompt: np.ndarray, count: int, thresholds: Mapping[int, float]) -> DenseAnswer:
        ids, layers = prompt.tolist(), []
        for number in range(count):
            states = self._states(ids)
            token, depth = None, 4
            for depth in EXITS if number else ():
                normed = self.exits(depth, states[depth][-1:])
                logits = self.decoder.lm_head(normed)
                if depth in thresholds and float(self.gates(depth, normed, logits)) >= thresholds[depth]:
                    token = int(logits.argmax())
                    break
            if token is None:
                token, depth = int(self.decoder.lm_head(self.decoder.norm(states[4][-1:])).argmax()), 4
            ids.append(token)
            layers.append(depth)
        return DenseAnswer(ids[len(prompt) :], layers)

    @torch.no_grad()
    def _states(self, ids: list[int], attend=causal_attend) -> dict[int, Tensor]:
        rotation = self.decoder.rotation(torch.arange(len(ids)).expand(3, -1))
        hidden = self.decoder.embed_tokens(torch.tensor(ids))
        states = {}
        for first, last in ((0, 1), (1, 2), (2, 4)):
            states[last] = hidden = self.decoder.run_span(first, last, hidden, rotation, attend)
        return states
