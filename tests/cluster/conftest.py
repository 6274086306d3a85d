from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster import custom_resources
from tests.cluster.control_plane import PROGRAMS, ControlPlane, start_control_plane
from tests.cluster.daemons import daemons_in
from tests.cluster.fleet import add_nodes, cpu_node, gpu_node, remove_nodes, start_kwok
from tests.cluster.helm import VERSIONS, Helm
from tests.cluster.programs import CLUSTER

_numbers = itertools.count()


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A cluster of paper nodes; one node without GPUs is there for gateways."""
    CLUSTER.need_programs(*PROGRAMS, *VERSIONS.values(), "kwok")
    CLUSTER.need_commands(setpriv="util-linux")
    with daemons_in(tmp_path_factory.mktemp("cluster")) as daemons:
        plane = start_control_plane(daemons)
        start_kwok(plane)
        try:
            add_nodes(plane, [cpu_node("cpu-0")])
            yield plane
        finally:
            plane.api.close()


@pytest.fixture(scope="session")
def custom_resources_there(plane: ControlPlane) -> None:
    try:
        custom_resources.establish(plane)
    except RuntimeError as error:
        CLUSTER.missing(str(error))


@pytest.fixture(params=VERSIONS, ids=lambda version: f"helm{version}")
def helm(request: pytest.FixtureRequest, plane: ControlPlane) -> Helm:
    """Helm 3, then Helm 4."""
    return _helm(request.param, plane.folder, plane)


@pytest.fixture(scope="session")
def helm3(plane: ControlPlane) -> Helm:
    return _helm(3, plane.folder, plane)


def _helm(version: int, folder: Path, plane: ControlPlane) -> Helm:
    home = folder / f"helm{version}"
    home.mkdir(exist_ok=True)
    return Helm(version=version, kubeconfig=plane.kubeconfig, home=home)


@pytest.fixture
def namespace(plane: ControlPlane) -> Iterator[str]:
    """Enforces Pod Security `restricted`."""
    name = plane.api.namespace(f"ai-{next(_numbers)}")
    yield name
    plane.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def pool(plane: ControlPlane) -> Iterator[str]:
    """Two nodes of 8 GPUs that only this test uses."""
    name = f"pool-{next(_numbers)}"
    nodes = [gpu_node(f"{name}-{zone}", gpus=8, pool=name, zone=zone) for zone in ("a", "b")]
    add_nodes(plane, nodes)
    yield name
    remove_nodes(plane, nodes)
