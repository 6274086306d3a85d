"""The life of a release on a real API server, with Helm 3 and with Helm 4."""

from __future__ import annotations

import pytest
from tests.cluster.api import Object, apps_path
from tests.cluster.control_plane import ControlPlane
from tests.cluster.helm import Helm
from tests.cluster.values import release_values
from tests.helm.chart import GATEWAY, RELEASE, TRITON, merged

_WAIT = ("--wait", "--timeout=300s")


def triton(plane: ControlPlane, namespace: str) -> Object:
    return plane.api.get(f"{apps_path(namespace)}/{TRITON}")


def arguments(plane: ControlPlane, namespace: str, name: str = GATEWAY) -> list[str]:
    deployment = plane.api.get(f"{apps_path(namespace)}/{name}")
    return deployment["spec"]["template"]["spec"]["containers"][0]["args"]


def test_install_waits_until_every_pod_is_ready(plane: ControlPlane, helm: Helm, namespace: str, pool: str) -> None:
    helm.install(RELEASE, namespace, release_values(pool), *_WAIT)
    assert triton(plane, namespace)["status"]["readyReplicas"] == 2


def test_an_upgrade_changes_what_was_changed(plane: ControlPlane, helm: Helm, namespace: str, pool: str) -> None:
    values = release_values(pool)
    helm.install(RELEASE, namespace, values, *_WAIT)
    helm.upgrade(RELEASE, namespace, merged(values, {"gateway": {"limits": {"maxRunning": 7}}}), *_WAIT)
    assert "--max-running=7" in arguments(plane, namespace)


def test_an_upgrade_without_a_change_restarts_no_pod(
    plane: ControlPlane, helm: Helm, namespace: str, pool: str
) -> None:
    helm.install(RELEASE, namespace, release_values(pool), *_WAIT)
    before = {pod["metadata"]["uid"] for pod in plane.api.list(f"/api/v1/namespaces/{namespace}/pods")}
    helm.upgrade(RELEASE, namespace, release_values(pool), *_WAIT)
    assert {pod["metadata"]["uid"] for pod in plane.api.list(f"/api/v1/namespaces/{namespace}/pods")} == before


def test_a_rollback_restores(plane: ControlPlane, helm: Helm, namespace: str, pool: str) -> None:
    values = release_values(pool)
    helm.install(RELEASE, namespace, values, *_WAIT)
    before = arguments(plane, namespace)
    helm.upgrade(RELEASE, namespace, merged(values, {"gateway": {"limits": {"maxRunning": 7}}}), *_WAIT)
    helm("rollback", RELEASE, "1", "-n", namespace, *_WAIT)
    assert arguments(plane, namespace) == before


def test_uninstall_leaves_nothing(plane: ControlPlane, helm: Helm, namespace: str, pool: str) -> None:
    everything = {
        "headroom": {"replicas": 1},
        "priorityClass": {"create": True, "name": f"{namespace}-triton"},
    }
    before = objects(plane, namespace)
    helm.install(RELEASE, namespace, merged(release_values(pool), everything), *_WAIT)
    assert len(objects(plane, namespace)) > len(before) + 8
    helm("uninstall", RELEASE, "-n", namespace, "--wait", "--timeout=300s")
    pods = f"/api/v1/namespaces/{namespace}/pods"
    plane.api.wait_for(pods, lambda found: not found)
    assert objects(plane, namespace) == before


def test_helm_4_takes_over_from_helm_3(plane: ControlPlane, helm3: Helm, namespace: str, pool: str) -> None:
    """Helm 4 may apply on the server's side what Helm 3 patched on its own."""
    values = release_values(pool)
    helm3.install(RELEASE, namespace, values, *_WAIT)
    helm4 = Helm(version=4, kubeconfig=helm3.kubeconfig, home=helm3.home)
    helm4.upgrade(RELEASE, namespace, merged(values, {"gateway": {"limits": {"maxRunning": 7}}}), *_WAIT)
    assert "--max-running=7" in arguments(plane, namespace)


@pytest.mark.usefixtures("custom_resources_there")
def test_an_upgrade_leaves_the_autoscalers_replicas(plane: ControlPlane, helm: Helm, namespace: str, pool: str) -> None:
    values = merged(
        release_values(pool), {"autoscaling": {"mode": "hpa"}, "monitoring": {"monitors": {"enabled": True}}}
    )
    helm.install(RELEASE, namespace, values, *_WAIT)
    plane.kubectl("-n", namespace, "scale", f"deployment/{TRITON}", "--replicas=3")
    helm.upgrade(RELEASE, namespace, merged(values, {"gateway": {"limits": {"maxRunning": 7}}}), *_WAIT)
    assert triton(plane, namespace)["spec"]["replicas"] == 3


def objects(plane: ControlPlane, namespace: str) -> set[str]:
    """Kind and name of all there is in the namespace, and of the release's cluster-wide objects; without events."""
    kinds = plane.kubectl("api-resources", "--verbs=list", "--namespaced", "-o", "name").split()
    wanted = ",".join(kind for kind in kinds if not kind.startswith("events"))
    inside = plane.kubectl("-n", namespace, "get", wanted, "-o", "name", "--ignore-not-found").split()
    classes = plane.kubectl("get", "priorityclasses", "-o", "name").split()
    return {*inside, *(name for name in classes if namespace in name)}
