"""The only place that imports Triton's Python backend: requests, responses, calls of other models, metrics, the log.

The module `triton_python_backend_utils` exists inside Triton's stub process only, so nothing that should run without
Triton may import this file.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports]
from numpy.typing import NDArray

from autoglm_protocol.errors import AutoglmError, InternalError, UnavailableError, from_wire_text, wire_text
from autoglm_protocol.tensors import ModelContract, Tensors

Request = Any
"""A pb_utils.InferenceRequest."""
Response = Any
"""A pb_utils.InferenceResponse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArguments:
    """What Triton tells a model at its start. `parameters` are those of config.pbtxt, which the launcher sets."""

    name: str
    parameters: Mapping[str, str]
    kind: str
    """Where the instance runs: CPU, GPU or MODEL."""
    device_id: int

    @classmethod
    def from_triton(cls, args: Mapping[str, str]) -> ModelArguments:
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        return cls(
            name=args["model_name"],
            parameters=parameters,
            kind=args["model_instance_kind"],
            device_id=int(args["model_instance_device_id"]),
        )


def read_inputs(request: Request, contract: ModelContract, *, copy: bool = False) -> Tensors:
    """The input tensors of a request, checked. Raises InvalidRequestError naming the tensor.

    copy: for tensors that are still needed after `execute` returned; otherwise they lie in Triton's shared memory.
    """
    tensors: Tensors = {}
    for spec in contract.inputs:
        tensor = pb_utils.get_input_tensor_by_name(request, spec.name)
        if tensor is not None:
            tensors[spec.name] = tensor.as_numpy().copy() if copy else tensor.as_numpy()
    contract.check_inputs(tensors)
    return tensors


def wants_steps(request: Request) -> bool:
    """Whether the request has the parameter `return_steps`."""
    parameters = json.loads(request.parameters() or "{}")
    return bool(parameters.get("return_steps"))


def to_response(tensors: Mapping[str, NDArray[Any]]) -> Response:
    return pb_utils.InferenceResponse(output_tensors=_pack(tensors))


def to_error_response(error: AutoglmError) -> Response:
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(wire_text(error)))


def call(contract: ModelContract, tensors: Mapping[str, NDArray[Any]]) -> Tensors:
    """One answer of another model of this server. Raises the AutoglmError that it answered with."""
    response = _request(contract, tensors).exec()
    if response.has_error():
        raise _error_of(response, contract)
    return _unpack(response)


def stream(
    contract: ModelContract, tensors: Mapping[str, NDArray[Any]], *, taken: Callable[[], None] = lambda: None
) -> Generator[Tensors, None, None]:
    """Every answer of a decoupled model of this server, blocking between them; raises as `call`.

    taken: called for every message that was taken from Triton, also for those that nobody asks for any more.
    Closing it early blocks until the model has ended its answer: Triton 2.51 has no way to abandon one.
    """
    responses = _request(contract, tensors).exec(decoupled=True)
    failure: AutoglmError | None = None
    try:
        for response in responses:
            taken()
            if response.has_error():
                failure = _error_of(response, contract)
            # the last one may be empty: it only carries the final flag
            elif response.output_tensors():
                yield _unpack(response)
    except GeneratorExit:
        for _ in responses:
            taken()
        raise
    finally:
        _finished.add(responses)
    if failure is not None:
        raise failure


class _FinishedIterators:
    """BLS response iterators that were read to the end, kept until Triton has let go of them.

    A thread of Triton 2.51's stub drops its own reference to a finished iterator without holding Python's global lock.
    Were that the last reference, the tensors inside would be freed while other threads use the same heap, and the
    process dies of it (within seconds at 32 streams). That thread answers `is_cancelled` too, in order: a fresh answer
    proves that it is through with everything that ended before the question.
    """

    def __init__(self) -> None:
        self._iterators: list[Any] = []
        self._lock = threading.Lock()

    def add(self, *iterators: Any) -> None:
        with self._lock:
            self._iterators += iterators

    def take(self) -> list[Any]:
        with self._lock:
            taken, self._iterators = self._iterators, []
            return taken


_finished = _FinishedIterators()


