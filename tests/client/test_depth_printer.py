"""`autoglm chat --show-depth` and what the Python client says of depth."""

from __future__ import annotations

import io

import pytest
from tests.client.openai_server import GRAPH, OpenAIServer
from tests.client.test_commands import autoglm

from autoglm_client import AsyncAutoGLM, Finished, Started, TextDelta
from autoglm_client.depth_printer import DepthPrinter
from autoglm_client.events import ClientEvent
from autoglm_client.reply import ReplyBuilder
from autoglm_protocol.events import FinishReason, TokenLayers, Usage

REPORT = {
    **GRAPH,
    "exit_mode": "lossless",
    "layers_run": {"6": 2, "24": 1},
    "layer_steps": 1234,
    "drafts_proposed": 4,
    "drafts_accepted": 2,
    "kv_bytes": 1_500_000,
}
EVENTS: tuple[ClientEvent, ...] = (
    Started(dynamic_graph=GRAPH),
    TextDelta(text="Open", token_layers=(TokenLayers(text="Open", layers=24),)),
    TextDelta(text=" it", token_layers=(TokenLayers(text=" i", layers=6), TokenLayers(text="t", layers=6))),
    TextDelta(text="!"),
    Finished(finish_reason=FinishReason.STOP, usage=Usage(completion_tokens=3), dynamic_graph=REPORT),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(out: io.StringIO, events: tuple[ClientEvent, ...] = EVENTS) -> str:
    printer, builder = DepthPrinter(out), ReplyBuilder()
    for event in events:
        printer.show(event)
        builder.add(event)
    printer.end()
    printer.summary(builder.reply)
    return out.getvalue()


def test_without_colours_a_mark_stands_where_the_depth_changes() -> None:
    assert printed(io.StringIO()).splitlines() == [
        "⟨24⟩Open⟨6⟩ it!",
        "⟨6⟩ 6 layers: 2 tokens   ⟨24⟩ 24 layers: 1 token",
        "a token needed 12.0 of 24 layers · 2 of 4 guesses kept · 1,234 layer-steps · 1.5 MB of keys and values",
    ]


def test_on_a_terminal_shallow_is_green_and_deep_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    answer = printed(Terminal()).splitlines()[0]
    assert answer == ("\x1b[30;48;5;210mOpen\x1b[0m\x1b[30;48;5;157m i\x1b[0m\x1b[30;48;5;120mt\x1b[0m!")


def test_a_background_ends_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    DepthPrinter(out).show(TextDelta(text="a\nb", token_layers=(TokenLayers(text="a\nb", layers=1),)))
    assert "\x1b[0m\n\x1b[30" in out.getvalue()


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in printed(Terminal())


def test_a_server_that_says_no_layers_is_said_so() -> None:
    events = (TextDelta(text="Hi"), EVENTS[-1])
    assert printed(io.StringIO(), events) == "Hi\n(this server does not say how many layers a token needed)\n"


async def test_the_client_reads_plan_and_layers(server: OpenAIServer) -> None:
    server.token_layers = 6
    async with AsyncAutoGLM(server.url) as client:
        started, *deltas, _ = [event async for event in client.stream("Hi", return_token_layers=True)]
    assert isinstance(started, Started)
    assert started.dynamic_graph["num_layers"] == 24
    assert all(isinstance(d, TextDelta) and d.token_layers[0].text == d.text for d in deltas)


async def test_a_reply_has_all_of_them(server: OpenAIServer) -> None:
    server.token_layers = 6
    async with AsyncAutoGLM(server.url) as client:
        reply = await client.act("Hi", return_token_layers=True)
    assert "".join(token.text for token in reply.token_layers) == reply.text
    assert reply.to_json()["token_layers"][0]["layers"] == 6


def test_the_command_asks_for_layers_and_exit_and_prints_them(server: OpenAIServer) -> None:
    server.token_layers = 6
    result = autoglm("chat", "--base-url", server.url, "--show-depth", "--exit", "lossless", "Hi")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("⟨6⟩<think>The row is visible.</think>")
    assert (server.bodies[0]["return_token_layers"], server.bodies[0]["exit"]) == (True, "lossless")
