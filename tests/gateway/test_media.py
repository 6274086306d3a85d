"""Pictures and sounds in a request: what is taken, what is refused, and with which words."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.processes import Gateway
from tests.gateway.wire import (
    audio_part,
    b64,
    chat_body,
    gif,
    image_part,
    jpeg,
    mp3,
    png,
    png_claiming,
    post,
    refusal,
    text_part,
    usage_of,
    wav,
    webp,
)

from autoglm_gateway.media import MediaLimits, MediaReader
from autoglm_gateway.openai_schema import parse_chat
from autoglm_gateway.turns import Turns
from autoglm_protocol.chat import AudioPart, ImagePart, TextPart

URL = "messages[0].content[0].image_url.url"
DATA = "messages[0].content[0].input_audio.data"


@pytest.mark.parametrize(
    ("data", "media_type"), [(png(), "image/png"), (jpeg(), "image/jpeg"), (webp(), "image/webp"), (png(), "image/jpg")]
)
def test_pictures_of_every_supported_format_count_as_image_tokens(gateway: Gateway, data: bytes, media_type: str):
    usage = usage_of(post(gateway, chat_body([image_part(data, media_type), text_part("Hi")])))

    assert usage["prompt_tokens_details"]["image_tokens"] > 0


def test_every_further_picture_makes_the_prompt_longer(gateway: Gateway):
    """Check 18."""
    counts = [usage_of(post(gateway, chat_body([image_part(png())] * n)))["prompt_tokens"] for n in range(1, 11)]

    assert counts == sorted(set(counts))


@pytest.mark.parametrize(
    "part",
    [
        audio_part(wav()),
        audio_part(mp3(), "mp3"),
        {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{b64(wav())}"}},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/mpeg;base64,{b64(mp3())}"}},
    ],
)
def test_sounds_count_as_audio_tokens(gateway: Gateway, part: dict[str, Any]):
    usage = usage_of(post(gateway, chat_body([part])))

    assert usage["prompt_tokens_details"]["audio_tokens"] > 0


@pytest.mark.parametrize(
    ("part", "code"),
    [
        (image_part(b""), "empty_image_file"),
        (image_part(png()[:40]), "image_parse_error"),
        (image_part(png()[:-8]), "image_parse_error"),
        (image_part(jpeg()[:-40]), "image_parse_error"),
        (image_part(webp()[:-4]), "image_parse_error"),
        (image_part(b"hello"), "image_parse_error"),
        (image_part(gif(), "image/gif"), "unsupported_image_media_type"),
        (image_part(gif(), "image/png"), "unsupported_image_media_type"),
        (image_part(b"<svg xmlns='x'/>", "image/svg+xml"), "unsupported_image_media_type"),
        (image_part(b"<svg xmlns='x'/>", "image/png"), "unsupported_image_media_type"),
        (image_part(png_claiming(40000, 40000)), "image_too_large"),
        (image_part(png_claiming(0, 5)), "image_parse_error"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,!!!!"}}, "invalid_base64_image"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KG"}}, "invalid_base64_image"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,raw"}}, "invalid_base64_image"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,图片"}}, "invalid_base64_image"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "invalid_image_url"),
        ({"type": "image_url", "image_url": {"url": ""}}, "invalid_image_url"),
    ],
)
def test_a_bad_picture_is_refused_with_openais_code(gateway: Gateway, part: dict[str, Any], code: str):
    """Check 14."""
    error = refusal(post(gateway, chat_body([part])), 400)

    assert (error["param"], error["code"]) == (URL, code)


@pytest.mark.parametrize(
    "part",
    [
        audio_part(b"this is a text file, not a sound"),
        audio_part(b""),
        audio_part(wav(), "mp3"),
        audio_part(mp3(), "wav"),
        audio_part(wav()[:20]),
    ],
)
def test_a_bad_sound_is_refused_naming_the_field(gateway: Gateway, part: dict[str, Any]):
    assert refusal(post(gateway, chat_body([part])), 400)["param"] == DATA


@pytest.mark.parametrize("kind", ["video_url", "input_video", "video"])
def test_video_is_refused_by_its_name(gateway: Gateway, kind: str):
    error = refusal(post(gateway, chat_body([{"type": kind, kind: {"url": "https://example.com/a.mp4"}}])), 400)

    assert (error["param"], error["code"]) == ("messages[0].content[0].type", "unsupported_content")
    assert "takes no video" in error["message"]


@pytest.mark.parametrize("detail", ["low", "high", "auto"])
def test_openais_words_for_detail_are_taken(gateway: Gateway, detail: str):
    part = image_part(png())
    part["image_url"]["detail"] = detail

    usage_of(post(gateway, chat_body([part])))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"mm_processor_kwargs": {"max_pixels": 0}}, "max_pixels"),
        ({"mm_processor_kwargs": {"max_pixels": "many"}}, "mm_processor_kwargs.max_pixels"),
        ({"mm_processor_kwargs": {"fps": 2}}, "mm_processor_kwargs.fps"),
        ({"max_pixels": -1}, "max_pixels"),
    ],
)
def test_a_bad_image_budget_names_the_field(gateway: Gateway, fields: dict[str, Any], param: str):
    assert refusal(post(gateway, chat_body("Hi", **fields)), 400)["param"] == param


def test_an_image_budget_is_taken_as_vllm_clients_send_it(gateway: Gateway):
    usage_of(post(gateway, chat_body([image_part(png())], mm_processor_kwargs={"max_pixels": 50_000})))


def test_an_unknown_detail_is_refused(gateway: Gateway):
    part = image_part(png())
    part["image_url"]["detail"] = "huge"

    assert refusal(post(gateway, chat_body([part])), 400)["param"] == "messages[0].content[0].image_url.detail"


def test_an_undecodable_sound_format_is_refused(gateway: Gateway):
    """Check 19."""
    error = refusal(post(gateway, chat_body([audio_part(wav(), "flac")])), 400)

    assert error["param"] == "messages[0].content[0].input_audio.format"


def test_a_sound_that_lasts_too_long_is_refused_by_its_header(gateway: Gateway):
    """Check 19."""
    error = refusal(post(gateway, chat_body([audio_part(wav(31))])), 400)

    assert (error["param"], error["code"]) == (DATA, "audio_too_long")
    assert "30 s" in error["message"]


async def test_media_keep_their_place_among_the_text():
    """Check 18."""
    small, large = png(8, 8), png(16, 16)
    parts = [text_part("a"), image_part(large), text_part("b"), audio_part(wav()), image_part(small)]
    draft = parse_chat(chat_body(parts), features=frozenset())
    reader = MediaReader(MediaLimits(), Turns())
    (message,) = await reader.read(draft.messages, owner=None)
    await reader.close()

    assert message.parts == (
        TextPart(text="a"),
        ImagePart(data=large),
        TextPart(text="b"),
        AudioPart(data=wav(), format="wav"),
        ImagePart(data=small),
    )


def test_eleven_pictures_are_one_too_many(gateway: Gateway):
    """Check 18."""
    error = refusal(post(gateway, chat_body([image_part(png())] * 11)), 400)

    assert "10" in error["message"]
    assert error["param"] == "messages[0].content[10].image_url.url"


def test_a_gigantic_picture_is_refused_within_100_ms_and_50_mb(gateway: Gateway):
    """Check 15."""
    status = Path(f"/proc/{gateway.process.pid}/statm")
    before_pages = int(status.read_text().split()[1])
    response = post(gateway, chat_body([image_part(png_claiming(40000, 40000))]))

    assert (int(status.read_text().split()[1]) - before_pages) * resource.getpagesize() < 50 << 20

    assert refusal(response, 400)["code"] == "image_too_large"
    assert int(response.headers["openai-processing-ms"]) < 100


def test_base64_may_have_line_breaks(gateway: Gateway):
    text = b64(png())
    url = "data:image/png;base64," + "\n".join(text[i : i + 76] for i in range(0, len(text), 76))

    assert post(gateway, chat_body([{"type": "image_url", "image_url": {"url": url}}])).status_code == 200
