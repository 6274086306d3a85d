import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.helm.chart import FOLDER, refusal

_SCHEMA = json.loads((FOLDER / "values.schema.json").read_text())
_VALUES = yaml.safe_load((FOLDER / "values.yaml").read_text())


def _maps(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every map whose keys the schema lists."""
    if schema.get("additionalProperties") is False:
        yield path
    for key, inner in schema.get("properties", {}).items():
        yield from _maps(inner, (*path, key))


def _nested(path: tuple[str, ...], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


@pytest.mark.parametrize("path", list(_maps(_SCHEMA)), ids=".".join)
def test_a_misspelt_value_is_refused(path: tuple[str, ...]):
    assert "misspelt" in refusal(_nested((*path, "misspelt"), 1))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("triton.device", "gpu"),
        ("triton.tensorParallelSize", 3),
        ("triton.replicas", "two"),
        ("triton.gpu.migProfile", "nvidia.com/mig-3g.40gb"),
        ("triton.shm.sizeLimit", "2 GB"),
        ("triton.probes.readiness.timeoutSeconds", 1),
        ("triton.pdb.maxUnavailable", 0),
        ("triton.options", {"--dtype": "float16"}),
        ("gateway.replicas", 0),
        ("gateway.balancing", "random"),
        ("gateway.service.type", "ExternalName"),
        ("gateway.env", [{"name": "KEY", "value": 1}]),
        ("weights.source", "nfs"),
        ("weights.sha256", {"config.json": "abc"}),
        ("weights.sha256", {"/etc/passwd": "ab" * 32}),
        ("weights.pvc.accessMode", "RWX"),
        ("image.triton.digest", "sha256:abc"),
        ("image.gateway.repository", ""),
        ("model.servedNames", []),
        ("autoscaling.mode", "vpa"),
        ("autoscaling.minReplicas", 0),
        ("autoscaling.inFlightPerReplica", 0),
        ("autoscaling.keda.prometheusUrl", "prometheus:9090"),
        ("drain.marginSeconds", 5),
        ("drain.endpointLagSeconds", 0),
        ("canary.weight", 101),
        ("inferencePool.endpointPicker.failureMode", "fail"),
        ("monitoring.monitors.interval", "15"),
        ("monitoring.rules.thresholds.firstTokenObjective", 1),
        ("networkPolicy.metrics", []),
        ("commonLabels", {"team": 1}),
    ],
)
def test_a_wrong_value_is_refused(path: str, value: Any):
    message = refusal(_nested(tuple(path.split(".")), value))

    assert "don't meet the specifications of the schema" in message
    assert path.replace(".", "/") in message or "invalid propertyName" in message


def test_schema_and_defaults_name_the_same_values():
    def names(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
        listed = schema.get("properties", {})
        if isinstance(value, dict) and listed and schema.get("additionalProperties") is not True:
            yield from ((f"{path}.{key}", "has no default") for key in listed.keys() - value.keys())
            yield from ((f"{path}.{key}", "has no schema") for key in value.keys() - listed.keys())
            for key in value.keys() & listed.keys():
                yield from names(value[key], listed[key], f"{path}.{key}")

    # requests, limits and claims of resources are Kubernetes' own
    differing = [(path, what) for path, what in names(_VALUES, _SCHEMA) if not path.endswith(".claims")]

    assert differing == []
