"""What the gateway needs of a backend, whichever it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from autoglm_protocol.chat import ChatRequest
from autoglm_protocol.events import StreamEvent
from autoglm_protocol.profile import ProfileBounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    trace_gzip: bytes
    """A Chrome trace in JSON; its first key, "autoglm", says how many steps ran in how many seconds."""
    server: str
    """Which Triton it is of."""


class Backend(Protocol):
    @property
    def features(self) -> frozenset[str]:
        """Request fields beyond the common ones that the backend honours: "n", "logprobs", "grammar".

        Others are refused.
        """
        ...

    def generate(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """Started, TokenDelta*, then exactly one terminal event; a refusal is a Failed without Started before it.

        Closing the generator (`aclose`) cancels the request in the backend. Never raises for a failed request.
        """
        ...

    async def ready(self) -> bool:
        """True when a request sent now would be served."""
        ...

    async def profile(self, bounds: ProfileBounds) -> Profile:
        """PyTorch's profile of the decoder's coming steps. Raises AutoglmError."""
        ...

    async def close(self) -> None: ...
