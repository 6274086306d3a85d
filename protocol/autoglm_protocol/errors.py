"""Every refusal, once: the exception tree and its one table to HTTP, gRPC and Triton.

    AutoglmError
      InvalidRequestError    the caller can mend it: names the field and the limit     400  INVALID_ARGUMENT
        PayloadTooLargeError                                                           413  INVALID_ARGUMENT
      NotFoundError          unknown model or route                                    404  NOT_FOUND
      AuthenticationError    missing or wrong key                                      401  UNAUTHENTICATED
      ForbiddenError         not from this caller, key or not                          403  PERMISSION_DENIED
      ConflictError          something runs already that may run once only             409  ABORTED
      OverloadedError        queue or quota full; carries retry_after_s                429  RESOURCE_EXHAUSTED
      UnavailableError       no ready backend, or draining                             503  UNAVAILABLE
      DeadlineError          the caller's deadline passed                              408  DEADLINE_EXCEEDED
      RequestCancelledError  the caller went away                                      499  CANCELLED
      InternalError          our own fault; the message says nothing of the inside     500  INTERNAL

An error crosses Triton as text: `wire_text` writes code and field behind the sentence, `from_wire_text` reads both.
"""

from __future__ import annotations

import re


class AutoglmError(Exception):
    """A refusal that a caller sees: one sentence, a stable code, and the field it is about (None: no field)."""

    http_status = 500
    grpc_code = "INTERNAL"
    type = "server_error"
    default_code = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param


class InvalidRequestError(AutoglmError):
    http_status, grpc_code, type, default_code = 400, "INVALID_ARGUMENT", "invalid_request_error", "invalid_value"


class PayloadTooLargeError(InvalidRequestError):
    http_status, default_code = 413, "content_too_large"


class NotFoundError(AutoglmError):
    http_status, grpc_code, type, default_code = 404, "NOT_FOUND", "invalid_request_error", "not_found"


class AuthenticationError(AutoglmError):
    http_status, grpc_code, type, default_code = 401, "UNAUTHENTICATED", "authentication_error", "invalid_api_key"


class ForbiddenError(AutoglmError):
    http_status, grpc_code, type, default_code = 403, "PERMISSION_DENIED", "permission_error", "forbidden"


class ConflictError(AutoglmError):
    http_status, grpc_code, type, default_code = 409, "ABORTED", "conflict_error", "conflict"


class OverloadedError(AutoglmError):
    http_status, grpc_code, type, default_code = 429, "RESOURCE_EXHAUSTED", "rate_limit_error", "server_is_overloaded"

    def __init__(
        self, message: str, *, retry_after_s: float = 1.0, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message, code=code, param=param)
        self.retry_after_s = retry_after_s


class UnavailableError(AutoglmError):
    http_status, grpc_code, default_code = 503, "UNAVAILABLE", "backend_unavailable"


class DeadlineError(AutoglmError):
    http_status, grpc_code, type, default_code = 408, "DEADLINE_EXCEEDED", "invalid_request_error", "deadline_exceeded"


class RequestCancelledError(AutoglmError):
    # 499 is nginx's word for a client that closed the connection; no client ever reads it.
    http_status, grpc_code, type, default_code = 499, "CANCELLED", "invalid_request_error", "request_cancelled"


class InternalError(AutoglmError):
    pass


ERROR_CLASSES: tuple[type[AutoglmError], ...] = (
    InvalidRequestError,
    PayloadTooLargeError,
    NotFoundError,
    AuthenticationError,
    ForbiddenError,
    ConflictError,
    OverloadedError,
    UnavailableError,
    DeadlineError,
    RequestCancelledError,
    InternalError,
)
"""Everything that can cross the wire; `from_wire_text` finds the class by its name."""

_WIRE = re.compile(r"^(?P<message>.*) \[(?P<name>\w+) code=(?P<code>[\w.-]+)(?: param=(?P<param>.+))?\]\s*$", re.DOTALL)


def wire_text(error: AutoglmError) -> str:
    """One line for a Triton error message: the sentence, then class, code and field in brackets."""
    param = f" param={error.param}" if error.param else ""
    return f"{error.message} [{type(error).__name__} code={error.code}{param}]"


def from_wire_text(text: str) -> AutoglmError | None:
    """The error that `wire_text` wrote, None for any other text (Triton may put words of its own in front)."""
    match = _WIRE.match(text)
    if match is None:
        return None
    found = next((c for c in ERROR_CLASSES if c.__name__ == match["name"]), None)
    if found is None:
        return None
    return found(match["message"], code=match["code"], param=match["param"])
