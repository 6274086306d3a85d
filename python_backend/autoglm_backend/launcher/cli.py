"""`autoglm serve`: checks, assembles, and supervises Triton and the gateway until a signal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from autoglm_backend.launcher.errors import ChildDied, LaunchError
from autoglm_backend.launcher.options import ServeOptions, parse_options
from autoglm_backend.launcher.report import Report


def main(argv: Sequence[str]) -> int:
    """Runs the server. Returns 0 after a stop that was asked for, 1 for a child's death, 2 for what cannot start."""
    options = parse_options(argv)
    report = Report()
    try:
        return asyncio.run(_serve(options, report))
    except LaunchError as error:
        report.refused(str(error))
        return 2
    except ChildDied as death:
        report.died(str(death), death.last_lines)
        return 1


async def _serve(options: ServeOptions, report: Report) -> int:
    # below --help, which must answer before anything is installed
    from autoglm_backend.launcher import preflight
    from autoglm_backend.launcher.commands import gateway_child, triton_child
    from autoglm_backend.launcher.readiness import gateway_is_ready, triton_is_idle, triton_is_ready
    from autoglm_backend.launcher.run_folder import run_folder
    from autoglm_backend.launcher.supervisor import Stage, Supervisor
    from autoglm_backend.launcher.triton_binary import find_triton

    notices = preflight.check(options)
    dynamic_graph = preflight.dynamic_graph_enabled()
    if options.log_dir is not None:
        options.log_dir.mkdir(parents=True, exist_ok=True)
    with run_folder() as run:
        stages: list[Stage] = []
        if options.only != "gateway":
            triton = find_triton()
            for notice in notices:
                report.step(notice)
            report.step(f"Assembling the model repository for {options.checkpoint}")
            stages += [
                Stage(
                    spec=triton_child(options, triton, run),
                    is_ready=partial(triton_is_ready, options.triton_host, options.triton_grpc_port),
                    starting=f"Starting Triton ({triton.binary})",
                    is_idle=partial(triton_is_idle, options.triton_host, options.triton_metrics_port),
                )
            ]
        if options.only != "triton":
            stages += [
                Stage(
                    spec=gateway_child(options, run),
                    is_ready=partial(gateway_is_ready, options.host, options.port),
                    starting="Starting the gateway",
                )
            ]

        def announce() -> None:
            if options.only == "triton":
                report.step(f"Triton serves gRPC on {options.triton_host}:{options.triton_grpc_port}")
                return
            if options.fake is not None:
                report.step("A fake answers every request; no model is loaded")
                report.listening(host=options.host, port=options.port)
                return
            report.serving(load_s=report.elapsed_s, dynamic_graph=dynamic_graph, host=options.host, port=options.port)

        return await Supervisor(report, verbose=options.verbose, drain_s=options.drain_s).run(tuple(stages), announce)
