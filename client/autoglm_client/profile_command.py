"""`autoglm profile`: PyTorch's profile of a running server's decoder, as a Chrome trace and a table."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx

from autoglm_client.errors import as_object, error_from_response
from autoglm_client.profile_table import table
from autoglm_protocol.errors import AutoglmError, UnavailableError
from autoglm_protocol.profile import DEFAULT_SECONDS, MAX_SECONDS, MAX_STEPS

_CONNECT_TIMEOUT_S = 10.0
# The server sends nothing while it profiles and then writes the trace out.
_SILENCE_S = MAX_SECONDS + 120.0


class CommandError(Exception):
    """One sentence for the person at the terminal."""


def main(argv: list[str]) -> int:
    """Exit status: 0 profiled, 1 failed (one sentence on stderr), 2 wrong usage, 130 interrupted."""
    options = _parse(argv)
    try:
        content = _fetch(options)
        trace = _read(content)
        summary = trace["autoglm"]
        if not summary["steps"]:
            raise CommandError(f"no step ran in {summary['seconds']:g} s; send requests meanwhile")
        options.output.write_bytes(gzip.compress(content) if options.output.suffix == ".gz" else content)
    except (AutoglmError, CommandError) as error:
        print(f"autoglm profile: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"autoglm profile: {options.output} cannot be written: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(table(trace))
    print(f"\n{options.output}: open it in https://ui.perfetto.dev or chrome://tracing")
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="autoglm profile",
        description="Profile the decoder of a running server while it works; send requests meanwhile. Without API keys "
        "the server lets only its own machine do this.",
    )
    add = parser.add_argument
    add("--seconds", type=float, metavar="N", help=f"at most {MAX_SECONDS:g}; default {DEFAULT_SECONDS:g}")
    add("--steps", type=int, metavar="N", help=f"stop after so many steps of the engine, at most {MAX_STEPS}")
    add("-o", "--output", type=Path, default=Path("trace.json"), metavar="PATH", help="%(default)s; or .json.gz")
    server = os.environ.get("AUTOGLM_BASE_URL", "http://127.0.0.1:8000")
    add("--base-url", default=server, metavar="URL", help="default %(default)s; or AUTOGLM_BASE_URL")
    add("--api-key", default=os.environ.get("AUTOGLM_API_KEY"), metavar="KEY", help="or AUTOGLM_API_KEY")
    return parser.parse_args(argv)


def _fetch(options: argparse.Namespace) -> bytes:
    url = str(options.base_url).rstrip("/").removesuffix("/v1") + "/admin/profile"
    bounds = {name: value for name in ("seconds", "steps") if (value := getattr(options, name)) is not None}
    headers = {} if options.api_key is None else {"authorization": f"Bearer {options.api_key}"}
    timeout = httpx.Timeout(_SILENCE_S, connect=_CONNECT_TIMEOUT_S)
    try:
        response = httpx.post(url, json=bounds, headers=headers, timeout=timeout)
    except httpx.TransportError as error:
        raise UnavailableError(f"no answer from {url} ({error or type(error).__name__})") from error
    if response.status_code != 200:
        raise error_from_response(response.status_code, response.content, response.headers)
    return response.content


def _read(content: bytes) -> dict[str, Any]:
    try:
        trace = as_object(json.loads(content))
    except ValueError:
        trace = {}
    if "autoglm" not in trace:
        raise CommandError("the server does not answer with a profile; is it AutoGLM's gateway?")
    return trace
