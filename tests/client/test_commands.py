"""The `autoglm` command as a person runs it: a process, its output, its exit status."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.client.openai_server import OpenAIServer

SHOWN = 'The row is visible.\ndo(action="Tap", element=[500,250])\n'


def autoglm(*words: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "autoglm_client", *words]
    return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def screenshot(tmp_path: Path) -> Path:
    path = tmp_path / "screen.png"
    Image.new("RGB", (108, 240), "white").save(path)
    return path


def test_help_lists_the_verbs_without_importing_one() -> None:
    code = (
        "import sys; from autoglm_client.cli import main; status = main(['--help']);"
        "print(status, {'torch', 'httpx', 'PIL', 'numpy'} & set(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr == "0 set()\n"
    assert "  chat ask a running server what to do on a phone screen" in re.sub(r"(?<=\S) +", " ", result.stdout)
    assert "\n  serve" in result.stdout


@pytest.mark.parametrize(("words", "sentence"), [((), "usage: autoglm VERB"), (("dance",), "there is no verb 'dance'")])
def test_wrong_usage_is_status_2(words: tuple[str, ...], sentence: str) -> None:
    result = autoglm(*words)
    assert result.returncode == 2
    assert sentence in result.stderr


def test_a_verb_whose_packages_are_missing_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['httpx'] = None;"  # importing it now fails as if it were not installed
        "from autoglm_client.cli import main; sys.exit(main(['chat', 'hi']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stderr == (
        "autoglm chat needs the package httpx, which is not installed; "
        'from the checkout: pip install -c constraints.txt -e ".[client]"\n'
    )


def test_chat_streams_the_answer_and_then_the_plan(server: OpenAIServer, screenshot: Path) -> None:
    result = autoglm("chat", "--base-url", server.url, "--image", str(screenshot), "Open Bluetooth")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(SHOWN)
    (plan,) = result.stdout.removeprefix(SHOWN).splitlines()
    assert plan.startswith("24 of 24 layers · vision run · speech skipped · first token ")
    assert plan.endswith(" tokens/s")


def test_raw_shows_the_tags(server: OpenAIServer) -> None:
    result = autoglm("chat", "--base-url", server.url, "--raw", "Hi")
    assert result.stdout.startswith("<think>The row is visible.</think><answer>do(")


def test_options_go_into_the_request(server: OpenAIServer) -> None:
    autoglm("chat", "--base-url", server.url, "--model", "m", "--depth", "12", "--max-tokens", "9", "Hi")
    body = server.bodies[0]
    assert (body["model"], body["depth"], body["max_tokens"], body["temperature"]) == ("m", 12, 9, 0.0)


def test_save_draws_the_action_on_a_copy(server: OpenAIServer, screenshot: Path, tmp_path: Path) -> None:
    target = tmp_path / "annotated.png"
    result = autoglm("chat", "--base-url", server.url, "--image", str(screenshot), "--save", str(target), "Open")
    assert result.returncode == 0, result.stderr
    with Image.open(target) as image:
        assert image.getpixel((54, 60)) != (255, 255, 255)


def test_json_is_the_whole_reply(server: OpenAIServer) -> None:
    reply = json.loads(autoglm("chat", "--base-url", server.url, "--json", "Open").stdout)
    assert reply["action"] == {"name": "Tap", "element": [500, 250]}
    assert reply["usage"]["image_tokens"] == 256
    assert reply["dynamic_graph"]["encoders_run"] == ["vision"]


def test_without_an_instruction_each_line_is_a_turn(server: OpenAIServer, screenshot: Path) -> None:
    lines = f"/image {screenshot}\nOpen Bluetooth\nand now?\n/exit\nnever sent\n"
    result = autoglm("chat", "--base-url", server.url, lines=lines)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(SHOWN) == 2
    roles = [m["role"] for m in server.bodies[1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert len(server.bodies) == 2


def test_a_new_screenshot_takes_the_place_of_the_last(server: OpenAIServer, screenshot: Path) -> None:
    lines = f"/image {screenshot}\nfirst\n/image {screenshot}\nsecond\n"
    autoglm("chat", "--base-url", server.url, lines=lines)
    first, _, second = server.bodies[1]["messages"]
    assert first == {"role": "user", "content": "first"}
    assert second["content"][0]["type"] == "image_url"


def test_a_failed_turn_is_reported_and_the_conversation_goes_on(server: OpenAIServer) -> None:
    result = autoglm("chat", "--base-url", server.url, lines="/image nowhere.png\nfirst\nsecond\n")
    assert result.returncode == 0
    assert result.stderr == "autoglm chat: nowhere.png cannot be read: No such file or directory\n"
    assert result.stdout.startswith(SHOWN)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--image", "nowhere.png", "Hi"), "nowhere.png cannot be read: No such file or directory"),
        (("--base-url", "http://127.0.0.1:1", "Hi"), "no server answers at http://127.0.0.1:1"),
        (("--image", "{screen}", "--save", "{folder}/none/a.png", "Hi"), "cannot be written"),
    ],
)
def test_a_failure_is_one_sentence_and_status_1(
    server: OpenAIServer, screenshot: Path, words: tuple[str, ...], sentence: str
) -> None:
    filled = [word.format(screen=screenshot, folder=screenshot.parent) for word in words]
    result = autoglm("chat", "--base-url", server.url, *filled)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_refusal_is_the_servers_sentence(server: OpenAIServer) -> None:
    server.refusal = (400, {"error": {"message": "depth is 7, must be one of 6, 12"}}, {})
    result = autoglm("chat", "--base-url", server.url, "--depth", "7", "Hi")
    assert (result.returncode, result.stderr) == (1, "autoglm chat: depth is 7, must be one of 6, 12\n")


def test_a_failure_in_mid_answer_ends_the_line_first(server: OpenAIServer) -> None:
    server.deltas, server.error_after_deltas = ("half",), {"message": "boom", "type": "server_error"}
    result = autoglm("chat", "--base-url", server.url, "Hi")
    assert (result.stdout, result.stderr, result.returncode) == ("half\n", "autoglm chat: boom\n", 1)


def test_save_without_an_image_is_wrong_usage() -> None:
    result = autoglm("chat", "--save", "a.png", "Hi")
    assert result.returncode == 2
    assert "--save draws on a screenshot: it needs --image" in result.stderr
