"""A model process that hangs while Triton calls it ready: found out, left out, its requests told, and taken back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
from tests.gateway.processes import Gateway, free_port, running_gateway, running_triton
from tests.gateway.wire import chat_body, post, refusal

from autoglm_backend.bls.option_check import check_request
from autoglm_gateway.balancing import Balancing
from autoglm_gateway.discovery import Discovery
from autoglm_gateway.fake_backend import FakeBackend, FakeKnobs
from autoglm_gateway.hang_watch import HangLimits, probe_request
from autoglm_gateway.replica import Replica
from autoglm_gateway.replica_set import ReplicaSet
from autoglm_protocol.chat import ChatRequest, Message, Role, TextPart
from autoglm_protocol.errors import AutoglmError, OverloadedError, UnavailableError
from autoglm_protocol.events import Failed, Finished, Started, StreamEvent, TokenDelta

LIMITS = HangLimits(hang_after_s=60, hang_probe_s=0.01)
HUNG = "autoglm_gateway_replica_hung"
FAST = ("--hang-after-s", "0.3", "--hang-probe-s", "0.3", "--check-every-s", "0.1", "--triton-metrics", "")


class Server(FakeBackend):
    """A fake whose requests wait while `silent`, and whose probes do what `probe` says."""

    def __init__(self) -> None:
        super().__init__(FakeKnobs(fake_text="a b"))
        self.silent_after: int | None = None
        """Events of a request before it waits for ever."""
        self.probe: AutoglmError | bool = True
        """Whether it is answered, or the refusal."""
        self.waiting = asyncio.Event()
        self.given_up: asyncio.Future[AutoglmError] = asyncio.get_running_loop().create_future()

    def give_up(self, error: AutoglmError) -> None:
        if not self.given_up.done():
            self.given_up.set_result(error)

    async def generate(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        is_probe = request.request_id.startswith("probe")
        if is_probe and isinstance(self.probe, AutoglmError):
            yield Failed(error=self.probe)
            return
        left = (None if self.probe else 0) if is_probe else self.silent_after
        async for event in super().generate(request):
            if left == 0:
                self.waiting.set()
                yield Failed(error=await asyncio.shield(self.given_up))
                return
            left = None if left is None else left - 1
            yield event


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def request() -> ChatRequest:
    return ChatRequest(request_id="r", model="m", messages=(Message(role=Role.USER, parts=(TextPart(text="Hi"),)),))


async def until_usable(replica: Replica) -> None:
    """A probe of a fake takes some turns of the loop."""
    for _ in range(100):
        if not replica.is_usable:
            await asyncio.sleep(0)


async def silent_replica(server: Server, clock: Clock) -> Replica:
    """A healthy replica that was asked something a minute ago and has said nothing since."""
    replica = Replica("a:1", server, hang_limits=LIMITS, clock=clock)
    await replica.check()
    with replica.request():
        clock.now_s += 60
        await replica.check()
    return replica


def test_the_phone_model_takes_the_probe() -> None:
    check_request(probe_request())


async def test_a_server_that_is_only_slow_stays() -> None:
    replica = await silent_replica(Server(), Clock())

    assert replica.is_usable
    assert not replica.watch.is_hung


async def test_silence_without_an_answer_to_the_probe_is_a_hang() -> None:
    server = Server()
    server.probe = False
    replica = await silent_replica(server, Clock())

    assert not replica.is_usable
    assert replica.watch.is_hung
    assert isinstance(server.given_up.result(), UnavailableError)


async def test_a_server_that_has_nothing_to_do_is_not_asked() -> None:
    server, clock = Server(), Clock()
    server.probe = False
    replica = Replica("a:1", server, hang_limits=LIMITS, clock=clock)
    with replica.request():
        replica.succeeded()
    clock.now_s += 3600
    await replica.check()

    assert replica.is_usable


async def test_callers_that_give_up_do_not_hide_the_silence() -> None:
    server, clock = Server(), Clock()
    server.probe = False
    replica = Replica("a:1", server, hang_limits=LIMITS, clock=clock)

    async def ask() -> None:
        with replica.request():
            await asyncio.Event().wait()

    for _ in range(3):
        asked = asyncio.ensure_future(ask())
        await asyncio.sleep(0)
        clock.now_s += 20
        asked.cancel()
        await asyncio.wait((asked,))
    await replica.check()

    assert replica.watch.is_hung


async def test_an_answered_probe_ends_the_hang() -> None:
    server = Server()
    server.probe = False
    replica = await silent_replica(server, Clock())
    server.probe = True
    await replica.check()
    await until_usable(replica)

    assert replica.is_usable
    assert not replica.watch.is_hung


async def test_a_full_server_is_given_as_long_as_a_probe_would_have_been() -> None:
    server, clock = Server(), Clock()
    server.probe = OverloadedError("full")
    replica = Replica("a:1", server, hang_limits=LIMITS, clock=clock)
    with replica.request():
        clock.now_s += LIMITS.hang_after_s
        await replica.check()
        assert not replica.watch.is_hung
        clock.now_s += LIMITS.hang_probe_s
        await replica.check()
        assert replica.watch.is_hung


async def test_a_server_that_failed_a_request_gets_none_before_it_answered_the_probe() -> None:
    server = Server()
    replica = Replica("a:1", server, hang_limits=LIMITS)
    server.probe = UnavailableError("its process is not healthy")
    replica.failed()
    await replica.check()
    assert not replica.is_usable

    server.probe = True
    await replica.check()
    await until_usable(replica)
    assert replica.is_usable


async def test_hang_after_0_never_asks() -> None:
    server = Server()
    server.probe = False
    replica = Replica("a:1", server, hang_limits=HangLimits(hang_after_s=0))
    replica.failed()
    await replica.check()

    assert replica.is_usable


@pytest.mark.parametrize("num_events", [0, 1])
async def test_a_request_without_a_token_goes_to_another_server(num_events: int) -> None:
    servers = {"a:1": Server(), "b:1": Server()}
    servers["a:1"].silent_after = num_events
    fleet = ReplicaSet(
        Discovery(tuple(servers)), servers.__getitem__, balancing=Balancing.ROUND_ROBIN, check_every_s=3600
    )

    async def ask() -> list[StreamEvent]:
        return [event async for event in fleet.generate(request())]

    asked = asyncio.ensure_future(ask())
    await servers["a:1"].waiting.wait()
    servers["a:1"].give_up(UnavailableError("it stopped answering"))
    events = await asked

    assert [type(event) for event in events] == [Started, TokenDelta, TokenDelta, TokenDelta, Finished]


async def test_a_request_with_a_token_ends_in_the_error() -> None:
    servers = {"a:1": Server(), "b:1": Server()}
    servers["a:1"].silent_after = 2
    fleet = ReplicaSet(
        Discovery(tuple(servers)), servers.__getitem__, balancing=Balancing.ROUND_ROBIN, check_every_s=3600
    )
    async with aclosing(fleet.generate(request())) as events:
        assert isinstance(await anext(events), Started)
        assert isinstance(await anext(events), TokenDelta)
        servers["a:1"].give_up(UnavailableError("it stopped answering"))
        last = await anext(events)

    assert isinstance(last, Failed)
    assert last.error.message == "it stopped answering"


def asking(gateway: Gateway, text: str) -> tuple[threading.Thread, list[httpx.Response]]:
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(post(gateway, chat_body(text))))
    thread.start()
    return thread, answers


@pytest.mark.triton
def test_a_deadlocked_model_is_found_out_and_taken_back_when_it_goes_on(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with running_triton(tmp_path) as triton, running_gateway("--triton-grpc", triton.grpc, *FAST) as gateway:
        gateway.wait_until_ready(5)
        waiting, answers = asking(gateway, f"hang {pipe}")
        gateway.wait_for_metric(HUNG, 1, timeout_s=10)
        refusal(httpx.get(f"http://{gateway.http}/health/ready"), 503)
        gateway.wait_for_log(message="Triton is ready and does not answer", triton=triton.grpc)
        waiting.join()
        assert refusal(answers[0], 503)["code"] == "backend_unavailable"
        assert refusal(post(gateway, chat_body("say ok")), 503)["code"] == "backend_unavailable"

        pipe.write_bytes(b"go on")
        gateway.wait_until_ready(5)
        assert post(gateway, chat_body("say ok")).status_code == 200
        gateway.wait_for_log(message="Triton answers again", triton=triton.grpc)


@pytest.mark.triton
def test_a_stopped_model_process_costs_only_the_streams_that_had_begun(tmp_path: Path) -> None:
    ports = [{"grpc_port": free_port(), "metrics_port": free_port()} for _ in range(2)]
    with (
        running_triton(tmp_path / "a", **ports[0]) as stopped,
        running_triton(tmp_path / "b", **ports[1]) as other,
        running_gateway(
            "--triton-grpc", f"{stopped.grpc},{other.grpc}", "--balancing", "round_robin", *FAST
        ) as gateway,
    ):
        gateway.wait_until_ready(5)
        body = chat_body("stall", stream=True)
        with httpx.stream("POST", f"{gateway.v1}/chat/completions", json=body, timeout=30) as response:
            lines = response.iter_lines()
            while '"x"' not in next(lines):
                pass
            stub = int(subprocess.check_output(["pgrep", "-P", str(stopped.process.pid)], text=True).split()[0])
            os.kill(stub, signal.SIGSTOP)
            try:
                assert [post(gateway, chat_body("say ok")).status_code for _ in range(4)] == [200] * 4
                *_, error, end = (line for line in lines if line)
                assert gateway.metric(f'{HUNG}{{triton="{stopped.grpc}"}}') == 1
            finally:
                os.kill(stub, signal.SIGKILL)
        assert '"code":"backend_unavailable"' in error
        assert end == "data: [DONE]"
        assert httpx.get(f"http://{gateway.http}/health/ready").status_code == 200
