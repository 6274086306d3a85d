"""What stands in the log of the real process when prompts are asked for; test_life.py has the default."""

from __future__ import annotations

from tests.gateway.processes import running_gateway
from tests.gateway.wire import chat_body, image_part, png, post, text_part


def test_prompts_are_logged_where_that_is_asked_for_and_pictures_as_their_size():
    with running_gateway("--fake", "--log-prompts") as gateway:
        post(gateway, chat_body([image_part(png()), text_part("Go back")]), headers={"x-request-id": "abc"})
        line = gateway.wait_for_log(message="prompt")

    assert line["request_id"].startswith("abc")
    assert line["messages"] == [{"role": "user", "content": [f"<ImagePart: {len(png())} bytes>", "Go back"]}]
