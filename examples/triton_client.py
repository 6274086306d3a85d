"""Triton directly, without the gateway: the tensors of `autoglm_phone`. `pip install "tritonclient[grpc]"`"""

from __future__ import annotations

import json
import os
import queue
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton


def bytes_input(name: str, *items: bytes) -> triton.InferInput:
    tensor = triton.InferInput(name, [len(items)], "BYTES")
    tensor.set_data_from_numpy(np.array(items, dtype=np.object_))
    return tensor


inputs = [
    bytes_input("messages", json.dumps([{"role": "user", "content": "Open Bluetooth"}]).encode()),
    bytes_input("images", (Path(__file__).parent / "settings.png").read_bytes()),
    bytes_input("sampling", json.dumps({"temperature": 0.0, "max_tokens": 128}).encode()),
    bytes_input("options", json.dumps({"depth": "full"}).encode()),
]
answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()

with triton.InferenceServerClient(os.environ.get("AUTOGLM_TRITON", "127.0.0.1:8001")) as client:
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer("autoglm_phone", inputs)
    event: dict[str, Any] = {}
    while event.get("type") not in ("finished", "cancelled"):
        result, error = answers.get()
        if error is not None:
            raise error
        print(result.as_numpy("text")[0].decode(), end="", flush=True)
        event = json.loads(result.as_numpy("event")[0])
    client.stop_stream()
print(f"\n{event['usage']}\n{event['dynamic_graph']}")
