"""An answer's events as bytes, for a store outside this process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson

from autoglm_protocol.events import StreamEvent
from autoglm_protocol.tensors import bytes_tensor
from autoglm_protocol.wire import event_from_tensors, event_to_tensors


def dump_events(events: Sequence[StreamEvent]) -> bytes:
    rows: list[list[object]] = []
    for event in events:
        tensors = event_to_tensors(event)
        rows.append([tensors["text"][0].decode(), tensors["token_ids"].tolist(), tensors["event"][0].decode()])
    return orjson.dumps(rows)


def load_events(data: bytes) -> tuple[StreamEvent, ...]:
    """Raises ValueError for what another version, or nobody here, wrote."""
    try:
        return tuple(
            event_from_tensors(
                {
                    "text": bytes_tensor([text.encode()]),
                    "token_ids": np.array(ids, dtype=np.int32),
                    "event": bytes_tensor([event.encode()]),
                }
            )
            for text, ids, event in orjson.loads(data)
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("these are no events") from error
