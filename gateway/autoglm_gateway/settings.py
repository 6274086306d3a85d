"""Every setting of the gateway, once: field, flag, environment variable and help text stand together.

A field `max_body_bytes` is the flag `--max-body-bytes` and the variable `AUTOGLM_GATEWAY_MAX_BODY_BYTES`; a flag wins.
The sections (admission, media, fake) are declared beside the code that uses them.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any, cast

from autoglm_gateway.admission import AdmissionLimits
from autoglm_gateway.balancing import Balancing
from autoglm_gateway.fake_backend import FakeKnobs
from autoglm_gateway.hang_watch import HangLimits
from autoglm_gateway.media import MediaLimits
from autoglm_gateway.option import option
from autoglm_gateway.redis_link import RedisOptions
from autoglm_gateway.response_cache import CacheLimits
from autoglm_gateway.tls import TlsFiles

ENV_PREFIX = "AUTOGLM_GATEWAY_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    host: str = option("127.0.0.1", "address to listen on")
    port: int = option(8000, "HTTP port; 0 takes a free one")
    grpc_port: int = option(9000, "gRPC port; 0 takes a free one")
    triton_grpc: tuple[str, ...] = option(
        ("127.0.0.1:8001",), "gRPC addresses of Triton servers; dns:///name:port is every address of a name"
    )
    balancing: str = option(
        Balancing.LEAST_OUTSTANDING.value, "which Triton takes a request: " + ", ".join(b.value for b in Balancing)
    )
    check_every_s: float = option(1.0, "time between two health checks of each Triton")
    triton_metrics: tuple[str, ...] = option(
        ("http://127.0.0.1:8002/metrics",),
        "metrics pages of these Tritons; dns:///name:port is that of every address; empty reads none",
    )
    scrape_every_s: float = option(1.0, "time between two looks at those pages")
    served_model_names: tuple[str, ...] = option(
        ("autoglm-phone-tiny", "autoglm-phone-9b"),
        "a name that clients may send, the canonical one first; repeatable",
        flag="--served-model-name",
    )
    max_body_bytes: int = option(64 << 20, "larger HTTP bodies and gRPC messages are refused")
    max_bodies_bytes: int = option(2 << 30, "memory for the bodies of all HTTP requests together")
    stall_s: float = option(60.0, "a caller that reads nothing of its stream for so long is cut off")
    body_timeout_s: float = option(30.0, "a body that takes longer to arrive is refused")
    api_keys_file: str | None = option(None, "JSON file of API keys (docs/api.md); without it nobody needs one")
    drain_s: float = option(30.0, "how long running requests may finish after SIGTERM")
    otlp_endpoint: str | None = option(None, "OpenTelemetry collector (OTLP over gRPC), as http://host:4317")
    page: bool = option(True, "a page at / to try the model in a browser")
    log_level: str = option("info", "debug, info, warning or error")
    log_prompts: bool = option(False, "write the text of every request to the log")
    fake: bool = option(False, "answer from a deterministic fake instead of Triton")
    hang: HangLimits = field(default_factory=HangLimits)
    admission: AdmissionLimits = field(default_factory=AdmissionLimits)
    media: MediaLimits = field(default_factory=MediaLimits)
    cache: CacheLimits = field(default_factory=CacheLimits)
    redis: RedisOptions = field(default_factory=RedisOptions)
    tls: TlsFiles = field(default_factory=TlsFiles)
    fake_knobs: FakeKnobs = field(default_factory=FakeKnobs)

    def __post_init__(self) -> None:
        if self.balancing not in [balancing.value for balancing in Balancing]:
            raise ValueError(
                f"--balancing is {self.balancing!r}, must be one of {', '.join(b.value for b in Balancing)}"
            )
        if not self.served_model_names or not self.triton_grpc:
            raise ValueError("--served-model-name and --triton-grpc need at least one value")


def parse_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """From flags, else environment, else defaults. A bad value ends the process with one sentence and status 2."""
    parser = argparse.ArgumentParser(
        prog="autoglm_gateway", description="OpenAI-compatible HTTP and gRPC gateway in front of Triton."
    )
    for spec in _specs(Settings):
        shown = ",".join(spec.default) if spec.is_list else spec.default
        note = f"{spec.help} (default: {shown}; {spec.variable})".replace("%", "%%")
        if spec.kind is bool:
            parser.add_argument(spec.flag, dest=spec.name, action=argparse.BooleanOptionalAction, help=note)
        elif spec.is_list:
            parser.add_argument(spec.flag, dest=spec.name, action="append", metavar="TEXT[,TEXT]", help=note)
        else:
            metavar = spec.kind.__name__.upper()
            parser.add_argument(spec.flag, dest=spec.name, type=spec.convert, metavar=metavar, help=note)
    given = vars(parser.parse_args(arguments))
    values: dict[str, Any] = {}
    for spec in _specs(Settings):
        if given[spec.name] is not None:
            values[spec.name] = _split(given[spec.name]) if spec.is_list else given[spec.name]
        elif spec.variable in environment:
            text = environment[spec.variable]
            try:
                values[spec.name] = _split([text]) if spec.is_list else spec.convert(text)
            except ValueError as error:
                parser.error(f"{spec.variable}: {error}")
    try:
        return _build(Settings, values)
    except ValueError as error:
        parser.error(str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spec:
    name: str
    flag: str
    help: str
    default: Any
    kind: type
    is_list: bool

    @property
    def variable(self) -> str:
        return ENV_PREFIX + self.name.upper()

    def convert(self, text: str) -> Any:
        if self.kind is bool:
            if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
                raise ValueError(f"{text!r} is neither true nor false")
            return text.lower() in ("1", "true", "yes", "on")
        return self.kind(text)


def _specs(section: type) -> Iterator[_Spec]:
    hints: dict[str, Any] = typing.get_type_hints(section)
    for item in dataclasses.fields(section):
        kind: Any = hints[item.name]
        if is_dataclass(kind):
            yield from _specs(cast(type, kind))
            continue
        is_list = typing.get_origin(kind) is tuple
        if isinstance(kind, types.UnionType):
            kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
        yield _Spec(
            name=item.name,
            flag=item.metadata["flag"] or "--" + item.name.replace("_", "-"),
            help=item.metadata["help"],
            default=item.default,
            kind=str if is_list else kind,
            is_list=is_list,
        )


def _build(section: type, values: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(section)
    arguments: dict[str, Any] = {}
    for item in dataclasses.fields(section):
        kind = hints[item.name]
        if is_dataclass(kind) and isinstance(kind, type):
            arguments[item.name] = _build(kind, values)
        elif item.name in values:
            arguments[item.name] = values[item.name]
    return section(**arguments)


def _split(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())
