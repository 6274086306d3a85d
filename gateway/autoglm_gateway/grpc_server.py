"""The gRPC door: autoglm.v1.AutoGLM over the same service as HTTP, with health.v1 and reflection."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
from autoglm_protocol.errors import AutoglmError, InternalError, OverloadedError
from autoglm_protocol.events import Failed, fold
from autoglm_protocol.grpc import autoglm_pb2 as pb
from autoglm_protocol.grpc import autoglm_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from autoglm_gateway.grpc_messages import EventMessages, draft_from, response_of
from autoglm_gateway.request_ids import request_ids
from autoglm_gateway.service import ChatService

_log = logging.getLogger("autoglm_gateway.access")
_SERVICE = pb.DESCRIPTOR.services_by_name["AutoGLM"].full_name
