"""Quotas and answers that two gateways share through a real Redis, and what is left when it is gone."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.gateway.processes import Gateway, free_port, running_gateway
from tests.gateway.wire import chat_body, post, refusal

from autoglm_gateway.api_keys import Caller
from autoglm_gateway.metrics import Metrics
from autoglm_gateway.quotas import Quotas
from autoglm_gateway.redis_link import RedisLink, RedisOptions
from autoglm_gateway.shared_quotas import SharedQuotas
from autoglm_gateway.stored_events import dump_events, load_events
from autoglm_protocol.errors import OverloadedError
from autoglm_protocol.events import Finished, FinishReason, Started, TokenDelta, Usage

needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
KEY = "sk-shared"


@contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline_s, "redis-server did not start"
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)


def link_to(url: str) -> RedisLink:
    return RedisLink(RedisOptions(redis=url), Metrics("m"))


def bearer() -> dict[str, str]:
    return {"authorization": f"Bearer {KEY}"}


def gateway_options(folder: Path, url: str) -> list[str]:
    path = folder / "keys.json"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    path.write_text(json.dumps({"keys": [{"name": "a", "sha256": digest, "requests_per_min": 3}]}))
    return ["--fake", "--api-keys-file", str(path), "--redis", url, "--response-cache-bytes", "1000000"]


def remaining(gateway: Gateway) -> str:
    response = post(gateway, chat_body(temperature=0), headers=bearer())
    assert response.status_code == 200, response.text
    return response.headers["x-ratelimit-remaining-requests"]


@needs_redis
def test_two_gateways_share_limits_and_answers_and_outlive_redis(tmp_path: Path) -> None:
    with running_redis(tmp_path) as url:
        options = gateway_options(tmp_path, url)
        with running_gateway(*options) as first, running_gateway(*options) as second:
            assert [remaining(first), remaining(second)] == ["2", "1"]
            assert second.metric("autoglm_gateway_response_cache_hits_total") == 1
            assert [remaining(first)] == ["0"]
            refused = post(second, chat_body(), headers=bearer())
            assert refusal(refused, 429)["code"] == "rate_limit_exceeded"
    # Redis is gone for a gateway that starts without it: it counts by itself.
    with running_gateway(*options) as alone:
        assert remaining(alone) == "2"
        assert alone.metric("autoglm_gateway_redis_up") == 0


@needs_redis
async def test_tokens_are_overdrawn_and_places_given_back(tmp_path: Path) -> None:
    with running_redis(tmp_path) as url:
        link = link_to(url)
        quotas = SharedQuotas(link, local=Quotas())
        caller = Caller(name="a", tokens_per_min=60, max_concurrent=1)
        async with quotas.request(caller):
            with pytest.raises(OverloadedError, match="run already"):
                async with quotas.request(caller):
                    pass
        quotas.charge(caller, 90)
        await quotas.settled()
        assert (await quotas.headers(caller))["x-ratelimit-remaining-tokens"] == "0"
        with pytest.raises(OverloadedError, match="60 tokens") as refused:
            async with quotas.request(caller):
                pass
        assert 29 < refused.value.retry_after_s <= 31
        await link.close()


@needs_redis
async def test_a_redis_that_dies_leaves_the_gateways_own_count(tmp_path: Path) -> None:
    with running_redis(tmp_path) as url:
        quotas = SharedQuotas(link := link_to(url), local=Quotas())
        caller = Caller(name="a", requests_per_min=1)
        async with quotas.request(caller):
            pass
        assert (await quotas.headers(caller))["x-ratelimit-remaining-requests"] == "0"
    async with quotas.request(caller):
        pass
    with pytest.raises(OverloadedError):
        async with quotas.request(caller):
            pass
    await link.close()


async def test_a_redis_that_never_was_costs_each_second_one_try() -> None:
    link = link_to(f"redis://127.0.0.1:{free_port()}/0")
    tries = 0

    async def count(client: object) -> None:
        nonlocal tries
        tries += 1
        raise ConnectionError

    for _ in range(5):
        assert await link.ask(count) is None
    assert tries == 1
    await link.close()


def test_stored_events_come_back_equal() -> None:
    events = (
        Started(usage=Usage(prompt_tokens=3), dynamic_graph={"depth": 6}),
        TokenDelta(text="好\0", token_ids=(1, 2)),
        Finished(finish_reason=FinishReason.LENGTH, usage=Usage(prompt_tokens=3, completion_tokens=2)),
    )
    assert load_events(dump_events(events)) == events


@pytest.mark.parametrize("data", [b"[1]", b'[["a", [1], "{}"]]', b"[[1, 2, 3]]"])
def test_what_is_no_event_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="no events"):
        load_events(data)
