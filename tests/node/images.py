"""Our images for the node, built without a network: a Debian root, this checkout's code, and the code's environment.

torch from the package index weighs 4.7 GB with CUDA, so the environment stays on the host and pods mount it read-only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.programs import ROOT, command
from tests.node.node import PAUSE

TAG = "test"
REPOSITORY = "localhost/autoglm-code"
ENVIRONMENTS = (Path(sys.prefix), Path(sys.base_prefix))
"""The virtual environment and the Python that it was made of."""
_CODE = ("protocol", "gateway", "python_backend", "client", "model_repository", "checkpoints", "pyproject.toml")
_PAUSE_SOURCE = ROOT / "tests/cluster/programs/pause"


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """buildah with its storage in a folder."""

    folder: Path

    def root_file_system(self) -> Path:
        """A minimal Debian as a tar, made once (needs Debian's packages) and kept."""
        kept = ROOT / "deploy/docker/offline/root.tar"
        if not kept.exists():
            kept = ROOT / ".cache/cluster/images/rootfs.tar"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(".part.tar")
            subprocess.run(["mmdebstrap", "--variant=minbase", "--include=python3", "bookworm", str(part)], check=True)
            part.rename(kept)
        return kept

    def code_image(self) -> Path:
        """An archive of the image that both Deployments use here."""
        stage = self.folder / "stage"
        code = stage / str(ROOT).lstrip("/")
        for name in _CODE:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, code / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, code / name)
        container = self._run("from", "scratch")
        self._run("add", container, str(self.root_file_system()), "/")
        self._run("add", container, str(stage), "/")
        # where the environments are mounted must be open to user 1000, and /root is not
        with_root = Path(self._run("mount", container))
        for environment in ENVIRONMENTS:
            for parent in reversed(environment.parents[:-1]):
                mounted_on = with_root / str(parent).lstrip("/")
                mounted_on.mkdir(exist_ok=True)
                mounted_on.chmod(0o755)
        # `helm test` runs the gateway's image without the environment: the standard library is enough for it
        (with_root / "usr/bin/python").symlink_to("python3")
        self._run("umount", container)
        path = f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin"
        variables = (f"PATH={path}", "HOME=/tmp", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1")
        settings = [word for variable in variables for word in ("--env", variable)]
        self._run("config", *settings, "--user", "1000:1000", "--workingdir", "/tmp", container)
        return self._archive(container, f"{REPOSITORY}:{TAG}")

    def pause_image(self) -> Path:
        """The container that holds a pod's network: a program that waits for its end."""
        program = self.folder / "pause"
        build = [str(command("go")), "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", str(program), "."]
        environment = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", **_go_environment()}
        subprocess.run(build, cwd=_PAUSE_SOURCE, env=environment, check=True)
        container = self._run("from", "scratch")
        self._run("add", container, str(program), "/pause")
        self._run("config", "--entrypoint", '["/pause"]', container)
        return self._archive(container, PAUSE)

    def _archive(self, container: str, name: str) -> Path:
        archive = self.folder / f"{name.replace('/', '-').replace(':', '-')}.tar"
        self._run("commit", "--rm", container, name)
        self._run("push", name, f"docker-archive:{archive}:{name}")
        return archive

    def _run(self, *arguments: str) -> str:
        storage = [f"--root={self.folder / 'storage'}", f"--runroot={self.folder / 'run'}"]
        done = subprocess.run(["buildah", *storage, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"buildah {' '.join(arguments)}: {done.stderr}")
        return done.stdout.strip()


def environment_volumes() -> dict[str, Sequence[dict[str, Any]]]:
    """extraVolumes and extraVolumeMounts of a pod that runs the code."""
    named = [(f"environment-{index}", str(path)) for index, path in enumerate(ENVIRONMENTS)]
    return {
        "extraVolumes": [{"name": name, "hostPath": {"path": path, "type": "Directory"}} for name, path in named],
        "extraVolumeMounts": [{"name": name, "mountPath": path, "readOnly": True} for name, path in named],
    }


def _go_environment() -> dict[str, str]:
    return {key: os.environ[key] for key in ("PATH", "HOME", "GOCACHE", "GOPATH") if key in os.environ}
