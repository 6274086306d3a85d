"""What nodes, quotas, claims and Secrets must hold."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from autoglm_client.deploy import capacity
from autoglm_client.deploy.findings import Finding, failure, ok, warning
from autoglm_client.deploy.look import Look
from autoglm_client.deploy.needs import Amounts, amounts_of, pod_amounts, pod_needs, referenced
from autoglm_client.deploy.objects import Object, name_of, part

_BYTES = ("memory", "ephemeral-storage")
_ZERO = Decimal(0)


def check_capacity(look: Look) -> Iterator[Finding]:
    # those that hold a place for others give it up
    needs = [need for need in pod_needs(look.objects) if need.component != "headroom"]
    nodes = capacity.nodes_with_room(
        look.cluster.items("/api/v1/nodes"),
        look.cluster.items("/api/v1/pods"),
        release=look.target.release,
        namespace=look.target.namespace,
    )
    for device in sorted({name for need in needs for name in need.devices}):
        offered = [node for node in nodes if node.total.get(device)]
        if offered:
            free = sum((node.free[device] for node in offered), _ZERO)
            total = sum((node.total[device] for node in offered), _ZERO)
            yield ok("capacity", f"{free} of {total} {device} are free, on {_counted(len(offered), 'node')}")
        else:
            cure = "install its device plugin (for NVIDIA: the GPU operator), or set triton.device=cpu"
            yield failure("capacity", f"no node offers {device}", cure)
    for placed in capacity.place(needs, nodes):
        yield _placement_finding(placed, len(nodes))


def check_quota(look: Look) -> Iterator[Finding]:
    quotas = look.cluster.items(look.in_namespace("resourcequotas")) if look.namespace is not None else []
    if not quotas:
        yield ok("quota", "none in the namespace")
        return
    wanted = _wanted_beside_own(look)
    exceeded = False
    for quota in quotas:
        used = amounts_of(part(quota, "status", "used"))
        for key, limit in amounts_of(part(quota, "status", "hard")).items():
            name = key.removeprefix("requests.")
            left = limit - used.get(key, _ZERO)
            if wanted.get(name, _ZERO) > left:
                exceeded = True
                text = (
                    f"{name_of(quota)} leaves {_text(name, left)} of {key}, and this needs {_text(name, wanted[name])}"
                )
                yield failure("quota", text, "raise it, or ask for less")
    if not exceeded:
        yield ok("quota", f"{len(quotas)} in the namespace, none in the way")


def check_storage(look: Look) -> Iterator[Finding]:
    claims = sorted(referenced(look.objects, "PersistentVolumeClaim"))
    if not claims:
        yield ok("storage", "no claim is named")
        return
    classes = look.cluster.items("/apis/storage.k8s.io/v1/storageclasses")
    for name in claims:
        claim = look.cluster.find(look.in_namespace("persistentvolumeclaims", name))
        if claim is None:
            yield failure("storage", f"there is no PersistentVolumeClaim {name}", _claim_cure(classes))
        else:
            yield _claim_finding(claim, classes)


def check_secrets(look: Look) -> Iterator[Finding]:
    num_found = 0
    for kind, plural in (("Secret", "secrets"), ("ConfigMap", "configmaps")):
        for name, keys in sorted(referenced(look.objects, kind).items()):
            found = look.cluster.find(look.in_namespace(plural, name))
            if found is None:
                yield failure("secrets", f"there is no {kind} {name}", f"kubectl create {kind.lower()} ... {name}")
            elif lacking := sorted(keys - set(part(found, "data"))):
                text = f"{kind} {name} has no key {', '.join(lacking)}"
                yield failure("secrets", text, "add it, or name another")
            else:
                num_found += 1
    yield ok("secrets", f"{num_found} named, and there" if num_found else "no further one is named")


def _wanted_beside_own(look: Look) -> Amounts:
    """What all pods need, less what the release's present ones have already."""
    wanted: Amounts = {}
    for need in pod_needs(look.objects):
        for name, amount in {**need.amounts, "pods": Decimal(1)}.items():
            wanted[name] = wanted.get(name, _ZERO) + amount * need.count
    selector = f"app.kubernetes.io/instance={look.target.release}"
    for pod in look.cluster.items(look.in_namespace("pods"), labelSelector=selector):
        for name, amount in {**pod_amounts(pod["spec"]), "pods": Decimal(1)}.items():
            wanted[name] = wanted.get(name, _ZERO) - amount
    return wanted


def _placement_finding(placed: capacity.Placement, num_nodes: int) -> Finding:
    need = placed.needs
    size = ", ".join(f"{_text(name, amount)} {name}" for name, amount in need.amounts.items() if amount)
    more = f" (autoscaling may ask for {need.most})" if need.most > need.count else ""
    if placed.fits:
        return ok("capacity", f"{need.owner}: {_counted(need.count, 'pod')} of {size} fit{more}")
    if not num_nodes:
        return failure("capacity", f"{need.owner}: the cluster has no node")
    reasons = "; ".join(f"{number} {reason}" for reason, number in sorted(placed.reasons.items(), key=lambda r: -r[1]))
    text = f"{need.owner}: {placed.num_placed} of {_counted(need.count, 'pod')} of {size} fit. Of {num_nodes} nodes: "
    cure = "free or add nodes, ask for less (replicas, resources), or change labels and tolerations"
    return failure("capacity", text + reasons, cure)


def _claim_finding(claim: Object, classes: list[Object]) -> Finding:
    name, phase = name_of(claim), str(part(claim, "status").get("phase"))
    asked = part(claim, "spec").get("storageClassName")
    used = next((item for item in classes if name_of(item) == asked), None)
    if phase == "Bound":
        return ok("storage", f"claim {name} is bound ({', '.join(claim['spec']['accessModes'])})")
    if asked and used is None:
        cure = f"the storage classes here: {_class_names(classes)}"
        return failure("storage", f"claim {name} asks for the storage class {asked}, which is not there", cure)
    if used is not None and used.get("volumeBindingMode") == "WaitForFirstConsumer":
        return ok("storage", f"claim {name} will be bound when the first pod uses it")
    cure = "`kubectl describe pvc` says what its provisioner waits for"
    return warning("storage", f"claim {name} is {phase.lower()}, not bound", cure)


def _claim_cure(classes: list[Object]) -> str:
    if not classes:
        return "make it; the cluster has no storage class, so bind it to a PersistentVolume of your own"
    return f"make it; the storage classes here: {_class_names(classes)}"


def _class_names(classes: list[Object]) -> str:
    mark = "storageclass.kubernetes.io/is-default-class"
    names = [
        name_of(item) + (" (default)" if part(item, "metadata", "annotations").get(mark) == "true" else "")
        for item in classes
    ]
    return ", ".join(names) or "none"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _text(name: str, amount: Decimal) -> str:
    """Bytes as GiB or MiB, everything else as it is."""
    if name not in _BYTES:
        return f"{amount.normalize():f}"
    mebibytes = amount / 2**20
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"
