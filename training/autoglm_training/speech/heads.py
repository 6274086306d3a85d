"""Throw-away heads that teach the encoder: classes by name, so that trained rows survive a change of corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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

    def saved(self) -> dict[str, object]:
        return {"names": list(self.names), **self.linear.state_dict()}

    @torch.no_grad()
    def carry_over(self, saved: Mapping[str, Tensor | list[str]]) -> bool:
        """Take the rows of every name that `saved` knows; True when it held exactly these names."""
        weight, bias, names = saved["weight"], saved["bias"], saved["names"]
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        rows = {str(name): row for row, name in enumerate(names)}
        for index, name in enumerate(self.names):
            if name in rows:
                self.linear.weight[index] = weight[rows[name]]
                self.linear.bias[index] = bias[rows[name]]
        return list(rows) == list(self.names)


class IntentHead(nn.Module):
    """Command family of a clip from its speech tokens: one learned query attends, one linear layer decides."""

    def __init__(self, in_features: int, num_families: int) -> None:
        super().__init__()
        self.score = nn.Linear(in_features, 1)
        self.classify = nn.Linear(in_features, num_families)

    def forward(self, tokens_BAD: Tensor, num_tokens_B: Tensor) -> Tensor:
        scores_BA = self.score(tokens_BAD).squeeze(-1).float()
        beyond = torch.arange(tokens_BAD.shape[1]) >= num_tokens_B[:, None]
        weights_BA = scores_BA.masked_fill(beyond, float("-inf")).softmax(-1)
        return self.classify((weights_BA[..., None] * tokens_BAD).sum(1))
