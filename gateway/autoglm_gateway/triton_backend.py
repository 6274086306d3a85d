"""One Triton server as a Backend: the only import of tritonclient in the gateway.

A request is one ModelStreamInfer call on a shared channel. The generated stubs are used, not the client class: events
arrive without its copies, and cancelling a call is the call's own method.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc.service_pb2_grpc import (  # pyright: ignore[reportMissingTypeStubs]
    GRPCInferenceServiceStub,
)

from autoglm_gateway.backend import Profile
from autoglm_gateway.tracing import Tracing, current_trace, is_traced
from autoglm_gateway.triton_messages import chat_message, event_of, pb, profile_message, trace_of
from autoglm_gateway.turns import Turns
from autoglm_protocol.chat import ChatRequest
from autoglm_protocol.errors import (
    AutoglmError,
    DeadlineError,
    InternalError,
    PayloadTooLargeError,
    UnavailableError,
    from_wire_text,
)
from autoglm_protocol.events import Cancelled, Failed, Finished, StreamEvent
from autoglm_protocol.profile import ProfileBounds
from autoglm_protocol.steps import Steps
from autoglm_protocol.tensors import AUTOGLM_PHONE

_EOF: Any = grpc.aio.EOF  # pyright: ignore # not in the stubs
_log = logging.getLogger(__name__)
_PROBE_TIMEOUT_S = 2.0
_FEATURES_PARAMETER = "features"
_PROFILE_WRITING_S = 120.0
_STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Triton takes pings sooner than every 5 minutes for abuse and closes the connection.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A restarted Triton is used again within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class TritonBackend:
    """Streams from the BLS model `autoglm_phone` at `address` (host:port). To be made inside the event loop."""

    def __init__(self, address: str, *, tracing: Tracing, turns: Turns | None = None) -> None:
        self.address = address
        self._turns = turns or Turns()
        self._tracing = tracing
        self._features: frozenset[str] | None = None
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._stub: Any = GRPCInferenceServiceStub(self._channel)
        # Not the stub's. Requests come as bytes, and each call asks once: message and half-close leave together.
        # Written apart, a server that aborts meanwhile makes grpc.aio report INTERNAL in place of the status it sent.
        self._stream_infer: Any = self._channel.unary_stream(
            _STREAM_INFER, response_deserializer=pb.ModelStreamInferResponse.FromString
        )
        self._ending: set[Any] = set()
        self._answering: dict[Any, AutoglmError | None] = {}
        """Calls in flight, with what `give_up` said of them."""

    @property
    def features(self) -> frozenset[str]:
        """What the parameter `features` of the model's config.pbtxt lists; empty until the model was ready once."""
        return self._features or frozenset()

    async def generate(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        make = partial(chat_message, request, trace=current_trace(), return_steps=is_traced())
        asked = await self._turns.run(make, sum(len(medium.data) for medium in (*request.images, *request.audios)))
        call = self._stream_infer(asked)
        self._answering[call] = None
        is_over = False
        sent_ns = time.time_ns()
        try:
            while not is_over:
                message = await call.read()
                event = Failed(error=_ended_too_soon()) if message is _EOF else event_of(message)
                if isinstance(event, Steps):
                    self._tracing.add_steps(event, sent_ns=sent_ns)
                elif event is not None:
                    is_over = isinstance(event, Finished | Failed | Cancelled)
                    yield event
        except grpc.aio.AioRpcError as error:
            is_over = True
            yield Failed(error=self._translated(error))
        except asyncio.CancelledError:
            given_up = self._answering[call]
            if given_up is None:
                raise
            is_over = True
            yield Failed(error=given_up)
        finally:
            del self._answering[call]
            if is_over:
                self._let_end(call)
            else:
                call.cancel()

    def give_up(self, error: AutoglmError) -> None:
        """End every request in flight in Failed(error)."""
        for call in self._answering:
            self._answering[call] = error
            call.cancel()

    async def ready(self) -> bool:
        try:
            answer = await self._stub.ModelReady(
                pb.ModelReadyRequest(name=AUTOGLM_PHONE.model), timeout=_PROBE_TIMEOUT_S
            )
            if answer.ready and self._features is None:
                self._features = await self._read_features()
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    async def profile(self, bounds: ProfileBounds) -> Profile:
        call = self._stream_infer(profile_message(bounds), timeout=bounds.seconds + _PROFILE_WRITING_S)
        try:
            message: Any = await call.read()
            if message is _EOF:
                raise _ended_too_soon()
            trace = trace_of(message)
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error
        self._let_end(call)
        return Profile(trace_gzip=trace, server=self.address)

    async def close(self) -> None:
        await self._channel.close()

    async def _read_features(self) -> frozenset[str]:
        answer = await self._stub.ModelConfig(pb.ModelConfigRequest(name=AUTOGLM_PHONE.model), timeout=_PROBE_TIMEOUT_S)
        listed = answer.config.parameters[_FEATURES_PARAMETER].string_value
        return frozenset(part.strip() for part in listed.split(",") if part.strip())

    def _let_end(self, call: Any) -> None:
        # A call that is dropped before Triton closed it counts as cancelled there; hold it until then.
        if not call.done():
            self._ending.add(call)
            call.add_done_callback(self._ending.discard)

    def _translated(self, error: grpc.aio.AioRpcError) -> AutoglmError:
        known = from_wire_text(error.details() or "")
        if known is not None:
            return known
        _log.warning(
            "Triton call failed", extra={"triton": self.address, "code": error.code().name, "details": error.details()}
        )
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError("the request took too long")
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return PayloadTooLargeError("the request is larger than the model server takes")
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return UnavailableError("the model server is not reachable")
        return InternalError("the model server failed")


def _ended_too_soon() -> AutoglmError:
    return InternalError("the model server ended the answer too soon")
