"""The `helm` program, version 3 or 4, on a test cluster."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.programs import BIN
from tests.helm.chart import FOLDER

VERSIONS = {3: "helm", 4: "helm4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Helm:
    version: int
    kubeconfig: Path
    home: Path

    def __call__(self, *arguments: str, timeout_s: float = 600.0) -> str:
        """Its output. Raises RuntimeError with what it complained of."""
        environment = {
            "KUBECONFIG": str(self.kubeconfig),
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin",
        }
        command = [str(BIN / VERSIONS[self.version]), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout_s, check=False)
        if done.returncode:
            raise RuntimeError(f"helm {' '.join(arguments)}: {done.stderr}{done.stdout}")
        return done.stdout

    def install(self, release: str, namespace: str, values: Mapping[str, Any], *options: str) -> str:
        return self._with_values("install", release, namespace, values, *options)

    def upgrade(self, release: str, namespace: str, values: Mapping[str, Any], *options: str) -> str:
        return self._with_values("upgrade", release, namespace, values, *options)

    def _with_values(self, verb: str, release: str, namespace: str, values: Mapping[str, Any], *options: str) -> str:
        path = self.home / f"{namespace}-{release}-values.json"
        path.write_text(json.dumps(values))
        return self(verb, release, str(FOLDER), "-n", namespace, "-f", str(path), *options)
