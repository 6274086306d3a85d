"""What every peer's process speaks: one JSON line in (prompts, max_tokens, image), one out (seconds).

Standard library only: the peers' environments hold nothing of this project.
"""

from __future__ import annotations

import json
import os
import sys
import time


def take_output():
    """Standard output for the protocol alone; what libraries print goes to standard error from here on."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


def serve(generate, out) -> None:
    """Answer jobs until standard input ends.

    generate(prompts, max_tokens, image) runs one batch greedily to exactly max_tokens each; prompts are lists of token
    ids, image is a picture's path for every prompt, or None.
    """
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        began = time.perf_counter()
        generate(job["prompts"], job["max_tokens"], job["image"])
        print(json.dumps({"seconds": time.perf_counter() - began}), file=out, flush=True)
