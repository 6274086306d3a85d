"""A real API server accepts every object of every variant, to the letter and under Pod Security `restricted`."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cluster.api import Object
from tests.cluster.control_plane import ControlPlane
from tests.helm.chart import NAMESPACE, pod_templates, render
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


@pytest.fixture(scope="module")
def chart_namespace(plane: ControlPlane) -> None:
    """With what the variants refer to and do not make."""
    plane.api.namespace(NAMESPACE)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "phone-autoglm-phone"}}
    plane.api.must_create(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", account)
    for name in ("triton", "autoglm-triton"):
        priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 9}
        plane.api.must_create("/apis/scheduling.k8s.io/v1/priorityclasses", priority)


@pytest.mark.usefixtures("chart_namespace", "custom_resources_there")
@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_every_object_is_valid_to_the_letter(plane: ControlPlane, values: dict[str, Any]) -> None:
    complaints = []
    for o in render(values):
        response = plane.api.create(path_of(o), o, **_STRICT)
        already_there = response.status_code == 409
        if (response.is_error and not already_there) or "warning" in response.headers:
            complaints.append(f"{o['kind']}/{o['metadata']['name']}: {response.headers.get('warning')} {response.text}")
    assert not complaints


@pytest.mark.usefixtures("chart_namespace")
@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_pod_security_restricted_admits_every_pod(plane: ControlPlane, values: dict[str, Any]) -> None:
    refused = []
    for name, template in pod_templates(render(values)):
        spec = {"restartPolicy": "Never", **template["spec"]} if name.startswith("Job/") else template["spec"]
        spec.pop("priorityClassName", None)  # classes of other variants do not exist
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "pod-"}, "spec": spec}
        response = plane.api.create(f"/api/v1/namespaces/{NAMESPACE}/pods", pod, **_STRICT)
        if response.is_error:
            refused.append(f"{name}: {response.text}")
    assert not refused


@pytest.mark.usefixtures("chart_namespace")
def test_a_misspelt_field_is_refused(plane: ControlPlane) -> None:
    """What the tests above rest on: this server is strict."""
    (found,) = [o for o in render() if o["kind"] == "Service" and o["metadata"]["name"].endswith("gateway")]
    misspelt = {**found, "spec": {**found["spec"], "clusterIp": "None"}}
    assert plane.api.create(path_of(misspelt), misspelt, **_STRICT).status_code == 400
