"""Asks the cluster about everything that the rendered chart needs, before anything is changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from autoglm_client.deploy import api_checks, room_checks
from autoglm_client.deploy.errors import ForbiddenError, HelmError
from autoglm_client.deploy.findings import Finding, failure, ok, warning
from autoglm_client.deploy.helm import read_chart
from autoglm_client.deploy.look import Look, Plan, served_kinds

_CHECKS: tuple[tuple[str, Callable[[Look], Iterator[Finding]]], ...] = (
    ("namespace", api_checks.check_namespace),
    ("API groups", api_checks.check_groups),
    ("permissions", api_checks.check_permissions),
    ("admission", api_checks.check_admission),
    ("capacity", room_checks.check_capacity),
    ("quota", room_checks.check_quota),
    ("storage", room_checks.check_storage),
    ("secrets", room_checks.check_secrets),
    ("autoscaling", api_checks.check_metrics),
)


def preflight(plan: Plan) -> list[Finding]:
    """In the order of the report. What may not be looked at is a warning; other refusals of the API server, and an API
    server that does not answer, are raised (ClusterError, UnreachableError)."""
    version = str(plan.cluster.get("/version")["gitVersion"])
    findings = [_check_version(plan, version)]
    try:
        objects = plan.helm.render(plan.chart, plan.values, is_upgrade=plan.is_upgrade, kube_version=version)
    except HelmError as error:
        return [*findings, failure("values", str(error), "change the values that it names")]
    findings.append(ok("Helm", f"{plan.helm.description}; the chart renders {len(objects)} objects"))
    look = Look(
        plan=plan,
        objects=objects,
        served=served_kinds(plan.cluster, objects),
        namespace=plan.cluster.find(f"/api/v1/namespaces/{plan.target.namespace}"),
    )
    for subject, check in _CHECKS:
        try:
            findings += check(look)
        except ForbiddenError as error:
            findings.append(warning(subject, f"not looked at, for want of permission: {error}"))
    return findings


def _check_version(plan: Plan, version: str) -> Finding:
    wanted = str(read_chart(plan.chart).get("kubeVersion", ""))
    where = f"Kubernetes {version} at {plan.cluster.url} (context {plan.cluster.context})"
    if _numbers(version) < _numbers(wanted):
        return failure("API server", f"{where}; the chart needs {wanted}", "upgrade the cluster")
    return ok("API server", where)


def _numbers(version: str) -> tuple[int, int]:
    """Major and minor of v1.34.3 or >=1.30.0-0; (0, 0) where none is stated."""
    found = re.search(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
