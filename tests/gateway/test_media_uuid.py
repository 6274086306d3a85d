"""Media that a caller named once and sends by name later."""

from __future__ import annotations

from tests.gateway.processes import Gateway
from tests.gateway.wire import (
    Json,
    audio_part,
    chat_body,
    image_part,
    jpeg,
    png,
    post,
    refusal,
    text_part,
    usage_of,
    wav,
)

from autoglm_gateway.draft import MediaKind, MediaRef
from autoglm_gateway.media_store import MediaStore
from autoglm_protocol.chat import ImagePart


def by_name(kind: str, uuid: str) -> Json:
    return {"type": kind, kind: None, "uuid": uuid}


def ref(uuid: str) -> MediaRef:
    return MediaRef(kind=MediaKind.IMAGE, param="p", uuid=uuid)


def test_a_named_picture_need_not_be_sent_again(gateway: Gateway) -> None:
    sent = usage_of(post(gateway, chat_body([{**image_part(png()), "uuid": "screen-1"}, text_part("a")])))
    named = usage_of(post(gateway, chat_body([by_name("image_url", "screen-1"), text_part("a")])))
    assert named == sent
    assert named["prompt_tokens_details"]["image_tokens"] > 0


def test_a_named_sound_need_not_be_sent_again(gateway: Gateway) -> None:
    usage_of(post(gateway, chat_body([{**audio_part(wav()), "uuid": "sound-1"}])))
    assert usage_of(post(gateway, chat_body([by_name("input_audio", "sound-1")])))["prompt_tokens"] > 0


def test_an_unknown_name_is_refused_with_a_code(gateway: Gateway) -> None:
    error = refusal(post(gateway, chat_body([by_name("image_url", "never-sent")])), 400)
    assert error["code"] == "unknown_media_uuid"
    assert error["param"] == "messages[0].content[0].uuid"


def test_a_picture_that_is_refused_is_not_kept(gateway: Gateway) -> None:
    refusal(post(gateway, chat_body([{**image_part(png()[:40]), "uuid": "broken"}])), 400)
    refusal(post(gateway, chat_body([by_name("image_url", "broken")])), 400)


def test_a_picture_and_a_sound_of_one_name_are_two(gateway: Gateway) -> None:
    usage_of(post(gateway, chat_body([{**image_part(jpeg()), "uuid": "same"}])))
    refusal(post(gateway, chat_body([by_name("input_audio", "same")])), 400)


def test_owners_do_not_see_each_others_media() -> None:
    store = MediaStore(100)
    store.put("a", ref("x"), ImagePart(data=b"1"))
    assert store.get("a", ref("x")) == ImagePart(data=b"1")
    assert store.get("b", ref("x")) is None


def test_the_least_recently_used_medium_leaves_first() -> None:
    store = MediaStore(2)
    for name in ("x", "y"):
        store.put(None, ref(name), ImagePart(data=b"1"))
    assert store.get(None, ref("x"))
    store.put(None, ref("z"), ImagePart(data=b"1"))
    assert [store.get(None, ref(name)) is None for name in "xyz"] == [False, True, False]


def test_a_medium_beyond_the_limit_is_not_kept() -> None:
    store = MediaStore(2)
    store.put(None, ref("x"), ImagePart(data=b"123"))
    assert store.get(None, ref("x")) is None
