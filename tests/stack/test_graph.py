"""The dynamic graph, proved by Triton's own counts and by counts of layers run."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import tritonclient.grpc as triton
from PIL import Image
from tests.stack.conftest import EXAMPLES, Server, audio_part, image_part

pytestmark = pytest.mark.triton


def inference_counts(server: Server) -> dict[str, int]:
    client = triton.InferenceServerClient(server.triton_grpc_url)
    stats = client.get_inference_statistics(as_json=True)
    client.close()
    return {model["name"]: int(model.get("inference_count", 0)) for model in stats["model_stats"]}


@contextmanager
def calls(server: Server) -> Iterator[dict[str, int]]:
    """Inferences per model that happen inside the block."""
    before, inside = inference_counts(server), {}
    yield inside
    inside.update({name: count - before[name] for name, count in inference_counts(server).items()})


def test_text_calls_no_encoder(server: Server) -> None:
    with calls(server) as counts:
        assert server.chat("Swipe down, please").status_code == 200
    assert (counts["vision_encoder"], counts["speech_encoder"]) == (0, 0)
    assert (counts["autoglm_phone"], counts["text_decoder"]) == (1, 1)


def new_picture() -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (280, 616), (12, 34, 56)).save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def test_an_image_calls_the_vision_encoder_once_and_then_its_cache(server: Server) -> None:
    # Drawn here, because the server may have seen the examples already.
    content = [new_picture(), {"type": "text", "text": "Tap the cheapest item"}]
    with calls(server) as first:
        server.chat(content)
    with calls(server) as second:
        graph = server.chat(content).json()["dynamic_graph"]
    assert (first["vision_encoder"], first["speech_encoder"]) == (1, 0)
    assert second["vision_encoder"] == 0
    assert graph["embedding_cache_hits"] == 1


def test_sound_calls_the_speech_encoder_alone(server: Server) -> None:
    sound = audio_part((EXAMPLES / "open_bluetooth.wav").read_bytes())
    with calls(server) as counts:
        server.chat([sound])
    assert (counts["vision_encoder"], counts["speech_encoder"]) == (0, 1)


@pytest.mark.parametrize("depth", [6, 12, 18, 24, "full"])
def test_a_depth_runs_exactly_that_many_layers(server: Server, depth: int | str) -> None:
    answer = server.chat(f"Open the camera {depth}", depth=depth, exit="fixed").json()
    layers = 24 if depth == "full" else int(depth)
    graph, usage = answer["dynamic_graph"], answer["usage"]
    assert graph["depth"] == layers
    assert graph["layers_run"] == {str(layers): usage["completion_tokens"]}
    # Every prompt token that no cache spared, and every generated one but the last, which is never run.
    tokens = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"] + usage["completion_tokens"] - 1
    assert graph["layer_steps"] == layers * tokens


def test_lossless_says_what_full_depth_says(server: Server) -> None:
    for command in ("Open WeChat", "Go back", "你是谁", "Scroll down a bit", "Type hello world"):
        full = server.chat(command, depth="full", exit="fixed").json()
        lossless = server.chat(command).json()
        assert lossless["choices"] == full["choices"]
        assert lossless["dynamic_graph"]["exit_mode"] == "lossless"


def test_the_launcher_shows_the_graphs_decisions(server: Server) -> None:
    server.chat([image_part("home.png"), {"type": "text", "text": "Open WeChat"}], depth="full")
    assert "[DYNAMIC GRAPH] Activating full inference path (24 layers)" in server.lines
    assert "[DYNAMIC GRAPH] Loading ViT encoder for image processing" in server.lines
    assert "[DYNAMIC GRAPH] Skipping speech encoder (no audio)" in server.lines
