"""Throw-away heads that teach the encoder; classes carry names, so that no state is read for another corpus."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NamedHead(nn.Module):
    """A linear classifier whose class 0 is CTC's blank and whose other classes carry names."""

    def __init__(self, in_features: int, names: Sequence[str]) -> None:
        super().__init__()
        self.names = ("", *names)
        self.linear = nn.Linear(in_features, len(self.names))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.linear(hidden)

    def get_extra_state(self) -> list[str]:
        """The names are part of the saved state: rows mean nothing without them."""
        return list(self.names)

    def set_extra_state(self, state: list[str]) -> None:
        """Raises ValueError for the state of a head with other classes."""
        if tuple(state) != self.names:
            raise ValueError(f"it has {len(state)} classes where the spoken clips have {len(self.names)}, or others")


class IntentHead(nn.Module):
    """Command family of a clip from its speech tokens: one learned query attends, one linear layer decides."""

    def __init__(self, in_features: int, num_families: int) -> None:
        super().__init__()
        self.score = nn.Linear(in_features, 1)
        self.classify = nn.Linear(in_features, num_families)

    def forward(self, tokens_BAD: Tensor, num_tokens_B: Tensor) -> Tensor:
        scores_BA = self.score(tokens_BAD).squeeze(-1).float()
        beyond = torch.arange(tokens_BAD.shape[1], device=tokens_BAD.device) >= num_tokens_B[:, None]
        weights_BA = scores_BA.masked_fill(beyond, float("-inf")).softmax(-1)
        return self.classify((weights_BA[..., None] * tokens_BAD).sum(1))
