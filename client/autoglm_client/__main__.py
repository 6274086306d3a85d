"""`python -m autoglm_client`: the `autoglm` command."""

from __future__ import annotations

import sys

from autoglm_client.cli import main

sys.exit(main())
