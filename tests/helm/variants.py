"""Values that the tests render: the defaults, every example, and each feature by itself."""

from __future__ import annotations

from typing import Any

from tests.helm.chart import EXAMPLES

_MONITORS = {"monitors": {"enabled": True}}
_KEDA = {"mode": "keda", "keda": {"prometheusUrl": "http://prometheus:9090"}}
SHA256 = "ab" * 32

FEATURES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "tensor parallel": {"triton": {"tensorParallelSize": 4}},
    "engines": {
        "engines": {"enabled": True, "claimName": "engines", "args": ["--precision=fp32"]},
        "weights": {"source": "pvc", "pvc": {"claimName": "models"}},
    },
    "baked elsewhere": {"weights": {"bakedPath": "/models/other", "sha256": {"config.json": SHA256}}},
    "weights by init container": {
        "weights": {
            "source": "initContainer",
            "initContainer": {
                "image": "registry.example.com/fetch:1",
                "args": ["autoglm-phone-9b", "/checkpoint"],
                "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}],
            },
            "sha256": {"config.json": SHA256, "model.safetensors": SHA256},
        },
        "engines": {"enabled": True, "claimName": "engines"},
    },
    "weights by claim": {
        "weights": {
            "source": "pvc",
            "pvc": {"claimName": "models", "subPath": "autoglm/9b"},
            "sha256": {"config.json": SHA256},
        }
    },
    "weights by image volume": {
        "weights": {"source": "image", "image": {"reference": "registry.example.com/autoglm-phone-9b:1"}}
    },
    "hpa": {"autoscaling": {"mode": "hpa"}, "monitoring": _MONITORS},
    "keda": {"autoscaling": _KEDA, "monitoring": {**_MONITORS, "rules": {"enabled": True}}},
    "scale to zero": {"autoscaling": {**_KEDA, "scaleToZero": {"enabled": True}}, "monitoring": _MONITORS},
    "headroom": {"headroom": {"replicas": 2}, "priorityClass": {"create": True, "name": "triton"}},
    "tls and keys": {
        "gateway": {
            "tls": {"existingSecret": "tls"},
            "apiKeys": {"existingSecret": "keys"},
            "redis": {"existingSecret": "redis"},
        },
        "monitoring": _MONITORS,
        "tests": {"apiKey": {"existingSecret": "test-key"}},
    },
    "routes": {
        "ingress": {"enabled": True},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
        "istio": {"enabled": True, "hosts": ["autoglm.example.com"], "gateways": ["public"]},
        "canary": {"service": "next-autoglm-phone-gateway", "weight": 10},
    },
    "inference pool": {"inferencePool": {"enabled": True, "endpointPicker": {"name": "picker"}}},
    "no policy, no budgets": {
        "networkPolicy": {"enabled": False},
        "triton": {"pdb": {"enabled": False}},
        "gateway": {"pdb": {"enabled": False}},
        "serviceAccount": {"create": False},
    },
    "registry and labels": {
        "global": {"imageRegistry": "registry.example.com/ai", "imagePullSecrets": [{"name": "pull"}]},
        "image": {"triton": {"digest": f"sha256:{SHA256}"}, "gateway": {"tag": "1.2.3"}},
        "commonLabels": {"team": "phone"},
        "commonAnnotations": {"example.com/owner": "phone"},
    },
    "all options": {
        "triton": {
            "options": {"max-model-len": 8192, "dtype": "float16", "max-pixels": 1003520},
            "env": [{"name": "NCCL_DEBUG", "value": "WARN"}],
            "sidecars": [],
            "tolerations": [{"key": "phone", "operator": "Exists"}],
            "nodeSelector": {"pool": "gpu"},
            "probes": {"liveness": {"asksForToken": False}},
        },
        "gateway": {"options": {"media-hosts": ["a.example.com", "b.example.com"], "media-private-addresses": True}},
        "model": {"servedNames": ["autoglm-phone-9b", "phone"], "dynamicGraph": False},
        "monitoring": {
            **_MONITORS,
            "rules": {"enabled": True},
            "dashboards": {"enabled": True},
            "dcgm": {"enabled": True},
        },
    },
}

VARIANTS: dict[str, dict[str, Any]] = FEATURES | {f"example {name}": values for name, values in EXAMPLES.items()}
