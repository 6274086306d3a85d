"""The options of `autoglm serve` as a value. Imports the standard library only, so that --help needs no set-up."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

DEVICES = ("auto", "cpu", "cuda")
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
    model_repository: Path = _SOURCE_ROOT / "model_repository"
    log_dir: Path | None = None
    verbose: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The model names that clients may send, the canonical one first, each once."""
        return self.served_model_names or tuple(dict.fromkeys((self.checkpoint.resolve().name, ALIAS)))

    @property
    def ports(self) -> Mapping[str, int]:
        """Option -> port, for each port that will be listened on."""
        ports = {
            "--port": self.port,
            "--grpc-port": self.grpc_port,
            "--triton-grpc-port": self.triton_grpc_port,
            "--triton-metrics-port": self.triton_metrics_port,
        }
        return ports if self.triton_http_port is None else ports | {"--triton-http-port": self.triton_http_port}


def parse_options(arguments: Sequence[str]) -> ServeOptions:
    """The options that `arguments` spell. Bad ones end the process with argparse's message and status 2."""
    given = vars(_parser().parse_args(arguments))
    given["served_model_names"] = tuple(given.get("served_model_names", ()))
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
    parser.add_argument("--host", help=f"address of the gateway; Triton's own ports stay on 127.0.0.1 {default}")
    parser.add_argument("--port", type=_port, metavar="N", help=f"gateway, HTTP {default}")
    parser.add_argument("--grpc-port", type=_port, metavar="N", help=f"gateway, gRPC {default}")
    parser.add_argument("--triton-grpc-port", type=_port, metavar="N", help=f"Triton, gRPC {default}")
    parser.add_argument("--triton-metrics-port", type=_port, metavar="N", help=f"Triton, metrics {default}")
    parser.add_argument("--triton-http-port", type=_port, metavar="N", help="Triton, HTTP (default: off)")
    parser.add_argument("--device", choices=DEVICES, help=f"where the models run {default}")
    parser.add_argument(
        "--model-repository", type=Path, metavar="DIR", help=f"templates of the Triton models {default}"
    )
    parser.add_argument("--log-dir", type=Path, metavar="DIR", help="keep triton.log and gateway.log here")
    parser.add_argument("--verbose", action="store_true", help="show all that Triton and the gateway write")
    parser.set_defaults(**{f.name: f.default for f in fields(ServeOptions) if f.name != "served_model_names"})
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)
