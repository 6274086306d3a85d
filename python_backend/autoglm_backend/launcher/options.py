"""The options of `autoglm serve` as a value. Imports the standard library only, so that --help needs no set-up."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from autoglm_backend.profiles import DTYPES, EXITS, PROFILES, QUANTIZATIONS, STANDARD, Profile

DEVICES = ("auto", "cpu", "cuda")
PARTS = ("triton", "gateway")
LOOPBACK = "127.0.0.1"
ALIAS = "autoglm-phone-9b"  # the name that unmodified phone-agent clients send
_SOURCE_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Where to listen and what to serve. `served_model_names` empty: the checkpoint's folder name and the alias."""

    checkpoint: Path = _SOURCE_ROOT / "checkpoints" / "autoglm-phone-tiny"
    served_model_names: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int = 9000
    triton_grpc_port: int = 8001
    triton_metrics_port: int = 8002
    triton_http_port: int | None = None
    device: str = "auto"
    profile: Profile = STANDARD
    """The profile asked for, with the switches that were given on top."""
    tensor_parallel_size: int = 1
    dynamic_batching: bool = True
    max_model_len: int | None = None
    max_waiting: int | None = None
    threads: int | None = None
    sparse_prefill: int | None = None
    cuda_graphs: bool = True
    only: str | None = None
    """One of PARTS, where the other runs elsewhere, such as in a pod of its own."""
    fake: tuple[str, ...] | None = None
    """The gateway's own switches for a fake in Triton's place; None serves the checkpoint."""
    drain_s: int = 30
    """What requests in flight get to finish after a stop was asked for."""
    model_repository: Path = _SOURCE_ROOT / "model_repository"
    log_dir: Path | None = None
    verbose: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The model names that clients may send, the canonical one first, each once."""
        return self.served_model_names or tuple(dict.fromkeys((self.checkpoint.resolve().name, ALIAS)))

    @property
    def triton_host(self) -> str:
        """Only a Triton that stands alone is reachable from elsewhere; its ports ask nobody for a key."""
        return self.host if self.only == "triton" else LOOPBACK

    @property
    def engine_options(self) -> dict[str, Any]:
        """What of these options the decoder's EngineOptions take, without what is left to their defaults."""
        given = {name: getattr(self, name) for name in _ENGINE_SWITCHES}
        changed = {name: value for name, value in given.items() if value != _DEFAULTS[name]}
        return {**self.profile.engine_options, **changed}

    @property
    def ports(self) -> Mapping[str, int]:
        """Option -> port, for each port that will be listened on."""
        gateway = {"--port": self.port, "--grpc-port": self.grpc_port}
        triton = {"--triton-grpc-port": self.triton_grpc_port, "--triton-metrics-port": self.triton_metrics_port}
        if self.triton_http_port is not None:
            triton["--triton-http-port"] = self.triton_http_port
        return {None: gateway | triton, "gateway": gateway, "triton": triton}[self.only]


_ENGINE_SWITCHES = (
    "tensor_parallel_size",
    "dynamic_batching",
    "max_model_len",
    "max_waiting",
    "threads",
    "sparse_prefill",
    "cuda_graphs",
)
_FAKE_SWITCHES = {
    "fake_text": ("TEXT", "the answer"),
    "fake_ttft_s": ("SECONDS", "time to its first token"),
    "fake_tokens_per_s": ("N", "speed of one stream"),
    "fake_fail_at_token": ("N", "fail instead of sending this token, counted from 0"),
}
_DEFAULTS = {f.name: f.default for f in fields(ServeOptions)}


