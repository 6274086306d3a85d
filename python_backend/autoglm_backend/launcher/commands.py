"""The command lines of the two children, from the options and the folder of this run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from autoglm_backend.launcher.backend_folder import make_backend_folder, triton_environment
from autoglm_backend.launcher.child import ChildSpec
from autoglm_backend.launcher.options import LOOPBACK, ServeOptions
from autoglm_backend.launcher.preflight import has_nvidia_gpu
from autoglm_backend.launcher.repository import assemble_repository
from autoglm_backend.launcher.triton_binary import TritonInstallation
from autoglm_backend.status_lines import RUN_FOLDER_VARIABLE

STUB_TIMEOUT_S = 600  # Triton's 30 s are too few for torch's first import from a cold disk
TRITON_EXIT_S = 5  # for raw calls of the encoders: the supervisor has waited for the streams by then


def triton_child(options: ServeOptions, triton: TritonInstallation, run: Path) -> ChildSpec:
    """Assembles the model repository and the backends in `run`."""
    parameters = {
        "checkpoint_dir": str(options.checkpoint.resolve()),
        "device": options.device,
        "engine_options": json.dumps(options.engine_options),
        "profile": options.profile.to_json(),
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
        f"--exit-timeout-secs={TRITON_EXIT_S}",
        f"--grpc-address={options.triton_host}",
        f"--grpc-port={options.triton_grpc_port}",
        f"--metrics-address={options.triton_host}",
        f"--metrics-port={options.triton_metrics_port}",
        f"--allow-gpu-metrics={str(gpu_metrics).lower()}",
    ]
    if options.triton_http_port is None:
        command += ["--allow-http=false"]
    else:
        command += [f"--http-address={options.triton_host}", f"--http-port={options.triton_http_port}"]
    return ChildSpec(
        name="Triton",
        command=tuple(command),
        environment={**triton_environment(triton), RUN_FOLDER_VARIABLE: str(run)},
        log_path=_log_path(options, run, "triton.log"),
    )


def gateway_child(options: ServeOptions, run: Path) -> ChildSpec:
    """The gateway, in front of the Triton that `triton_child` starts, or of a fake."""
    triton = (
        *("--triton-grpc", f"{LOOPBACK}:{options.triton_grpc_port}"),
        *("--triton-metrics", f"http://{LOOPBACK}:{options.triton_metrics_port}/metrics"),
    )
    names = [part for name in options.names for part in ("--served-model-name", name)]
    return ChildSpec(
        name="gateway",
        command=(
            *(sys.executable, "-m", "autoglm_gateway"),
            *("--drain-s", str(options.drain_s)),
            *("--host", options.host, "--port", str(options.port), "--grpc-port", str(options.grpc_port)),
            *(triton if options.fake is None else ("--fake", *options.fake)),
            *names,
        ),
        environment=os.environ,
        log_path=_log_path(options, run, "gateway.log"),
    )


def _log_path(options: ServeOptions, run: Path, name: str) -> Path:
    """Nowhere when all is shown anyway: a file would grow as long as the server runs."""
    if options.log_dir is None and options.verbose:
        return Path(os.devnull)
    return (options.log_dir or run) / name