class Sender:
    """The answer stream of one decoupled request. `close` must be called exactly once, whatever happened before."""

    def __init__(self, request: Request) -> None:
        self._sender: Any = request.get_response_sender()
        self._is_final = False

    def send(self, tensors: Mapping[str, NDArray[Any]], *, is_last: bool = False) -> None:
        """is_last: nothing but `close` follows."""
        if is_last:
            self._sender.send(to_response(tensors), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            self._is_final = True
        else:
            self._sender.send(to_response(tensors))

    def fail(self, error: AutoglmError) -> None:
        """The last answer of the stream: nothing but `close` may follow."""
        # Sent apart from the final flag, and before `execute` returns, an error never reaches a BLS caller.
        self._sender.send(to_error_response(error), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        self._is_final = True

    def close(self) -> None:
        if not self._is_final:
            self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        # Triton cannot unload the model while a sender exists, so nobody may keep this one alive
        self._sender = None

    def is_cancelled(self) -> bool:
        """Whether the caller went away. A round trip to the server process, 60 to 240 us: never call it per token.

        Only one thread may ask: a second question would share the first one's answer (see _FinishedIterators).
        """
        finished = _finished.take()
        is_cancelled: bool = self._sender.is_cancelled()
        if is_cancelled:
            # maybe remembered from an earlier question, so it proves nothing
            _finished.add(*finished)
        return is_cancelled


class Counter:
    """A Triton custom counter with at most one label."""

    def __init__(self, name: str, description: str, label: str | None = None) -> None:
        self._family: Any = pb_utils.MetricFamily(
            name=name, description=description, kind=pb_utils.MetricFamily.COUNTER
        )
        self._label = label
        self._metrics: dict[str, Any] = {}

    def add(self, value: str = "", amount: float = 1.0) -> None:
        """Add to the series of that label value."""
        self._metric(value).increment(amount)

    def declare(self, *values: str) -> None:
        """Let the series show as zero before anything was counted."""
        for value in values:
            self._metric(value)

    def close(self) -> None:
        """Must happen before the process ends: Triton's stub frees what is left after its own tear-down, and dies."""
        self._metrics.clear()
        self._family = None

    def _metric(self, value: str) -> Any:
        if value not in self._metrics:
            self._metrics[value] = self._family.Metric(labels={self._label: value} if self._label else {})
        return self._metrics[value]


class Gauge:
    """A Triton custom gauge without labels."""

    def __init__(self, name: str, description: str) -> None:
        # a metric does not keep its family alive
        self._family: Any = pb_utils.MetricFamily(name=name, description=description, kind=pb_utils.MetricFamily.GAUGE)
        self._metric: Any = self._family.Metric(labels={})

    def set(self, value: float) -> None:
        self._metric.set(value)

    def close(self) -> None:
        """As `Counter.close`."""
        self._metric = self._family = None


def show(line: str) -> None:
    """A line on the server's standard output, as it is: Triton's log would put it in quotes behind a file name."""
    print(line, flush=True)


def log_error(text: str) -> None:
    pb_utils.Logger.log_error(text)


def model_error(text: str) -> Exception:
    """What a model raises from `initialize`: Triton logs the sentence and the server does not become ready."""
    return pb_utils.TritonModelException(text)


def _request(contract: ModelContract, tensors: Mapping[str, NDArray[Any]]) -> Any:
    return pb_utils.InferenceRequest(
        model_name=contract.model,
        inputs=_pack(tensors),
        requested_output_names=[spec.name for spec in contract.outputs],
    )


def _pack(tensors: Mapping[str, NDArray[Any]]) -> list[Any]:
    return [pb_utils.Tensor(name, tensor) for name, tensor in tensors.items()]


def _unpack(response: Response) -> Tensors:
    tensors: Sequence[Any] = response.output_tensors()
    return {tensor.name(): tensor.as_numpy() for tensor in tensors}


def _error_of(response: Response, contract: ModelContract) -> AutoglmError:
    text = response.error().message()
    error = from_wire_text(text)
    if error is None:
        log_error(f"model {contract.model} failed: {text}")
        if "is not healthy" in text:  # Triton's word for a process that has stopped or died
            return UnavailableError("a model of the server does not answer")
        return InternalError("a model of the server failed")
    return error
