"""What the API server must know, permit and accept."""

from __future__ import annotations

from collections.abc import Iterator

from autoglm_client.deploy.errors import ClusterError, ForbiddenError, NotFoundError
from autoglm_client.deploy.findings import Finding, failure, ok, warning
from autoglm_client.deploy.look import Look, may
from autoglm_client.deploy.needs import hooks
from autoglm_client.deploy.objects import Object, labels_of, name_of, parts

# API group -> what brings it, and how to do without
_GROUPS = {
    "keda.sh": ("KEDA", "autoscaling.mode=hpa or none"),
    "monitoring.coreos.com": ("the Prometheus operator", "monitoring.monitors.enabled=false, and rules likewise"),
    "gateway.networking.k8s.io": ("the Gateway API and an implementation of it", "httpRoute.enabled=false"),
    "networking.istio.io": ("Istio", "istio.enabled=false"),
    "inference.networking.k8s.io": ("the Gateway API inference extension", "inferencePool.enabled=false"),
}
_METRICS = {
    "External": ("external.metrics.k8s.io", "prometheus-adapter, with the rule that the chart writes for it"),
    "Resource": ("metrics.k8s.io", "metrics-server"),
}
_VERBS = ("create", "patch", "delete")
_OWN_NEEDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("", "secrets", ("list", "create", "update", "delete")),  # where Helm keeps its releases
    ("", "pods", ("list",)),
    ("", "pods/log", ("get",)),
)


def check_namespace(look: Look) -> Iterator[Finding]:
    name = look.target.namespace
    if look.namespace is not None:
        level = labels_of(look.namespace).get("pod-security.kubernetes.io/enforce")
        yield ok("namespace", f"{name} is there" + (f", Pod Security {level}" if level else ""))
    elif may(look.cluster, "create", "", "namespaces", namespace=""):
        yield ok("namespace", f"{name} will be made")
    else:
        yield failure("namespace", f"there is no {name}, and you may not make it", "ask an administrator for it")


def check_groups(look: Look) -> Iterator[Finding]:
    wanted = {(item["apiVersion"], item["kind"]) for item in look.objects}
    absent = sorted(wanted - set(look.served))
    for version, kind in absent:
        product, otherwise = _GROUPS.get(version.partition("/")[0], (f"what brings {version}", ""))
        cure = f"install {product}" + (f", or set {otherwise}" if otherwise else "")
        yield failure("API groups", f"the cluster has no {kind} ({version})", cure)
    if not absent:
        yield ok("API groups", f"all {len(wanted)} kinds of objects are known")


def check_permissions(look: Look) -> Iterator[Finding]:
    wanted = [(group, resource, verbs, True) for group, resource, verbs in _OWN_NEEDS]
    for version, kind in sorted({(item["apiVersion"], item["kind"]) for item in look.objects} & set(look.served)):
        resource = look.served[version, kind]
        wanted.append((version.rpartition("/")[0], resource["name"], _VERBS, bool(resource["namespaced"])))
    missing: list[str] = []
    for group, resource, verbs, is_namespaced in wanted:
        namespace = look.target.namespace if is_namespaced else ""
        refused = [verb for verb in verbs if not may(look.cluster, verb, group, resource, namespace=namespace)]
        if refused:
            missing.append(f"{', '.join(refused)} {resource}" + (f".{group}" if group else ""))
    if missing:
        text = f"you may not, in namespace {look.target.namespace}: {'; '.join(missing)}"
        cure = "ask an administrator for these (the ClusterRole `admin`, bound in the namespace, holds most)"
        yield failure("permissions", text, cure)
    else:
        yield ok("permissions", f"all {sum(len(verbs) for _, _, verbs, _ in wanted)} that are needed are granted")


def check_admission(look: Look) -> Iterator[Finding]:
    """Has the API server judge one pod of each kind, without making it: Pod Security, limits, webhooks."""
    if look.namespace is None:
        yield ok("admission", "not asked: the namespace is not there yet")
        return
    made = {name_of(item) for item in look.objects if item["kind"] == "PriorityClass"}
    refused = False
    for item in look.objects:
        if item["kind"] not in ("Deployment", "Job") or "test" in hooks(item):
            continue
        pod = _pod(item["spec"]["template"], made)
        try:
            look.cluster.create(look.in_namespace("pods"), pod, dryRun="All", fieldValidation="Strict")
        except ClusterError as error:
            if isinstance(error, ForbiddenError) and 'cannot create resource "pods"' in str(error):
                yield warning("admission", "not asked: you may not create pods yourself")
                return
            yield failure("admission", f"{item['kind']}/{name_of(item)}: {error}", _admission_cure(str(error)))
            refused = True
    if not refused:
        yield ok("admission", "the API server would take every kind of pod")


def check_metrics(look: Look) -> Iterator[Finding]:
    scalers = [item for item in look.objects if item["kind"] == "HorizontalPodAutoscaler"]
    for kind in sorted({str(metric["type"]) for item in scalers for metric in parts(item, "spec", "metrics")}):
        group, product = _METRICS.get(kind, ("custom.metrics.k8s.io", "a metrics adapter"))
        try:
            look.cluster.get(f"/apis/{group}/v1beta1")
            yield ok("autoscaling", f"{group} is served")
        except NotFoundError:
            yield warning("autoscaling", f"nothing serves {group}, so nothing scales", f"install {product}")
        except ForbiddenError:
            raise
        except ClusterError as error:
            yield warning("autoscaling", f"{group} does not answer ({error}), so nothing scales")


def _pod(template: Object, made_priorities: set[str]) -> Object:
    """As it would be, less what the release itself would make first."""
    spec = {name: value for name, value in template["spec"].items() if not name.startswith("serviceAccount")}
    if spec.get("priorityClassName") in made_priorities:
        del spec["priorityClassName"]
    metadata = {"generateName": "autoglm-preflight-", "labels": labels_of(template)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _admission_cure(message: str) -> str:
    if "PodSecurity" in message:
        return "change what it names, or the namespace's label pod-security.kubernetes.io/enforce"
    if "quota" in message:
        return "raise the ResourceQuota, or ask for less"
    if "PriorityClass" in message:
        return "make it, or set priorityClass.create=true"
    return ""
