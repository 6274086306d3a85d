"""`python -m autoglm_gateway`: settings, then serve."""

from __future__ import annotations

import asyncio
import os
import sys

from autoglm_gateway.logs import set_up_logs
from autoglm_gateway.server import PortTakenError, serve
from autoglm_gateway.settings import parse_settings


def main() -> int:
    settings = parse_settings(sys.argv[1:], os.environ)
    set_up_logs(settings.log_level)
    try:
        asyncio.run(serve(settings))
    except (PortTakenError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
