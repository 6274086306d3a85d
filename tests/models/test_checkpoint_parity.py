"""Whole checkpoints of several shapes, pictures included, against transformers: logits of the prompt and greedy ids."""

from __future__ import annotations

import queue
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.random_checkpoint import IMAGE_ID, Shape, random_checkpoint
from torch import Tensor
from transformers import Glm4vForConditionalGeneration

from autoglm_backend.encoders.vision import VisionService
from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.positions import mrope_positions
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.models.config import load_model_config
from autoglm_backend.models.decoder import TextDecoder, causal_attend
from autoglm_backend.models.shards import checkpoint_shards, text_name
from autoglm_backend.models.weights import load_module
from autoglm_protocol.events import Finished, StreamEvent, TokenDelta
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.wire import DecodeRequest

NUM_TOKENS = 64
PICTURES = {"none": (), "tall": ((8, 4),), "wide": ((2, 12),), "several": ((4, 4), (10, 2), (2, 6))}
"""Grids in patches."""
SHAPES = {
    "sharded, vision bias": Shape(vision_bias=True, num_shards=3),
    "tied, fully rotary": Shape(layers=3, mrope_section=(2, 3, 3), partial_rotary=1.0, tied=True),
    "quarter rotary, one KV head": Shape(
        hidden=128, heads=2, kv_heads=1, layers=2, mrope_section=(2, 3, 3), partial_rotary=0.25
    ),
    "GLM-like sections": Shape(hidden=256, heads=4, kv_heads=2, layers=2, mrope_section=(4, 6, 6)),
}


@pytest.fixture(scope="module", params=SHAPES.values(), ids=list(SHAPES))
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Glm4vForConditionalGeneration]:
    directory = tmp_path_factory.mktemp("checkpoint")
    return directory, random_checkpoint(directory, request.param)


def prompt(grids: tuple[tuple[int, int], ...]) -> list[int]:
    """Words, then each picture between its marks, then words."""
    rng = np.random.default_rng(4)
    words = rng.integers(3, 70, 12).tolist()
    pictures = [[91, *[IMAGE_ID] * (rows * columns // 4), 92] for rows, columns in grids]
    return [*words[:5], *[token for picture in pictures for token in picture], *words[5:]]


def media_inputs(ids: list[int], patches_PK: Tensor, grids: tuple[tuple[int, int], ...]) -> dict[str, Tensor]:
    kinds = torch.tensor([[int(token == IMAGE_ID) for token in ids]], dtype=torch.int32)
    if not grids:
        return {"mm_token_type_ids": kinds}
    grid_thw = torch.tensor([(1, *grid) for grid in grids])
    return {"mm_token_type_ids": kinds, "pixel_values": patches_PK, "image_grid_thw": grid_thw}


def our_logits(
    directory: Path, ids: list[int], embeddings_MD: np.ndarray | None, grids: tuple[tuple[int, int], ...]
) -> Tensor:
    config = load_model_config(directory)
    decoder = TextDecoder(config.text)
    load_module(decoder, checkpoint_shards(directory), text_name)
    merged = [(rows // 2, columns // 2) for rows, columns in grids]
    positions_3T, _ = mrope_positions(np.array(ids), IMAGE_ID, merged)
    with torch.no_grad():
        hidden_TD = decoder.embed_tokens(torch.tensor(ids))
        if embeddings_MD is not None:
            hidden_TD[torch.tensor(ids) == IMAGE_ID] = torch.from_numpy(embeddings_MD)
        rotation = decoder.rotation(torch.from_numpy(positions_3T))
        return decoder.logits(decoder.run_span(0, config.text.num_layers, hidden_TD, rotation, causal_attend))


def our_ids(
    directory: Path, ids: list[int], embeddings_MD: np.ndarray | None, grids: tuple[tuple[int, int], ...]
) -> list[int]:
    service = DecoderService.from_checkpoint(directory, EngineOptions(device="cpu", threads=1, kv_cache_tokens=1024))
    events: queue.SimpleQueue[StreamEvent] = queue.SimpleQueue()
    request = DecodeRequest(
        tag="a",
        prompt_ids=np.array(ids, dtype=np.int32),
        image_grids=tuple((rows // 2, columns // 2) for rows, columns in grids),
        embeddings_MD=embeddings_MD,
        sampling=SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True),
    )
    service.add(request, events.put)
    tokens: list[int] = []
    while True:
        event = events.get(timeout=60)
        if isinstance(event, TokenDelta):
            tokens += event.token_ids
        else:
            assert isinstance(event, Finished), event
            break
    service.shutdown()
    return tokens


@pytest.mark.parametrize("pictures", PICTURES)
def test_logits_and_greedy_ids_equal_transformers(
    checkpoint: tuple[Path, Glm4vForConditionalGeneration], pictures: str
) -> None:
    directory, reference = checkpoint
    grids = PICTURES[pictures]
    ids = prompt(grids)
    num_patches = sum(rows * columns for rows, columns in grids)
    patches_PK = torch.randn(num_patches, 1176, generator=torch.Generator().manual_seed(5))
    inputs = media_inputs(ids, patches_PK, grids)
    with torch.no_grad():
        expected_TV = reference(input_ids=torch.tensor([ids]), **inputs).logits[0]
        expected_ids = reference.generate(
            torch.tensor([ids]), do_sample=False, max_new_tokens=NUM_TOKENS, eos_token_id=None, **inputs
        )[0, len(ids) :].tolist()
    embeddings_MD = None
    if grids:
        vision = VisionService.from_checkpoint(directory, "cpu")
        embeddings_MD = vision.encode(patches_PK.numpy(), np.array(grids, dtype=np.int32))

    scale = float(expected_TV.abs().max())
    torch.testing.assert_close(
        our_logits(directory, ids, embeddings_MD, grids), expected_TV, rtol=1e-4, atol=1e-4 * scale
    )
    assert our_ids(directory, ids, embeddings_MD, grids) == expected_ids
