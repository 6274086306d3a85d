"""Which replica takes a request. All are given usable replicas, at least one."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from enum import Enum

from autoglm_gateway.replica import Replica
from autoglm_protocol.chat import ChatRequest, Role

Choose = Callable[[Sequence[Replica], ChatRequest], Replica]


class Balancing(str, Enum):
    ROUND_ROBIN = "round_robin"
    LEAST_OUTSTANDING = "least_outstanding"
    CONVERSATION = "conversation"
    """The turns of one conversation go to one replica, where their prefix is cached."""


def chooser(balancing: Balancing) -> Choose:
    if balancing is Balancing.CONVERSATION:
        return _by_conversation
    turn = itertools.count()

    def round_robin(replicas: Sequence[Replica], request: ChatRequest) -> Replica:
        return replicas[next(turn) % len(replicas)]

    def least_outstanding(replicas: Sequence[Replica], request: ChatRequest) -> Replica:
        fewest = min(replica.outstanding for replica in replicas)
        return round_robin([replica for replica in replicas if replica.outstanding == fewest], request)

    return round_robin if balancing is Balancing.ROUND_ROBIN else least_outstanding


def _by_conversation(replicas: Sequence[Replica], request: ChatRequest) -> Replica:
    # Rendezvous hashing: when a replica comes or goes, only its own conversations move.
    key = conversation_key(request)
    return max(replicas, key=lambda replica: hashlib.sha256(key + replica.address.encode()).digest())


def conversation_key(request: ChatRequest) -> bytes:
    """The same for every turn of a conversation: system text and first user text. Agents drop older pictures."""
    digest = hashlib.sha256()
    for message in request.messages:
        digest.update(message.text.encode())
        digest.update(b"\0")
        if message.role is Role.USER:
            break
    return digest.digest()
