"""Every check in templates/_validate.tpl refuses, with its sentence, values that differ from good ones in one thing."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helm_python import Chart
from helm_python.errors import HelmError
from tests.helm.chart import FOLDER, merged, refusal
from tests.helm.variants import SHA256, VARIANTS

_MONITORED = {"monitoring": {"monitors": {"enabled": True}}}
_KEDA = merged(_MONITORED, {"autoscaling": {"mode": "keda", "keda": {"prometheusUrl": "http://prometheus:9090"}}})
_ROUTE = {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}}
_MESH = {"istio": {"enabled": True, "hosts": ["a.example.com"]}}

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("needs weights.pvc.claimName", {"weights": {"source": "pvc"}}),
    ("needs weights.initContainer.image", {"weights": {"source": "initContainer"}}),
    ("needs weights.image.reference", {"weights": {"source": "image"}}),
    ("needs an absolute weights.hostPath.path", {"weights": {"source": "hostPath", "hostPath": {"path": "models"}}}),
    ("needs weights.bakedPath", {"weights": {"sha256": {"config.json": SHA256}}}),
    (
        "weights.pvc.accessMode is ReadWriteOnce",
        {
            "weights": {"source": "pvc", "pvc": {"claimName": "w", "accessMode": "ReadWriteOnce"}},
            "triton": {"replicas": 2},
        },
    ),
    (
        "up to 4 Triton pods may run",
        merged(_KEDA, {"weights": {"source": "pvc", "pvc": {"claimName": "w", "accessMode": "ReadWriteOnce"}}}),
    ),
    ("engines.enabled needs engines.claimName", {"engines": {"enabled": True}}),
    ("engines.enabled needs to know the checkpoint", {"engines": {"enabled": True, "claimName": "e"}}),
    (
        "engines.enabled needs triton.device cuda",
        {"engines": {"enabled": True, "claimName": "e"}, "triton": {"device": "cpu"}},
    ),
    (
        "triton.gpu.migProfile excludes triton.tensorParallelSize",
        {"triton": {"gpu": {"migProfile": "3g.40gb"}, "tensorParallelSize": 2}},
    ),
    (
        "triton.gpu.migProfile needs triton.device cuda",
        {"triton": {"gpu": {"migProfile": "3g.40gb"}, "device": "cpu"}},
    ),
    (
        "triton.affinity and triton.gpu.products",
        {"triton": {"gpu": {"products": ["NVIDIA-L4"]}, "affinity": {"nodeAffinity": {}}}},
    ),
    ("triton.shm.sizeLimit is 64 MiB", {"triton": {"shm": {"sizeLimit": "64Mi"}}}),
    ("/dev/shm alone, which counts as memory", {"triton": {"resources": {"limits": {"memory": "512Mi"}}}}),
    ("gateway.limits.maxBodyBytes is 67108864", {"gateway": {"resources": {"limits": {"memory": "100Mi"}}}}),
    (
        "triton.rollout: maxSurge and maxUnavailable cannot both be 0",
        {"triton": {"rollout": {"maxSurge": 0, "maxUnavailable": "0%"}}},
    ),
    (
        "gateway.rollout: maxSurge and maxUnavailable cannot both be 0",
        {"gateway": {"rollout": {"maxSurge": 0, "maxUnavailable": 0}}},
    ),
    ("triton.terminationGracePeriodSeconds is 135 s", {"triton": {"terminationGracePeriodSeconds": 135}}),
    ("gateway.terminationGracePeriodSeconds is 195 s", {"gateway": {"terminationGracePeriodSeconds": 195}}),
    ("less than Triton's 500 s", {"triton": {"terminationGracePeriodSeconds": 500}}),
    ("httpRoute.timeoutSeconds is 60", merged(_ROUTE, {"httpRoute": {"timeoutSeconds": 60}})),
    ("istio.timeoutSeconds is 60", merged(_MESH, {"istio": {"timeoutSeconds": 60}})),
    ("ingress.idleTimeoutSeconds is 60", {"ingress": {"enabled": True, "idleTimeoutSeconds": 60}}),
    ("autoscaling.minReplicas is more", {"autoscaling": {"minReplicas": 5}}),
    ("gateway.autoscaling.minReplicas is more", {"gateway": {"autoscaling": {"minReplicas": 11}}}),
    ("needs autoscaling.keda.prometheusUrl", merged(_MONITORED, {"autoscaling": {"mode": "keda"}})),
    ("set monitoring.monitors.enabled", {"autoscaling": {"mode": "hpa"}}),
    (
        "autoscaling.scaleToZero needs autoscaling.mode keda",
        merged(_MONITORED, {"autoscaling": {"mode": "hpa", "scaleToZero": {"enabled": True}}}),
    ),
    ("autoscaling.scaleToZero needs autoscaling.mode keda", {"autoscaling": {"scaleToZero": {"enabled": True}}}),
    (
        "gateway.autoscaling needs gateway.resources.requests.cpu",
        {"gateway": {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}}},
    ),
    ("priorityClass.create needs priorityClass.name", {"priorityClass": {"create": True}}),
    ("triton.options.host is set by the chart", {"triton": {"options": {"host": "::"}}}),
    ("gateway.options.fake is set by the chart", {"gateway": {"options": {"fake": True}}}),
    ("canary.weight needs canary.service", merged(_ROUTE, {"canary": {"weight": 10}})),
    ("canary.weight needs httpRoute.enabled or istio.enabled", {"canary": {"weight": 10, "service": "other"}}),
    ("httpRoute.enabled needs httpRoute.parentRefs", {"httpRoute": {"enabled": True}}),
    ("istio.enabled needs istio.hosts", {"istio": {"enabled": True}}),
    ("inferencePool.enabled needs inferencePool.endpointPicker.name", {"inferencePool": {"enabled": True}}),
    (
        "inferencePool.enabled excludes gateway.tls",
        {
            "inferencePool": {"enabled": True, "endpointPicker": {"name": "p"}},
            "gateway": {"tls": {"existingSecret": "tls"}},
        },
    ),
    ("monitoring.dcgm.enabled adds alerts", merged(_MONITORED, {"monitoring": {"dcgm": {"enabled": True}}})),
    ("monitoring.rules.enabled needs monitoring.monitors.enabled", {"monitoring": {"rules": {"enabled": True}}}),
]


@pytest.mark.parametrize(("sentence", "values"), REFUSED, ids=[sentence for sentence, _ in REFUSED])
def test_a_contradiction_is_refused(sentence: str, values: dict[str, Any]):
    assert sentence in refusal(values)


def test_every_problem_is_named_at_once():
    message = refusal({"weights": {"source": "pvc"}, "priorityClass": {"create": True}})

    assert "weights.pvc.claimName" in message
    assert "priorityClass.name" in message


def test_an_image_volume_needs_a_kubernetes_that_has_them(tmp_path: Path):
    assert "on by default only from Kubernetes 1.35 and this is v1.34.0" in _refusal_on_1_34({}, tmp_path)


def test_an_image_volume_can_be_forced(tmp_path: Path):
    assert _refusal_on_1_34({"weights": {"image": {"force": True}}}, tmp_path) == ""


def test_no_check_is_without_a_test(tmp_path: Path):
    source = (FOLDER / "templates/_validate.tpl").read_text()
    sentences = re.findall(r'append \$problems \(?(?:printf )?"([^"]+)"', source)
    told = [refusal(values) for _, values in REFUSED]
    told.append(_refusal_on_1_34({}, tmp_path))

    untold = [s for s in sentences if not any(max(re.split("%[a-z]", s), key=len) in text for text in told)]

    assert len(sentences) == source.count("append $problems")
    assert untold == []


def _refusal_on_1_34(values: dict[str, Any], tmp_path: Path) -> str:
    """The library renders for the newest Kubernetes only, so a copy of the chart is told otherwise."""
    copy = tmp_path / "chart"
    shutil.copytree(FOLDER, copy)
    checks = copy / "templates/_validate.tpl"
    checks.write_text(checks.read_text().replace(".Capabilities.KubeVersion.Version", '"v1.34.0"'))
    try:
        Chart.load(copy).render(values=merged(VARIANTS["weights by image volume"], values), name="phone")
    except HelmError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", VARIANTS)
def test_good_values_are_taken(name: str):
    assert refusal(VARIANTS[name]) == ""
