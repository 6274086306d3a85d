"""`autoglm chat`: ask a running server what to do on a phone screen, typed or spoken."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from autoglm_client.conversation import Conversation
from autoglm_client.depth_printer import DepthPrinter
from autoglm_client.media import MediaError
from autoglm_client.plan_line import plan_line
from autoglm_client.reply import ActionReply
from autoglm_client.sync import AutoGLM
from autoglm_client.terminal import AnswerPrinter
from autoglm_protocol.errors import AutoglmError

_HELP = "/image PATH and /audio PATH go with your next line, /exit or Ctrl-D leaves."


class CommandError(Exception):
    """One sentence for the person at the terminal."""


def main(argv: list[str]) -> int:
    """Exit status: 0 answered, 1 failed (one sentence on stderr), 2 wrong usage, 130 interrupted."""
    options = _parse(argv)
    try:
        with AutoGLM(options.base_url, options.api_key, model=options.model, timeout_s=options.timeout_s) as client:
            conversation = Conversation(client, **_sampling(options))
            if options.instruction is None and options.audio is None:
                return _interact(conversation, options)
            reply = _ask(conversation, options, options.instruction or "", images=options.image, audio=options.audio)
            if options.save is not None:
                _save(reply, options.image[-1], options.save)
    except (AutoglmError, MediaError, CommandError) as error:
        print(f"autoglm chat: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="autoglm chat",
        description="Ask a running server what to do on a phone screen, typed or spoken. Without an instruction and "
        f"without --audio it asks for one line after the other: {_HELP}",
    )
    add = parser.add_argument
    add("instruction", nargs="?", help='what you want, such as "Open Bluetooth"')
    add("--image", action="append", default=[], metavar="PATH", help="a screenshot (PNG, JPEG, WebP); repeatable")
    add("--audio", metavar="PATH", help="a spoken instruction (WAV, MP3)")
    add("--save", metavar="PATH", help="write a copy of the last screenshot with the action drawn on it")
    add("--json", action="store_true", help="print the whole reply as JSON instead of streaming it")
    add("--raw", action="store_true", help="show the text as the model writes it, tags included")
    add("--depth", help='decoder layers: "auto", "full" or a number that the checkpoint has an exit for')
    add("--exit", metavar="MODE", help="how depth is spared: lossless, certified or fixed; the server's own by default")
    add("--show-depth", action="store_true", help="colour each token by the layers it needed, and say what was spared")
    add("--max-tokens", type=int, metavar="N", help="the longest answer; the server's own limit by default")
    add("--temperature", type=float, default=0.0, metavar="T", help="0, the default, always takes the likeliest token")
    add("--model", metavar="NAME", help="a served name; the first one that the server lists by default")
    server = os.environ.get("AUTOGLM_BASE_URL", "http://127.0.0.1:8000")
    add("--base-url", default=server, metavar="URL", help="default %(default)s; or AUTOGLM_BASE_URL")
    key = os.environ.get("AUTOGLM_API_KEY")
    add("--api-key", default=key, metavar="KEY", help="or AUTOGLM_API_KEY")
    add("--timeout", dest="timeout_s", type=float, default=120.0, metavar="S", help="seconds of silence to wait for")
    options = parser.parse_args(argv)
    if options.save is not None and not options.image:
        parser.error("--save draws on a screenshot: it needs --image")
    return options


def _sampling(options: argparse.Namespace) -> dict[str, Any]:
    sampling: dict[str, Any] = {"temperature": options.temperature}
    if options.max_tokens is not None:
        sampling["max_tokens"] = options.max_tokens
    if options.depth is not None:
        sampling["depth"] = int(options.depth) if options.depth.isdigit() else options.depth
    if options.exit is not None:
        sampling["exit"] = options.exit
    if options.show_depth:
        sampling["return_token_layers"] = True
    return sampling


def _ask(
    conversation: Conversation,
    options: argparse.Namespace,
    instruction: str,
    *,
    images: Sequence[str] = (),
    audio: str | None = None,
) -> ActionReply:
    if options.json:
        reply = conversation.ask(instruction, images=images, audio=audio, show=lambda _: None)
        print(json.dumps(reply.to_json(), ensure_ascii=False, indent=2))
        return reply
    answer = AnswerPrinter(sys.stdout, is_raw=options.raw)
    depth = DepthPrinter(sys.stdout) if options.show_depth else None
    printer = depth or answer
    try:
        reply = conversation.ask(instruction, images=images, audio=audio, show=printer.show)
    finally:
        printer.end()
    if depth is not None:
        depth.summary(reply)
    answer.dim(plan_line(reply))
    return reply


def _save(reply: ActionReply, screenshot: str, target: str) -> None:
    # Pillow loads here, so that a chat without pictures starts faster.
    from PIL import Image

    from autoglm_client.draw import draw_action

    if reply.action is None:
        raise CommandError(f"the answer is no action, so there is nothing to draw: {reply.action_text[:80]!r}")
    try:
        drawn = draw_action(Image.open(screenshot), reply.action)
        drawn.save(target)
    except (OSError, ValueError) as error:  # a folder that does not exist, a suffix that names no picture format
        raise CommandError(f"{target} cannot be written: {error}") from error


def _interact(conversation: Conversation, options: argparse.Namespace) -> int:
    """One line after the other; a failed turn is reported and the conversation goes on. 1 when the last turn failed."""
    if sys.stdin.isatty():
        import readline as _  # gives input() its history and editing

        print(_HELP)
    images, audio, status = list[str](options.image), None, 0
    screenshot = images[-1] if images else None
    for line in _lines():
        word, _, rest = line.partition(" ")
        if word == "/exit":
            break
        if word == "/image" and rest:
            images, screenshot = [rest.strip()], rest.strip()
        elif word == "/audio" and rest:
            audio = rest.strip()
        elif word.startswith("/"):
            print(_HELP, file=sys.stderr)
        else:
            try:
                reply = _ask(conversation, options, line, images=images, audio=audio)
                images, audio, status = [], None, 0
                if options.save is not None and screenshot is not None:
                    _save(reply, screenshot, options.save)
            except KeyboardInterrupt:
                print("(cancelled)")
            except (AutoglmError, MediaError, CommandError) as error:
                print(f"autoglm chat: {error}", file=sys.stderr)
                status = 1
                if isinstance(error, MediaError):
                    images, audio = [], None
    return status


def _lines() -> Iterator[str]:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            if sys.stdin.isatty():
                print()
            return
        if line:
            yield line
