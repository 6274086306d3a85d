"""Whether pods fit on the nodes as they are now: resources, taints, labels. A sketch of what the scheduler does.

Spread constraints, pod affinity and preemption are left to the scheduler, so it may find room where this does not, or
none where this does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from autoglm_client.deploy.needs import Amounts, PodNeeds, amounts_of, pod_amounts
from autoglm_client.deploy.objects import Object, labels_of, name_of, part, parts


@dataclass(slots=True, kw_only=True)
class Node:
    """`free` shrinks as pods are placed."""

    name: str
    labels: Mapping[str, str]
    taints: list[Object]
    is_ready: bool
    is_cordoned: bool
    total: Amounts
    free: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How many of the pods found a node, and why nodes refused the next one: reason -> nodes."""

    needs: PodNeeds
    num_placed: int
    reasons: Mapping[str, int]

    @property
    def fits(self) -> bool:
        return self.num_placed >= self.needs.count


def nodes_with_room(nodes: Iterable[Object], pods: Iterable[Object], *, release: str, namespace: str) -> list[Node]:
    """The nodes less what their pods take; the release's own pods leave as its new ones come."""
    found = {name_of(node): _node(node) for node in nodes}
    for pod in pods:
        node = found.get(pod["spec"].get("nodeName", ""))
        if node is None or part(pod, "status").get("phase") in ("Succeeded", "Failed"):
            continue
        if pod["metadata"]["namespace"] == namespace and release_of(pod) == release:
            continue
        _take(node, pod_amounts(pod["spec"]))
    return list(found.values())


def place(needs: Iterable[PodNeeds], nodes: list[Node]) -> list[Placement]:
    """Pods with the most devices first, each on the node where it leaves least behind."""
    ordered = sorted(needs, key=lambda need: -sum(need.devices.values(), Decimal(0)))
    return [_place(need, nodes) for need in ordered]


def _place(need: PodNeeds, nodes: list[Node]) -> Placement:
    num_placed = 0
    reasons: Counter[str] = Counter()
    while num_placed < need.count:
        refusals = {node.name: refusal(need, node) for node in nodes}
        fitting = [node for node in nodes if refusals[node.name] is None]
        if not fitting:
            reasons.update(reason for reason in refusals.values() if reason is not None)
            break
        _take(min(fitting, key=lambda node: _left_over(need, node)), need.amounts)
        num_placed += 1
    return Placement(needs=need, num_placed=num_placed, reasons=reasons)


def refusal(need: PodNeeds, node: Node) -> str | None:
    """Why the node would not take one more such pod; None where it would."""
    if not node.is_ready:
        return "not ready"
    if node.is_cordoned:
        return "cordoned"
    tolerations = parts(need.spec, "tolerations")
    for taint in node.taints:
        if taint.get("effect") != "PreferNoSchedule" and not any(_tolerates(t, taint) for t in tolerations):
            return f"taint {taint['key']}"
    for key, value in part(need.spec, "nodeSelector").items():
        if node.labels.get(key) != value:
            return f"label {key} is not {value}"
    if (label := _affinity_refusal(need.spec, node)) is not None:
        return label
    for name, amount in {**need.amounts, "pods": Decimal(1)}.items():
        if amount > node.free.get(name, Decimal(0)):
            if not node.total.get(name):
                return f"no {name}"
            return f"too little {name} free"
    return None


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("key") not in (None, "", taint["key"]):
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def _affinity_refusal(spec: Mapping[str, Any], node: Node) -> str | None:
    wanted = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    failed: list[str] = []
    for term in parts(spec, *wanted, "nodeSelectorTerms"):  # one of them must hold
        broken = [e for e in parts(term, "matchExpressions") if not _matches(e, node.labels)]
        if not broken:
            return None
        failed += [f"label {e['key']} {_in_words(e)}" for e in broken]
    return failed[0] if failed else None


def _matches(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), parts(expression, "values")
    operator = expression["operator"]
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    if operator == "In":
        return value in values
    if operator == "NotIn":
        return value not in values
    if value is None or not value.lstrip("-").isdecimal():
        return False
    return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])


def _in_words(expression: Mapping[str, Any]) -> str:
    operator = {"In": "is none of", "NotIn": "is one of", "Exists": "is missing", "DoesNotExist": "is there"}.get(
        expression["operator"], f"is not {expression['operator']}"
    )
    return " ".join([operator, ", ".join(parts(expression, "values"))]).strip()


def _left_over(need: PodNeeds, node: Node) -> tuple[Decimal, Decimal]:
    devices = [node.free.get(name, Decimal(0)) - amount for name, amount in need.devices.items()]
    return sum(devices, Decimal(0)), node.free.get("memory", Decimal(0))


def _take(node: Node, amounts: Amounts) -> None:
    for name, amount in {**amounts, "pods": Decimal(1)}.items():
        node.free[name] = node.free.get(name, Decimal(0)) - amount


def _node(item: Object) -> Node:
    status, spec = part(item, "status"), part(item, "spec")
    conditions = {c["type"]: c["status"] for c in parts(status, "conditions")}
    total = amounts_of(part(status, "allocatable"))
    return Node(
        name=name_of(item),
        labels=labels_of(item),
        # its own state says more than the taints that mirror it
        taints=[t for t in parts(spec, "taints") if not t["key"].startswith("node.kubernetes.io/")],
        is_ready=conditions.get("Ready") == "True",
        is_cordoned=bool(spec.get("unschedulable")),
        total=total,
        free=dict(total),
    )


def release_of(pod: Object) -> str | None:
    return labels_of(pod).get("app.kubernetes.io/instance")
