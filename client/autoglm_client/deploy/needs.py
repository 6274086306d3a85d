"""What the pods of a rendered chart ask of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

import kubernetes.utils.quantity

from autoglm_client.deploy.objects import Object, labels_of, name_of, part, parts

Amounts = dict[str, Decimal]
"""Resource name -> amount: cores, bytes, pieces."""

# the package has no types
_parse_quantity = cast("Any", kubernetes.utils.quantity).parse_quantity
_HOOK = "helm.sh/hook"
_SHARED = ("cpu", "memory", "ephemeral-storage")
TARGETS = ("HorizontalPodAutoscaler", "ScaledObject")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodNeeds:
    """`count` pods alike, at first; an autoscaler may go up to `most`."""

    owner: str
    component: str
    count: int
    most: int
    amounts: Amounts
    spec: Object

    @property
    def devices(self) -> Amounts:
        """GPUs and whatever else a node offers by the piece."""
        return {name: amount for name, amount in self.amounts.items() if name not in _SHARED and amount}


def pod_needs(objects: Iterable[Object]) -> list[PodNeeds]:
    """Of Deployments and of Jobs that run before the release; test pods come and go."""
    rendered = list(objects)
    scaled = {name: bounds for name, bounds in _scalers(rendered)}
    found: list[PodNeeds] = []
    for item in rendered:
        kind, name = str(item["kind"]), name_of(item)
        if kind not in ("Deployment", "Job") or "test" in hooks(item):
            continue
        spec = item["spec"]
        least, most = scaled.get(name, (int(spec.get("replicas", 1)), int(spec.get("replicas", 1))))
        if kind == "Job":
            least = most = 1
        found.append(
            PodNeeds(
                owner=f"{kind}/{name}",
                component=str(labels_of(item).get("app.kubernetes.io/component", "")),
                count=least,
                most=most,
                amounts=pod_amounts(spec["template"]["spec"]),
                spec=spec["template"]["spec"],
            )
        )
    return found


def hooks(item: Mapping[str, Any]) -> list[str]:
    """The moments at which Helm makes it; empty for an ordinary object."""
    return str(part(item, "metadata", "annotations").get(_HOOK, "")).split(",")


def pod_amounts(spec: Mapping[str, Any]) -> Amounts:
    """What the scheduler counts: the containers together, or one init container where that is more."""
    total: Amounts = {}
    for container in parts(spec, "containers"):
        for name, amount in _requests(container).items():
            total[name] = total.get(name, Decimal(0)) + amount
    for container in parts(spec, "initContainers"):
        for name, amount in _requests(container).items():
            total[name] = max(total.get(name, Decimal(0)), amount)
    return total


def amounts_of(quantities: Mapping[str, Any]) -> Amounts:
    """Kubernetes quantities as numbers."""
    return {name: _parse_quantity(str(text)) for name, text in quantities.items()}


def referenced(objects: Iterable[Object], kind: str) -> dict[str, set[str]]:
    """Name -> keys of the Secrets, ConfigMaps or PersistentVolumeClaims that pods name and the chart does not make."""
    rendered = list(objects)
    made = {name_of(item) for item in rendered if item["kind"] == kind}
    found: dict[str, set[str]] = {}
    for item in rendered:
        for name, key in _references(_pod_spec(item), kind):
            if name not in made:
                found.setdefault(name, set()).update({key} if key else set())
    return found


def _requests(container: Mapping[str, Any]) -> Amounts:
    resources = part(container, "resources")
    # a limit without a request is the request
    return amounts_of({**part(resources, "limits"), **part(resources, "requests")})


def _scalers(objects: list[Object]) -> Iterator[tuple[str, tuple[int, int]]]:
    for item in objects:
        spec = part(item, "spec")
        if item["kind"] == "HorizontalPodAutoscaler":
            yield spec["scaleTargetRef"]["name"], (int(spec.get("minReplicas", 1)), int(spec["maxReplicas"]))
        elif item["kind"] == "ScaledObject":
            bounds = (int(spec.get("minReplicaCount", 0)), int(spec.get("maxReplicaCount", 100)))
            yield spec["scaleTargetRef"]["name"], bounds


def _pod_spec(item: Object) -> Object:
    if item["kind"] == "Pod":
        return item["spec"]
    return part(item, "spec", "template", "spec") if item["kind"] in ("Deployment", "Job") else {}


def _references(spec: Object, kind: str) -> Iterator[tuple[str, str]]:
    """(name, key); the key is "" where none is named."""
    volume_field, name_field, env_word = {
        "Secret": ("secret", "secretName", "secret"),
        "ConfigMap": ("configMap", "name", "configMap"),
        "PersistentVolumeClaim": ("persistentVolumeClaim", "claimName", ""),
    }[kind]
    for volume in parts(spec, "volumes"):
        source = volume.get(volume_field)
        if source and not source.get("optional"):
            keys = [str(item["key"]) for item in parts(source, "items")] or [""]
            yield from ((str(source[name_field]), key) for key in keys)
    if kind == "Secret":
        yield from ((str(secret["name"]), "") for secret in parts(spec, "imagePullSecrets"))
    if not env_word:
        return
    for container in [*parts(spec, "initContainers"), *parts(spec, "containers")]:
        for entry in parts(container, "env"):
            reference = part(entry, "valueFrom").get(f"{env_word}KeyRef")
            if reference and not reference.get("optional"):
                yield str(reference["name"]), str(reference["key"])
        for entry in parts(container, "envFrom"):
            reference = entry.get(f"{env_word}Ref")
            if reference and not reference.get("optional"):
                yield str(reference["name"]), ""