def parse_options(arguments: Sequence[str]) -> ServeOptions:
    """The options that `arguments` spell. Bad ones end the process with argparse's message and status 2."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    given["served_model_names"] = tuple(given.get("served_model_names", ()))
    profile = PROFILES[given["profile"]] if given["profile"] else STANDARD
    told = [part for name in _FAKE_SWITCHES if name in given for part in (_flag(name), given.pop(name))]
    if given["fake"]:
        if given["only"] == "triton":
            parser.error("--fake needs no Triton, which --only triton asks for")
        given |= {"only": "gateway", "fake": tuple(told)}
    elif told:
        parser.error(f"{told[0]} is for --fake")
    else:
        given["fake"] = None
    over = {f.name: given.pop(f.name) for f in fields(Profile) if f.name in given}
    try:
        given["profile"] = replace(profile, **over)
    except ValueError as error:
        parser.error(str(error))
    return ServeOptions(**given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autoglm serve",
        description="Serve a checkpoint: Triton Inference Server behind an OpenAI-compatible HTTP and gRPC gateway.",
        epilog="ENABLE_DYNAMIC_GRAPH=False in the environment runs every request through every encoder and layer.",
    )
    default = "(default: %(default)s)"
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help=f"GLM-4.1V architecture in Hugging Face layout {default}"
    )
    parser.add_argument(
        "--served-model-name",
        dest="served_model_names",
        action="append",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help=f"a name that clients may send; repeatable (default: the checkpoint's folder name, and {ALIAS})",
    )
    parser.add_argument("--only", choices=PARTS, help="start one of the two; the other runs elsewhere (default: both)")
    parser.add_argument(
        "--host",
        help=f"address of the gateway; Triton's own ports stay on {LOOPBACK}, except with --only triton {default}",
    )
    parser.add_argument("--port", type=_port, metavar="N", help=f"gateway, HTTP {default}")
    parser.add_argument("--grpc-port", type=_port, metavar="N", help=f"gateway, gRPC {default}")
    parser.add_argument("--triton-grpc-port", type=_port, metavar="N", help=f"Triton, gRPC {default}")
    parser.add_argument("--triton-metrics-port", type=_port, metavar="N", help=f"Triton, metrics {default}")
    parser.add_argument("--triton-http-port", type=_port, metavar="N", help="Triton, HTTP (default: off)")
    parser.add_argument("--device", choices=DEVICES, help=f"where the models run {default}")
    _add_profile_switches(parser)
    _add_engine_switches(parser)
    _add_fake_switches(parser)
    parser.add_argument(
        "--model-repository", type=Path, metavar="DIR", help=f"templates of the Triton models {default}"
    )
    parser.add_argument(
        "--drain-s", type=_count, metavar="N", help=f"seconds in which requests may finish after a stop {default}"
    )
    parser.add_argument("--log-dir", type=Path, metavar="DIR", help="keep triton.log and gateway.log here")
    parser.add_argument("--verbose", action="store_true", help="show all that Triton and the gateway write")
    own_default = ("served_model_names", "profile")
    parser.set_defaults(**{name: value for name, value in _DEFAULTS.items() if name not in own_default})
    return parser


def _add_profile_switches(parser: argparse.ArgumentParser) -> None:
    """`--profile` and what replaces its values one by one; a switch that was not given is absent from the result."""
    group = parser.add_argument_group("profile")
    add = partial(group.add_argument, default=argparse.SUPPRESS)
    group.add_argument(
        "--profile",
        choices=tuple(PROFILES),
        help="image budget, default depth, precision and memory in one word (default: the checkpoint's own settings); "
        "the switches below replace single values of it",
    )
    add("--max-pixels", type=_count, metavar="N", help="most pixels of a picture after resizing, 784 to a token")
    add("--min-pixels", type=_count, metavar="N", help="a picture with fewer pixels is scaled up to this")
    add("--default-depth", metavar="DEPTH", help="of requests that name none: auto, full or a number of layers")
    add("--default-exit", choices=EXITS, help="of requests that name none")
    add("--dtype", choices=DTYPES, help="of weights and activations; auto: float32 on CPU, bfloat16 on CUDA")
    add("--quantization", choices=QUANTIZATIONS, help="of the decoder's weights")
    add("--max-batch-size", type=_count, metavar="N", help="sequences that decode together")
    add("--kv-cache-tokens", type=_count, metavar="N", help="tokens whose keys and values are kept, over all sequences")
    add(
        "--offload-encoders",
        dest="offload_encoders_s",
        type=_seconds_or_off,
        metavar="SECONDS|off",
        help="encoders that were idle for so long give their memory back, and are loaded again on demand",
    )


def _add_engine_switches(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--tensor-parallel-size", type=_count, metavar="N", help="devices that share the decoder (default: %(default)s)"
    )
    group.add_argument(
        "--dynamic-batching",
        type=_switch,
        metavar="on|off",
        help="off: one request at a time, for comparison (default: on)",
    )
    group.add_argument(
        "--max-model-len", type=_count, metavar="N", help="context in tokens (default: the checkpoint's)"
    )
    group.add_argument("--max-waiting", type=_count, metavar="N", help="requests that may queue; one more is refused")
    group.add_argument("--threads", type=_count, metavar="N", help="CPU threads of the decoder (default: one per core)")
    group.add_argument(
        "--sparse-prefill",
        type=_count,
        metavar="TOKENS",
        help="long prompts: let each block of the prompt read only so many keys (default: all; changes answers)",
    )
    group.add_argument(
        "--cuda-graphs",
        type=_switch,
        metavar="on|off",
        help="off: steps are not captured, which spares up to 2 GiB of the GPU (default: on)",
    )


def _add_fake_switches(parser: argparse.ArgumentParser) -> None:
    """The gateway reads the values, and says what is wrong with them."""
    group = parser.add_argument_group("fake")
    group.add_argument(
        "--fake", action="store_true", help="no model and no Triton: one fixed answer, for tests of clients and load"
    )
    for name, (metavar, said) in _FAKE_SWITCHES.items():
        group.add_argument(_flag(name), metavar=metavar, default=argparse.SUPPRESS, help=said)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither on nor off")
    return text == "on"


def _seconds_or_off(text: str) -> float | None:
    if text == "off":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither off nor a number of seconds above 0")
    return seconds


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)
