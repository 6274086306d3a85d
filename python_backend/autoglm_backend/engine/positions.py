"""M-RoPE positions: text advances all three axes, a picture spans rows and columns at one moment.

Source: transformers' `Glm4vModel.get_rope_index` (equal by test). No torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoglm_protocol.errors import InvalidRequestError


def mrope_positions(
    prompt_ids: np.ndarray, image_token_id: int, grids: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, int]:
    """Positions int64 [3, T] of a prompt, and the offset that generated tokens add to their index.

    grids: rows and columns of every picture in merged tokens. Raises InvalidRequestError when placeholders and grids
    disagree.
    """
    is_image = prompt_ids == image_token_id
    wanted = sum(rows * columns for rows, columns in grids)
    if int(is_image.sum()) != wanted:
        raise InvalidRequestError(
            f"prompt_ids holds {int(is_image.sum())} image placeholders, image_grids asks for {wanted}",
            param="image_grids",
        )
    positions_3T = np.empty((3, len(prompt_ids)), dtype=np.int64)
    cursor = next_position = 0
    for rows, columns in grids:
        start = cursor + int(np.argmax(is_image[cursor:]))
        count = rows * columns
        if not is_image[start : start + count].all():
            raise InvalidRequestError("the placeholders of one image must follow each other", param="prompt_ids")
        positions_3T[:, cursor:start] = next_position + np.arange(start - cursor)
        next_position += start - cursor
        row, column = np.divmod(np.arange(count), columns)
        positions_3T[:, start : start + count] = next_position + np.stack((np.zeros_like(row), row, column))
        next_position += max(rows, columns)
        cursor = start + count
    tail = len(prompt_ids) - cursor
    positions_3T[:, cursor:] = next_position + np.arange(tail)
    return positions_3T, next_position + tail - len(prompt_ids)
