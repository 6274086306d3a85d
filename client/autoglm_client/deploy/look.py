"""What preflight has before it: a release, its rendered objects, and the cluster that they would go to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm_client.deploy.cluster import Cluster
from autoglm_client.deploy.helm import Helm, Target
from autoglm_client.deploy.objects import Object, parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A release as it would be. `values` are all that it would be given."""

    cluster: Cluster
    helm: Helm
    target: Target
    chart: Path
    values: Mapping[str, Any]
    is_upgrade: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """`served` maps (apiVersion, kind) to the resource as the API server lists it, where it does; `namespace` is None
    where it is still to be made."""

    plan: Plan
    objects: list[Object]
    served: Mapping[tuple[str, str], Object]
    namespace: Object | None

    @property
    def cluster(self) -> Cluster:
        return self.plan.cluster

    @property
    def target(self) -> Target:
        return self.plan.target

    def in_namespace(self, plural: str, name: str = "") -> str:
        """The core API's path of that kind in the release's namespace."""
        return "/".join(["/api/v1/namespaces", self.target.namespace, plural, name]).rstrip("/")


def may(cluster: Cluster, verb: str, group: str, resource: str, *, namespace: str) -> bool:
    """Whether the API server would let this user do so; `resource` may name a subresource, as in pods/log."""
    resource, _, subresource = resource.partition("/")
    attributes = {
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "namespace": namespace,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = cluster.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


def served_kinds(cluster: Cluster, objects: list[Object]) -> dict[tuple[str, str], Object]:
    """Of the API groups that the objects are in."""
    found: dict[tuple[str, str], Object] = {}
    for version in sorted({str(item["apiVersion"]) for item in objects}):
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        listed = cluster.find(path)
        for resource in parts(listed or {}, "resources"):
            if "/" not in resource["name"]:
                found[version, resource["kind"]] = resource
    return found
