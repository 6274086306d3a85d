"""A prompt file's unreadable lines: each is named by number with a plain reason, and refused or skipped as asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny_checkpoint import CONTEXT, write_checkpoint

from autoglm_training.exits.prompts import DataError, read_prompts
from autoglm_training.loading import LoadedCheckpoint, load_checkpoint

GOOD = '{"prompt": "open app 7"}'


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedCheckpoint:
    return load_checkpoint(write_checkpoint(tmp_path_factory.mktemp("checkpoint")))


def said(content: object, role: object = "user") -> str:
    return json.dumps({"messages": [{"role": role, "content": content}]})


def part(kind: str, value: object) -> str:
    return said([{"type": kind, kind: value}])


BAD = {
    "no json": ("not json", "not JSON"),
    "no utf-8": (b'{"prompt": "\xff"}', "not JSON"),
    "a number": ("5", 'expected an object with either "prompt" or "messages"'),
    "both": ('{"prompt": "a", "messages": []}', 'either "prompt" or "messages"'),
    "empty prompt": ('{"prompt": ""}', '"prompt" is empty'),
    "prompt is a number": ('{"prompt": 5}', '"prompt" is a number, must be a text'),
    "no messages": ('{"messages": []}', '"messages" must hold at least one message'),
    "message is a text": ('{"messages": ["a"]}', 'expected an object with "content", found a text'),
    "no role": ('{"messages": [{"content": "a"}]}', '"role" is missing'),
    "unknown role": (said("a", role="robot"), "\"role\" is 'robot', must be one of system, user"),
    "null content": (said(None), '"content" is null, must be a text or a list'),
    "text is a number": (part("text", 5), '"text" is a number, must be a text'),
    "text is null": (part("text", None), '"text" is null, must be a text'),
    "unknown part": (part("video_url", {}), "\"type\" is 'video_url', known are text"),
    "image_url is a text": (part("image_url", "x.png"), '"image_url" is a text, must be an object'),
    "url is a number": (part("image_url", {"url": 5}), '"url" is a number, must be a text'),
    "url of the network": (part("image_url", {"url": "https://a/b.png"}), "not from the network"),
    "picture is not there": (part("image_url", {"url": "nowhere.png"}), "nowhere.png: No such file"),
    "picture is a folder": (part("image_url", {"url": "."}), "Is a directory"),
    "picture is no base64": (part("image_url", {"url": "data:image/png;base64,?"}), '"url" is not base64'),
    "picture is no picture": (part("image_url", {"url": "data:image/png;base64,AAAA"}), "not a valid PNG"),
    "sound is no base64": (part("input_audio", {"data": "?"}), '"data" is not base64'),
    "sound's format is a number": (part("input_audio", {"data": "", "format": 5}), '"format" is a number'),
    "half a surrogate pair": ('{"prompt": "\\ud800"}', "half of a surrogate pair"),
    "longer than the context": (json.dumps({"prompt": "a" * (CONTEXT + 1)}), "tokens"),
    "nested too deeply": ("[" * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize(("line", "reason"), BAD.values(), ids=BAD)
def test_a_bad_line_is_refused_with_its_number_and_reason(
    loaded: LoadedCheckpoint, tmp_path: Path, line: str | bytes, reason: str
) -> None:
    path = write(tmp_path, GOOD, line, GOOD)
    with pytest.raises(DataError) as caught:
        read_prompts(path, loaded, skip_bad=False)
    (complaint,) = str(caught.value).splitlines()
    assert complaint.startswith(f"{path}:2: ")
    assert reason in complaint


def test_skipped_lines_are_named_and_the_others_are_read(loaded: LoadedCheckpoint, tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, *(line for line, _ in BAD.values()), GOOD)
    complaints: list[str] = []
    prompts = read_prompts(path, loaded, skip_bad=True, say=complaints.append)
    assert len(prompts) == 2
    numbers = range(2, len(BAD) + 2)
    assert [line.split(": ")[0] for line in complaints] == [f"skipped {path}:{number}" for number in numbers]


def test_a_file_of_nothing_readable_is_refused_when_skipping_too(loaded: LoadedCheckpoint, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prompt"):
        read_prompts(write(tmp_path, "not json"), loaded, skip_bad=True, say=lambda _: None)


def write(folder: Path, *lines: str | bytes) -> Path:
    path = folder / "prompts.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path
