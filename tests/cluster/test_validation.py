"""A real API server accepts every object of every variant, to the letter and under Pod Security `restricted`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.cluster.api import Object
from tests.cluster.control_plane import ControlPlane
from tests.helm.chart import GATEWAY, NAMESPACE, TRITON, pod_templates, render
from tests.helm.variants import VARIANTS

_PATHS = {
    ("v1", "ConfigMap"): "configmaps",
    ("v1", "Pod"): "pods",
    ("v1", "Service"): "services",
    ("v1", "ServiceAccount"): "serviceaccounts",
    ("apps/v1", "Deployment"): "deployments",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "horizontalpodautoscalers",
    ("batch/v1", "Job"): "jobs",
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): "httproutes",
    ("inference.networking.k8s.io/v1", "InferencePool"): "inferencepools",
    ("keda.sh/v1alpha1", "ScaledObject"): "scaledobjects",
    ("monitoring.coreos.com/v1", "PodMonitor"): "podmonitors",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "prometheusrules",
    ("monitoring.coreos.com/v1", "ServiceMonitor"): "servicemonitors",
    ("networking.istio.io/v1", "VirtualService"): "virtualservices",
    ("networking.k8s.io/v1", "Ingress"): "ingresses",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("scheduling.k8s.io/v1", "PriorityClass"): "priorityclasses",
}
_STRICT = {"dryRun": "All", "fieldValidation": "Strict"}


def path_of(o: Object) -> str:
    group = o["apiVersion"]
    prefix = f"/api/{group}" if "/" not in group else f"/apis/{group}"
    scope = f"/namespaces/{o['metadata']['namespace']}" if "namespace" in o["metadata"] else ""
    return f"{prefix}{scope}/{_PATHS[group, o['kind']]}"


def uses_host_path(values: dict[str, Any]) -> bool:
    return values.get("weights", {}).get("source") == "hostPath"


@pytest.fixture(scope="module")
def chart_namespace(plane: ControlPlane) -> None:
    """With what the variants refer to and do not make."""
    plane.api.namespace(NAMESPACE)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "phone-autoglm-phone"}}
    plane.api.must_create(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", account)
    runtime = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "nvidia"},
        "handler": "nvidia",
    }
    plane.api.must_create("/apis/node.k8s.io/v1/runtimeclasses", runtime)


@pytest.mark.usefixtures("chart_namespace", "custom_resources_there")
@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_every_object_is_valid_to_the_letter(plane: ControlPlane, values: dict[str, Any]) -> None:
    complaints = []
    for o in render(values):
        response = plane.api.create(path_of(o), o, **_STRICT)
        warning = response.headers.get("warning", "")
        is_expected = uses_host_path(values) and "PodSecurity" in warning and "hostPath" in warning
        already_there = response.status_code == 409
        if (response.is_error and not already_there) or (warning and not is_expected):
            complaints.append(f"{o['kind']}/{o['metadata']['name']}: {warning} {response.text}")
    assert not complaints


@pytest.mark.usefixtures("chart_namespace")
@pytest.mark.parametrize("values", [pytest.param(v, id=name) for name, v in VARIANTS.items() if not uses_host_path(v)])
def test_pod_security_restricted_admits_every_pod(plane: ControlPlane, values: dict[str, Any]) -> None:
    refused = [f"{name}: {response.text}" for name, response in pods_created(plane, values) if response.is_error]
    assert not refused


@pytest.mark.usefixtures("chart_namespace")
@pytest.mark.parametrize("values", [pytest.param(v, id=name) for name, v in VARIANTS.items() if uses_host_path(v)])
def test_pod_security_restricted_refuses_weights_from_the_node(plane: ControlPlane, values: dict[str, Any]) -> None:
    refused = {name: response.text for name, response in pods_created(plane, values) if response.is_error}
    assert set(refused) == {f"Deployment/{TRITON}"}
    assert "hostPath" in refused[f"Deployment/{TRITON}"]


@pytest.mark.usefixtures("chart_namespace")
def test_a_misspelt_field_is_refused(plane: ControlPlane) -> None:
    """What the tests above rest on: this server is strict."""
    (found,) = [o for o in render() if o["kind"] == "Service" and o["metadata"]["name"] == GATEWAY]
    misspelt = {**found, "spec": {**found["spec"], "clusterIp": "None"}}
    assert plane.api.create(path_of(misspelt), misspelt, **_STRICT).status_code == 400


def pods_created(plane: ControlPlane, values: dict[str, Any]) -> Iterator[tuple[str, httpx.Response]]:
    """What made a pod, and the API server's answer to that very pod."""
    for name, template in pod_templates(render(values)):
        # classes of other variants are not there
        spec = {key: value for key, value in template["spec"].items() if key != "priorityClassName"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "pod-"}, "spec": spec}
        yield name, plane.api.create(f"/api/v1/namespaces/{NAMESPACE}/pods", pod, **_STRICT)
