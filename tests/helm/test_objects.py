"""What must hold of every object that any values render."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.helm.chart import GATEWAY, NAMESPACE, TRITON, Object, of_kind, one, pod_spec, pod_templates, render
from tests.helm.variants import VARIANTS

pytestmark = pytest.mark.parametrize("objects", VARIANTS.values(), ids=list(VARIANTS), indirect=True)
CLUSTER_WIDE = {"PriorityClass"}


@pytest.fixture
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return render(request.param)


def test_names_are_unique_and_short_enough(objects: list[Object]):
    names = [(o["kind"], o["metadata"]["name"]) for o in objects]

    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name) and len(name) <= 63 for _, name in names)


def test_each_object_says_where_it_belongs(objects: list[Object]):
    for o in objects:
        labels = o["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "phone"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert o["metadata"].get("namespace") == (None if o["kind"] in CLUSTER_WIDE else NAMESPACE)


def test_serving_containers_have_all_three_probes(objects: list[Object]):
    for name in (TRITON, GATEWAY):
        for container in pod_spec(objects, name)["containers"]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[probe]["timeoutSeconds"] >= 5
            startup = container["startupProbe"]
            assert startup["periodSeconds"] * startup["failureThreshold"] >= 60
            assert container["livenessProbe"]["failureThreshold"] >= 6


def test_probed_ports_exist(objects: list[Object]):
    for name in (TRITON, GATEWAY):
        for container in pod_spec(objects, name)["containers"]:
            ports = {port["name"] for port in container["ports"]}
            probes = [container[probe] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
            assert {probe["httpGet"]["port"] for probe in probes if "httpGet" in probe} <= ports


def test_every_container_says_what_it_needs(objects: list[Object]):
    for name, pod in pod_templates(objects):
        for container in _containers(pod):
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name
            assert "cpu" not in container["resources"]["limits"], "throttling stops every stream of the pod"


def test_pods_are_restricted(objects: list[Object]):
    """The Pod Security Standard `restricted`; a hostPath volume is the one thing that a user can ask for beyond it."""
    for name, pod in pod_templates(objects):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), name
        for container in _containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert not context.get("privileged"), name


def test_what_needs_no_gpu_has_a_read_only_root(objects: list[Object]):
    for name, pod in pod_templates(objects):
        for container in pod["spec"]["containers"]:
            if container["name"] in ("gateway", "test", "pause"):
                assert container["securityContext"]["readOnlyRootFilesystem"] is True, name


def test_mounted_volumes_exist_and_are_used(objects: list[Object]):
    for name, pod in pod_templates(objects):
        volumes = [volume["name"] for volume in pod["spec"].get("volumes", [])]
        mounted = {mount["name"] for c in _containers(pod) for mount in c.get("volumeMounts", [])}
        assert mounted == set(volumes), name
        assert len(volumes) == len(set(volumes)), name


def test_selectors_match_their_pods(objects: list[Object]):
    pods = [pod["metadata"]["labels"] for _, pod in pod_templates(objects)]
    for o in objects:
        for selector in _selectors(o):
            assert any(selector.items() <= labels.items() for labels in pods), (o["kind"], selector)


def test_a_deployment_selects_only_its_own_pods(objects: list[Object]):
    for o in of_kind(objects, "Deployment"):
        others = [p for name, p in pod_templates(objects) if name != f"Deployment/{o['metadata']['name']}"]
        selector = o["spec"]["selector"]["matchLabels"]
        assert not any(selector.items() <= p["metadata"]["labels"].items() for p in others)


def test_no_replicas_where_an_autoscaler_counts(objects: list[Object]):
    scaled = {o["spec"]["scaleTargetRef"]["name"] for o in objects if "scaleTargetRef" in o.get("spec", {})}
    for o in of_kind(objects, "Deployment"):
        assert ("replicas" in o["spec"]) == (o["metadata"]["name"] not in scaled)


def test_budgets_protect_what_serves_and_let_what_does_not_go(objects: list[Object]):
    for o in of_kind(objects, "PodDisruptionBudget"):
        assert o["spec"]["maxUnavailable"] >= 1
        assert o["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_spread_keeps_no_pod_waiting(objects: list[Object]):
    for name in (TRITON, GATEWAY):
        spread = pod_spec(objects, name)["topologySpreadConstraints"]
        assert {s["topologyKey"] for s in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
        assert {s["whenUnsatisfiable"] for s in spread} == {"ScheduleAnyway"}
        assert all(s["matchLabelKeys"] == ["pod-template-hash"] for s in spread)


def test_a_rollout_of_triton_needs_no_free_gpu(objects: list[Object]):
    update = one(objects, "Deployment", TRITON)["spec"]["strategy"]["rollingUpdate"]

    assert (update["maxSurge"], update["maxUnavailable"]) == (0, 1)


def test_each_deployment_has_one_autoscaler_at_most(objects: list[Object]):
    scaled = [o["spec"]["scaleTargetRef"]["name"] for o in objects if "scaleTargetRef" in o.get("spec", {})]

    assert len(scaled) == len(set(scaled))


def test_the_drain_budget_adds_up(objects: list[Object]):
    triton, gateway = pod_spec(objects, TRITON), pod_spec(objects, GATEWAY)
    for spec in (triton, gateway):
        lag_s = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        # after the drain both launcher and gateway still have to end: the launcher kills 10 s later
        assert spec["terminationGracePeriodSeconds"] >= lag_s + _drain_s(spec) + 15
    assert _drain_s(gateway) >= _drain_s(triton)
    assert gateway["terminationGracePeriodSeconds"] >= triton["terminationGracePeriodSeconds"]


def test_routes_do_not_cut_streams(objects: list[Object]):
    longest_s = _drain_s(pod_spec(objects, GATEWAY))
    for o in objects:
        if o["kind"] == "HTTPRoute":
            for rule in o["spec"]["rules"]:
                assert all(_seconds(t) == 0 or _seconds(t) > longest_s for t in rule["timeouts"].values())
        elif o["kind"] == "VirtualService":
            for rule in o["spec"]["http"]:
                assert "timeout" not in rule or _seconds(rule["timeout"]) > longest_s
                assert rule["retries"] == {"attempts": 0}
        elif o["kind"] == "Ingress":
            annotations = o["metadata"]["annotations"]
            assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > longest_s
            assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"


def test_traffic_shares_add_up_to_all(objects: list[Object]):
    for o in objects:
        if o["kind"] == "HTTPRoute":
            assert [sum(b["weight"] for b in rule["backendRefs"]) for rule in o["spec"]["rules"]] == [100]
        elif o["kind"] == "VirtualService":
            assert [sum(r["weight"] for r in rule["route"]) for rule in o["spec"]["http"]] == [100]


def test_references_to_own_objects_resolve(objects: list[Object]):
    config_maps = {o["metadata"]["name"] for o in of_kind(objects, "ConfigMap")}
    accounts = {o["metadata"]["name"] for o in of_kind(objects, "ServiceAccount")} | {"default"}
    classes = {o["metadata"]["name"] for o in of_kind(objects, "PriorityClass")}
    for name, pod in pod_templates(objects):
        spec = pod["spec"]
        assert spec.get("serviceAccountName", "default") in accounts, name
        assert not spec.get("priorityClassName") or spec["priorityClassName"] in classes, name
        for volume in spec.get("volumes", []):
            assert volume.get("configMap", {}).get("name") in config_maps | {None}, name


def test_no_secret_is_written(objects: list[Object]):
    assert of_kind(objects, "Secret") == []


def test_gpus_are_those_of_the_tensor_parallel_group(objects: list[Object], request: pytest.FixtureRequest):
    container = pod_spec(objects, TRITON)["containers"][0]
    (ranks,) = [a.split("=")[1] for a in container["args"] if a.startswith("--tensor-parallel-size")] or ["1"]
    gpus = {k: v for k, v in container["resources"]["limits"].items() if k.startswith("nvidia.com/")}

    assert list(gpus.values()) == ([] if "--device=cpu" in container["args"] else [int(ranks)])
    assert gpus == {k: v for k, v in container["resources"]["requests"].items() if k.startswith("nvidia.com/")}


def test_shared_memory_is_ram_and_bounded(objects: list[Object]):
    (shm,) = [v for v in pod_spec(objects, TRITON)["volumes"] if v["name"] == "shm"]
    (mount,) = [m for m in pod_spec(objects, TRITON)["containers"][0]["volumeMounts"] if m["mountPath"] == "/dev/shm"]

    assert shm["emptyDir"]["medium"] == "Memory"
    assert re.fullmatch(r"\d+(Mi|Gi)", shm["emptyDir"]["sizeLimit"])
    assert mount["name"] == "shm"


def test_a_gateway_finds_the_tritons(objects: list[Object]):
    service = one(objects, "Service", TRITON)
    (target,) = [a for a in pod_spec(objects, GATEWAY)["containers"][0]["args"] if a.startswith("--triton-grpc=")]

    assert service["spec"]["clusterIP"] == "None"
    assert target == f"--triton-grpc=dns:///{TRITON}.{NAMESPACE}.svc:8001"
    assert {p["name"]: p["port"] for p in service["spec"]["ports"]}["grpc"] == 8001


def _containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def _selectors(o: Object) -> list[dict[str, str]]:
    spec = o.get("spec", {})
    if o["kind"] == "Service":
        return [spec["selector"]]
    if o["kind"] in ("ServiceMonitor", "PodMonitor", "PodDisruptionBudget", "InferencePool", "Deployment"):
        return [spec["selector"]["matchLabels"]]
    if o["kind"] == "NetworkPolicy":
        peers = [
            peer
            for rule in [*spec["ingress"], *spec["egress"]]
            for peer in rule.get("from", []) + rule.get("to", [])
            if "podSelector" in peer
        ]
        return [spec["podSelector"]["matchLabels"], *(peer["podSelector"]["matchLabels"] for peer in peers)]
    return []


def _drain_s(spec: Object) -> int:
    (value,) = [a.split("=")[1] for a in spec["containers"][0]["args"] if a.startswith("--drain-s=")]
    return int(value)


def _seconds(text: Any) -> float:
    return float(str(text).removesuffix("s"))
