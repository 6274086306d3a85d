"""The command lines of the two children, from the options and the folder of this run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from autoglm_backend.launcher.backend_folder import make_backend_folder, triton_environment
from autoglm_backend.launcher.child import ChildSpec
from autoglm_backend.launcher.options import ServeOptions
from autoglm_backend.launcher.preflight import LOOPBACK, has_nvidia_gpu
from autoglm_backend.launcher.repository import assemble_repository
from autoglm_backend.launcher.triton_binary import TritonInstallation

STUB_TIMEOUT_S = 600  # Triton's 30 s are too few for torch's first import from a cold disk
DRAIN_S = 30  # what requests in flight get to finish after a stop was asked for


def triton_child(
    options: ServeOptions, triton: TritonInstallation, run: Path, engine: Mapping[str, object]
) -> ChildSpec:
    """Assembles the model repository and the backends in `run`; `engine` reaches every model as one JSON parameter."""
    parameters = {
        "checkpoint_dir": str(options.checkpoint.resolve()),
        "device": options.device,
        "engine_options": json.dumps(dict(engine)),
    }
    assemble_repository(options.model_repository, run / "models", parameters)
    make_backend_folder(triton, run / "backends")
    gpu_metrics = options.device != "cpu" and has_nvidia_gpu()
    command = [
        str(triton.binary),
        f"--model-repository={run / 'models'}",
        f"--backend-directory={run / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name={run.name}",
        f"--backend-config=python,stub-timeout-seconds={STUB_TIMEOUT_S}",
        "--disable-auto-complete-config",  # it starts every model once more, to ask what the configs already say
        "--exit-on-error=true",
        "--strict-readiness=true",
        f"--exit-timeout-secs={DRAIN_S}",
        f"--grpc-address={LOOPBACK}",
        f"--grpc-port={options.triton_grpc_port}",
        f"--metrics-address={LOOPBACK}",
        f"--metrics-port={options.triton_metrics_port}",
        f"--allow-gpu-metrics={str(gpu_metrics).lower()}",
    ]
    if options.triton_http_port is None:
        command += ["--allow-http=false"]
    else:
        command += [f"--http-address={LOOPBACK}", f"--http-port={options.triton_http_port}"]
    return ChildSpec(
        name="Triton",
        command=tuple(command),
        environment=triton_environment(triton),
        log_path=(options.log_dir or run) / "triton.log",
    )


def gateway_child(options: ServeOptions, run: Path) -> ChildSpec:
    """The gateway, in front of the Triton that `triton_child` starts."""
    names = [part for name in options.names for part in ("--served-model-name", name)]
    return ChildSpec(
        name="gateway",
        command=(
            *(sys.executable, "-m", "autoglm_gateway"),
            *("--host", options.host, "--port", str(options.port), "--grpc-port", str(options.grpc_port)),
            *("--triton-grpc", f"{LOOPBACK}:{options.triton_grpc_port}"),
            *("--triton-metrics", f"http://{LOOPBACK}:{options.triton_metrics_port}/metrics"),
            *names,
        ),
        environment=os.environ,
        log_path=(options.log_dir or run) / "gateway.log",
    )
