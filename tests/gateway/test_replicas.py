"""Several Triton servers behind one gateway: choice, health, retries, circuit breaker, discovery."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import httpx
import pytest
from tests.gateway.processes import free_port, running_gateway, running_triton
from tests.gateway.wire import chat_body, post, stream_lines

from autoglm_gateway.balancing import Balancing, chooser
from autoglm_gateway.discovery import Discovery
from autoglm_gateway.fake_backend import FakeBackend, FakeKnobs
from autoglm_gateway.replica import FAILURES_TO_OPEN, OPEN_S, Replica
from autoglm_gateway.replica_set import ReplicaSet
from autoglm_protocol.chat import ChatRequest, ImagePart, Message, Role, TextPart
from autoglm_protocol.errors import AutoglmError, InternalError, UnavailableError
from autoglm_protocol.events import Failed, Finished, Started, StreamEvent


class ScriptedBackend(FakeBackend):
    """A fake whose health and first event a test sets."""

    def __init__(self) -> None:
        super().__init__(FakeKnobs(fake_text="a b"))
        self.is_ready = True
        self.error: Exception | None = None
        self.count = 0

    async def ready(self) -> bool:
        return self.is_ready

    def give_up(self, error: AutoglmError) -> None:
        pass

    async def generate(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        self.count += 1
        if isinstance(self.error, UnavailableError | InternalError):
            yield Failed(error=self.error)
            return
        async for event in super().generate(request):
            yield event


def replicas(*addresses: str, **options: object) -> tuple[ReplicaSet, dict[str, ScriptedBackend]]:
    backends = {address: ScriptedBackend() for address in addresses}
    return ReplicaSet(Discovery(addresses), backends.__getitem__, check_every_s=3600, **options), backends  # type: ignore[arg-type]


def request(text: str = "Hi") -> ChatRequest:
    return ChatRequest(request_id="r", model="m", messages=(Message(role=Role.USER, parts=(TextPart(text=text),)),))


async def outcome(backend: ReplicaSet) -> StreamEvent:
    return [event async for event in backend.generate(request())][-1]


async def test_requests_go_round():
    backend, parts = replicas("a:1", "b:1", balancing=Balancing.ROUND_ROBIN)
    for _ in range(4):
        assert isinstance(await outcome(backend), Finished)

    assert [part.count for part in parts.values()] == [2, 2]


async def test_the_replica_with_the_least_to_do_is_chosen():
    backend, parts = replicas("a:1", "b:1", balancing=Balancing.LEAST_OUTSTANDING)
    busy = backend.generate(request())
    await anext(busy)
    first = next(name for name, part in parts.items() if part.count == 1)
    for _ in range(3):
        await outcome(backend)
    await busy.aclose()

    assert parts[first].count == 1


def test_the_turns_of_a_conversation_go_to_one_replica():
    choose = chooser(Balancing.CONVERSATION)
    parts = [Replica(f"t{i}:1", ScriptedBackend()) for i in range(4)]
    system = Message(role=Role.SYSTEM, parts=(TextPart(text="You are a phone agent."),))
    picture = ImagePart(data=b"1")
    for task in ("Open Bluetooth", "Play music", "Call mum"):
        first = ChatRequest(
            request_id="1", model="m", messages=(system, Message(role=Role.USER, parts=(picture, TextPart(text=task))))
        )
        later = (
            system,
            Message(role=Role.USER, parts=(TextPart(text=task),)),
            Message(role=Role.ASSISTANT, parts=(TextPart(text="do(...)"),)),
            Message(role=Role.USER, parts=(picture, TextPart(text="** Screen Info **"))),
        )
        second = ChatRequest(request_id="2", model="m", messages=later)

        assert choose(parts, first) is choose(parts, second)


def test_only_the_conversations_of_a_lost_replica_move():
    choose = chooser(Balancing.CONVERSATION)
    parts = [Replica(f"t{i}:1", ScriptedBackend()) for i in range(4)]
    for number in range(50):
        before = choose(parts, request(str(number)))
        if before is not parts[0]:
            assert choose(parts[1:], request(str(number))) is before


async def test_a_replica_that_cannot_be_reached_costs_the_caller_nothing():
    backend, parts = replicas("a:1", "b:1", balancing=Balancing.ROUND_ROBIN)
    parts["a:1"].error = UnavailableError("gone")
    for _ in range(4):
        assert isinstance(await outcome(backend), Finished)

    assert parts["a:1"].count == 1


async def test_other_failures_are_not_tried_again():
    backend, parts = replicas("a:1", "b:1", balancing=Balancing.ROUND_ROBIN)
    parts["a:1"].error = InternalError("broken")
    event = await outcome(backend)

    assert isinstance(event, Failed)
    assert parts["b:1"].count == 0


async def test_when_none_is_ready_the_answer_is_unavailable_and_the_first_to_come_back_is_used():
    backend, parts = replicas("a:1", "b:1")
    for part in parts.values():
        part.is_ready = False
    assert not await backend.ready()
    event = await outcome(backend)
    assert isinstance(event, Failed)
    assert isinstance(event.error, UnavailableError)

    parts["b:1"].is_ready = True
    assert isinstance(await outcome(backend), Finished)
    assert parts["a:1"].count == 0


async def test_features_are_those_of_every_healthy_replica():
    backend, parts = replicas("a:1", "b:1")
    assert backend.features == frozenset()
    await backend.ready()

    assert backend.features == parts["a:1"].features


async def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_try_again():
    now_s = [100.0]
    replica = Replica("a:1", ScriptedBackend(), clock=lambda: now_s[0])
    for _ in range(FAILURES_TO_OPEN):
        await replica.check()
        assert replica.is_usable
        with replica.request():
            replica.failed()
    await replica.check()
    assert not replica.is_usable

    now_s[0] += OPEN_S
    assert replica.is_usable
    with replica.request():
        assert not replica.is_usable
        replica.succeeded()
    assert replica.is_usable


async def test_a_name_stands_for_every_address_behind_it():
    assert "127.0.0.1:7001" in await Discovery(("dns:///localhost:7001",)).addresses()
    assert await Discovery(("a:1", "b:2", "a:1")).addresses() == ("a:1", "b:2")


async def test_a_name_that_cannot_be_resolved_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    answers: list[list[tuple[str, int]] | OSError] = [
        OSError("no such name"),
        OSError("no such name"),
        [("10.0.0.1", 1)],
    ]

    async def look_up(*_: object, **__: object) -> list[tuple[object, ...]]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return [(None, None, None, None, address) for address in answer]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    discovery = Discovery(("dns:///triton:1",))
    with caplog.at_level("INFO", "autoglm_gateway.discovery"):
        assert [await discovery.addresses() for _ in range(3)] == [(), (), ("10.0.0.1:1",)]

    assert [record.message for record in caplog.records] == ["cannot resolve", "resolved"]


async def test_a_replica_that_leaves_discovery_finishes_its_work():
    discovery = Discovery(("a:1", "b:1"))
    backends = {address: ScriptedBackend() for address in ("a:1", "b:1")}
    backend = ReplicaSet(discovery, backends.__getitem__, balancing=Balancing.ROUND_ROBIN, check_every_s=0)
    events = backend.generate(request())
    assert isinstance(await anext(events), Started)
    discovery._targets = ("b:1",)
    backend.start()
    await asyncio.sleep(0)
    rest = [event async for event in events]
    await backend.close()

    assert isinstance(rest[-1], Finished)


@pytest.mark.triton
def test_a_rolling_restart_of_two_tritons_under_load_loses_no_request(tmp_path: Path):
    """Check 36."""
    ports = [{"grpc_port": free_port(), "metrics_port": free_port()} for _ in range(2)]
    targets = ",".join(f"127.0.0.1:{port['grpc_port']}" for port in ports)
    folders = [tmp_path / "a", tmp_path / "b"]
    tritons = [running_triton(folder, **port) for folder, port in zip(folders, ports, strict=True)]
    for triton in tritons:
        triton.__enter__()
    with running_gateway("--triton-grpc", targets, "--triton-metrics", "") as gateway:
        gateway.wait_until_ready(5)
        outcomes: list[str] = []

        def ask() -> None:
            outcomes.append(stream_lines(gateway, chat_body("load 50"))[-1])

        stop, threads = start_load(ask)
        for index in range(2):
            tritons[index].__exit__(None, None, None)
            tritons[index] = running_triton(folders[index], **ports[index])
            tritons[index].__enter__()
            wait_until_up(gateway.http, ports[index]["grpc_port"])
        stop.set()
        for thread in threads:
            thread.join()
        assert post(gateway, chat_body("say ok")).status_code == 200
    for triton in tritons:
        triton.__exit__(None, None, None)

    assert len(outcomes) > 20
    assert set(outcomes) == {"[DONE]"}


def start_load(ask: Callable[[], None]) -> tuple[threading.Event, list[threading.Thread]]:
    """Four callers that ask until the event is set."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            ask()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    return stop, threads


def wait_until_up(gateway: str, port: int) -> None:
    deadline_s = time.monotonic() + 10
    line = f'autoglm_gateway_replica_up{{triton="127.0.0.1:{port}"}} 1.0'
    while line not in httpx.get(f"http://{gateway}/metrics").text:
        assert time.monotonic() < deadline_s
