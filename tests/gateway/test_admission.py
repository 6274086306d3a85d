from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from tests.gateway.processes import running_gateway
from tests.gateway.wire import chat_body, post

from autoglm_gateway.admission import Admission, AdmissionLimits
from autoglm_protocol.errors import OverloadedError


async def hold(admission: Admission, entered: list[str], name: str, release: asyncio.Event, priority: int = 0) -> None:
    async with admission.place(priority=priority):
        entered.append(name)
        await release.wait()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_waiters_start_by_priority_and_then_by_arrival():
    admission = Admission(AdmissionLimits(max_running=1))
    entered: list[str] = []
    release = asyncio.Event()
    tasks = []
    for name, priority in (("first", 0), ("late", 1), ("a", 0), ("b", 0), ("urgent", -1)):
        tasks.append(asyncio.create_task(hold(admission, entered, name, release, priority)))
        await settled()
    release.set()
    await asyncio.gather(*tasks)

    assert entered == ["first", "urgent", "a", "b", "late"]
    assert (admission.running, admission.waiting) == (0, 0)


def test_a_request_says_its_priority_over_http():
    answered: list[str] = []

    def ask(name: str, priority: int) -> None:
        assert post(gateway, chat_body(max_tokens=1, priority=priority)).status_code == 200
        answered.append(name)

    with running_gateway("--fake", "--fake-tokens-per-s", "2", "--max-running", "1") as gateway:
        url = f"{gateway.v1}/chat/completions"
        threads = [threading.Thread(target=ask, args=asked) for asked in (("late", 5), ("urgent", -5))]
        with httpx.stream("POST", url, json=chat_body(stream=True)):  # longer than all the rest, and then left
            for count, thread in enumerate(threads, 1):
                thread.start()
                gateway.wait_for_metric("vllm:num_requests_waiting", count, timeout_s=5)
        for thread in threads:
            thread.join()

    assert answered == ["urgent", "late"]


async def test_a_full_queue_refuses_at_once():
    admission = Admission(AdmissionLimits(max_running=1, max_waiting=0))
    async with admission.place():
        with pytest.raises(OverloadedError) as refused:
            async with admission.place():
                pass

    assert refused.value.retry_after_s >= 1
    assert admission.running == 0


async def test_a_waiter_that_is_cancelled_leaves_no_trace():
    admission = Admission(AdmissionLimits(max_running=1))
    release = asyncio.Event()
    holder = asyncio.create_task(hold(admission, [], "holder", release))
    waiter = asyncio.create_task(hold(admission, [], "waiter", release))
    await settled()
    waiter.cancel()
    await settled()
    assert (admission.running, admission.waiting) == (1, 0)
    release.set()
    await holder
    assert admission.running == 0


async def test_a_place_handed_to_a_caller_that_leaves_in_the_same_turn_is_not_lost():
    admission = Admission(AdmissionLimits(max_running=1))
    release = asyncio.Event()
    holder = asyncio.create_task(hold(admission, [], "holder", release))
    waiter = asyncio.create_task(hold(admission, [], "waiter", release))
    await settled()
    release.set()
    await asyncio.sleep(0)  # the holder leaves and hands its place over
    waiter.cancel()
    await asyncio.gather(holder, waiter, return_exceptions=True)

    assert (admission.running, admission.waiting) == (0, 0)


def test_limits_that_admit_nobody_are_refused():
    with pytest.raises(ValueError, match="max-running"):
        AdmissionLimits(max_running=0)
