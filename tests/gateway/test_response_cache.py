from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from tests.gateway.processes import running_gateway
from tests.gateway.wire import chat_body, delta_text, post, stream_chunks

from autoglm_gateway.fake_backend import FakeBackend, FakeKnobs
from autoglm_gateway.metrics import Metrics
from autoglm_gateway.response_cache import CacheLimits, ResponseCache
from autoglm_protocol.chat import ChatOptions, ChatRequest, ImagePart, Message, Part, Role, TextPart
from autoglm_protocol.events import StreamEvent
from autoglm_protocol.sampling import SamplingParams

HITS, MISSES = "autoglm_gateway_response_cache_hits_total", "autoglm_gateway_response_cache_misses_total"
GREEDY = SamplingParams(temperature=0.0)


class CountingBackend(FakeBackend):
    def __init__(self, **knobs: Any) -> None:
        super().__init__(FakeKnobs(**knobs))
        self.count = 0

    def generate(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        self.count += 1
        return super().generate(request)


def request(*parts: Part, sampling: SamplingParams = GREEDY, options: ChatOptions | None = None) -> ChatRequest:
    message = Message(role=Role.USER, parts=parts or (TextPart(text="Hi"),))
    return ChatRequest(
        request_id="r", model="m", messages=(message,), sampling=sampling, options=options or ChatOptions()
    )


async def texts(cache: ResponseCache, backend: CountingBackend, *requests: ChatRequest) -> None:
    for each in requests:
        async for _ in cache.generate(each, backend):
            pass


def cache_of(size_bytes: int = 1 << 20, **options: Any) -> ResponseCache:
    return ResponseCache(CacheLimits(response_cache_bytes=size_bytes, response_cache_ttl_s=10), Metrics("m"), **options)


def test_the_second_of_two_equal_requests_is_a_replay_streamed_or_whole():
    with running_gateway("--fake", "--response-cache-bytes", "1000000") as gateway:
        first = post(gateway, chat_body(temperature=0)).json()
        second = post(gateway, chat_body(temperature=0)).json()
        third = stream_chunks(gateway, chat_body(temperature=0))

        assert second["choices"] == first["choices"]
        assert second["usage"] == first["usage"]
        assert second["id"] != first["id"]
        assert second["dynamic_graph"] == {**first["dynamic_graph"], "cached": True}
        assert delta_text(third) == first["choices"][0]["message"]["content"]
        assert (gateway.metric(HITS), gateway.metric(MISSES)) == (2, 1)


def test_no_store_goes_past_the_cache():
    with running_gateway("--fake", "--response-cache-bytes", "1000000") as gateway:
        for _ in range(2):
            post(gateway, chat_body(temperature=0), headers={"cache-control": "no-store"})

        assert (gateway.metric(HITS), gateway.metric(MISSES)) == (0, 0)


async def test_a_request_that_samples_without_a_seed_is_never_kept():
    cache, backend = cache_of(), CountingBackend()
    await texts(cache, backend, *[request(sampling=SamplingParams())] * 2)
    assert backend.count == 2
    await texts(cache, backend, *[request(sampling=SamplingParams(seed=1))] * 2)
    assert backend.count == 3


@pytest.mark.parametrize(
    "other",
    [
        request(TextPart(text="Ho")),
        request(TextPart(text="H"), TextPart(text="i")),
        request(ImagePart(data=b"Hi")),
        request(sampling=SamplingParams(temperature=0.0, max_tokens=5)),
        request(options=ChatOptions(depth=6)),
    ],
)
async def test_whatever_differs_is_another_request(other: ChatRequest):
    cache, backend = cache_of(), CountingBackend()
    await texts(cache, backend, request(), other)

    assert backend.count == 2


async def test_priority_does_not_make_another_request():
    cache, backend = cache_of(), CountingBackend()
    await texts(cache, backend, request(), request(options=ChatOptions(priority=5)))

    assert backend.count == 1


async def test_an_answer_is_forgotten_after_its_time():
    now_s = [0.0]
    cache, backend = cache_of(clock=lambda: now_s[0]), CountingBackend()
    await texts(cache, backend, request())
    now_s[0] = 11
    await texts(cache, backend, request())

    assert backend.count == 2


async def test_the_least_recently_used_answer_goes_first():
    backend = CountingBackend(fake_text="a")
    cache = cache_of(size_bytes=700)
    a, b, c = (request(TextPart(text=text)) for text in "abc")
    await texts(cache, backend, a, b, a, c)
    assert backend.count == 3
    await texts(cache, backend, a)
    assert backend.count == 3
    await texts(cache, backend, b)
    assert backend.count == 4


async def test_a_failed_answer_is_not_kept():
    cache, backend = cache_of(), CountingBackend(fake_fail_at_token=1)
    await texts(cache, backend, request(), request())

    assert backend.count == 2


async def test_an_answer_that_was_left_early_is_not_kept():
    cache, backend = cache_of(), CountingBackend()
    events = cache.generate(request(), backend)
    await anext(events)
    await events.aclose()
    await texts(cache, backend, request())

    assert backend.count == 2
