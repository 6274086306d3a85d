"""What the first layers are taught to see: words and centres under a picture's tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoglm_training.config.recipes import TEXT
from autoglm_training.decoder_model import TrainableDecoder, number_codes
from autoglm_training.seeing import CentreMaps, SeenCentres, StandingMaps, seen_centres, seen_standings, seen_words
from autoglm_training.world.standing import FACT_CLASSES, NUM_NAMES

IMAGE = 5


def test_tokens_on_elements_are_told_their_centres() -> None:
    ids = np.array([[1, IMAGE, IMAGE, 2]])
    centres = np.array([[[np.nan, np.nan], [0.5, 0.25]]], dtype=np.float32)
    seen = seen_centres(ids, IMAGE, [centres])
    assert seen is not None
    assert seen.where_BT.tolist() == [[False, False, True, False]]
    assert seen.centres_N2.tolist() == [[499.5, 249.75]]


def test_a_picture_without_elements_teaches_no_centres() -> None:
    assert seen_centres(np.array([[IMAGE]]), IMAGE, [np.full((1, 1, 2), np.nan, dtype=np.float32)]) is None


def test_tokens_on_elements_are_told_how_these_stand() -> None:
    table = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    facts, names = np.zeros((1, 2, len(FACT_CLASSES)), dtype=np.int64), np.zeros((1, 2, NUM_NAMES), dtype=np.int64)
    facts[0, 1, 1], names[0, 1, 0] = 3, 1
    seen = seen_standings(np.array([[IMAGE, IMAGE]]), IMAGE, [facts], [names], table)
    assert seen is not None
    assert seen.where_BT.tolist() == [[False, True]]
    assert seen.facts_NF.tolist() == [[-1, 2, *[-1] * (len(FACT_CLASSES) - 2)]]
    assert seen.names_N3V.tolist() == [[[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]]


def test_facts_and_names_are_read_off_a_tokens_stream() -> None:
    stand, head = StandingMaps(), torch.nn.Linear(TEXT.hidden_size, 3, bias=False)
    with torch.no_grad():
        stand.facts.weight.zero_()
        stand.facts.bias.zero_()
        stand.facts.bias[1] = 9.0
        stand.names.weight.zero_()
    table = torch.eye(3)
    losses = []
    for rank in (2, 5):
        facts = np.array([[[rank, *[0] * (len(FACT_CLASSES) - 1)]]])
        seen = seen_standings(np.array([[IMAGE]]), IMAGE, [facts], [np.array([[[1, 0, 0]]])], table)
        assert seen is not None
        loss, right = stand(torch.ones(1, 1, TEXT.hidden_size), head, seen)
        losses.append((float(loss.detach()), float(right)))
    assert losses[0][0] == pytest.approx(np.log(3), abs=0.01), "an unread name is any of the three tokens"
    assert (losses[0][1], losses[1][1]) == (1.0, 0.0)
    assert losses[1][0] > losses[0][0] + 5


def test_tokens_on_labels_are_told_their_words() -> None:
    table = torch.eye(3)
    seen = seen_words(np.array([[IMAGE, IMAGE]]), IMAGE, [np.array([[0, 2]])], table)
    assert seen is not None
    assert seen.where_BT.tolist() == [[False, True]]
    assert seen.tokens_NV.tolist() == [[0.0, 0.0, 1.0]]


def test_a_token_that_holds_the_codes_of_its_centre_is_read_right() -> None:
    codes, maps = number_codes(), CentreMaps()
    with torch.no_grad():
        maps.maps.weight.copy_(torch.eye(TEXT.hidden_size).repeat(2, 1) * 10)
    hidden = codes[[300, 700]][None]
    where = torch.ones(1, 2, dtype=torch.bool)
    right, near = maps(
        hidden, codes, SeenCentres(where_BT=where, centres_N2=torch.tensor([[300.0, 300.0], [700.0, 700.0]]))
    )
    wrong, far = maps(
        hidden, codes, SeenCentres(where_BT=where, centres_N2=torch.tensor([[700.0, 700.0], [300.0, 300.0]]))
    )
    assert (float(near), float(far)) == (1.0, 0.0)
    assert float(right.detach()) < float(wrong.detach())


def test_training_noise_falls_on_words_and_not_on_pictures() -> None:
    torch.manual_seed(0)
    model = TrainableDecoder(range(1000)).train()
    picture = torch.rand(2, TEXT.hidden_size)
    hidden = model.embed(torch.tensor([[7, IMAGE, IMAGE]]), ((IMAGE, picture),))
    assert torch.equal(hidden[0, 1:], picture)
    assert int((hidden[0, 0] == 0).sum()) > 0
