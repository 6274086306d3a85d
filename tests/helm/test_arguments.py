"""The programs take the arguments that the chart gives them."""

from __future__ import annotations

import pytest
from tests.helm.chart import GATEWAY, TRITON, container, one, render
from tests.helm.variants import VARIANTS

from autoglm_backend.launcher.options import parse_options
from autoglm_gateway.settings import parse_settings

every_variant = pytest.mark.parametrize("name", VARIANTS)


@every_variant
def test_the_launcher_takes_tritons_arguments(name: str):
    triton = container(render(VARIANTS[name]), TRITON)

    options = parse_options(triton["args"])

    assert triton["command"] == ["autoglm", "serve"]
    assert (options.only, options.triton_host) == ("triton", "0.0.0.0")
    ports = {port["name"]: port["containerPort"] for port in triton["ports"]}
    assert ports == {
        "http": options.triton_http_port,
        "grpc": options.triton_grpc_port,
        "metrics": options.triton_metrics_port,
    }


@every_variant
def test_the_gateway_takes_its_arguments(name: str, tmp_path):
    gateway = container(render(VARIANTS[name]), GATEWAY)
    pem = tmp_path / "tls.pem"
    pem.touch()
    arguments = [f"{a.split('=')[0]}={pem}" if a.startswith("--tls-") else a for a in gateway["args"]]

    settings = parse_settings(arguments, {})

    assert gateway["command"] == ["python", "-m", "autoglm_gateway"]
    assert (settings.host, settings.fake) == ("0.0.0.0", False)
    assert [target.endswith(".svc:8002") for target in settings.triton_metrics] == [True]
    ports = {port["name"]: port["containerPort"] for port in gateway["ports"]}
    assert ports == {"http": settings.port, "grpc": settings.grpc_port}


def test_options_reach_both_programs():
    objects = render(VARIANTS["all options"])

    options = parse_options(container(objects, TRITON)["args"])
    settings = parse_settings(container(objects, GATEWAY)["args"], {})

    assert (options.max_model_len, options.profile.dtype, options.profile.max_pixels) == (8192, "float16", 1003520)
    assert settings.media.media_hosts == ("a.example.com", "b.example.com")
    assert settings.media.media_private_addresses is True
    assert settings.served_model_names == ("autoglm-phone-9b", "phone")


def test_tensor_parallelism_reaches_the_launcher():
    assert parse_options(container(render(VARIANTS["tensor parallel"]), TRITON)["args"]).tensor_parallel_size == 4


def test_the_dynamic_graph_can_be_turned_off():
    environment = {e["name"]: e["value"] for e in container(render(VARIANTS["all options"]), TRITON)["env"]}

    assert environment["ENABLE_DYNAMIC_GRAPH"] == "False"


def test_triton_serves_what_the_engines_job_builds():
    objects = render(VARIANTS["engines"])
    job = one(objects, "Job", "phone-autoglm-phone-engines")["spec"]["template"]["spec"]["containers"][0]

    assert job["command"] == ["autoglm", "build-engines"]
    assert job["args"] == ["--checkpoint=/checkpoint", "--output=/engines", "--precision=fp32"]
    assert str(parse_options(container(objects, TRITON)["args"]).model_repository) == "/engines"


def test_redis_reaches_the_gateway_without_its_url_being_written():
    environment = container(render(VARIANTS["tls and keys"]), GATEWAY)["env"]
    settings = parse_settings((), {e["name"]: e.get("value", "rediss://:secret@redis:6379") for e in environment})

    assert environment[0]["valueFrom"] == {"secretKeyRef": {"name": "redis", "key": "url"}}
    assert (settings.redis.redis, settings.redis.redis_prefix) == ("rediss://:secret@redis:6379", "phone-autoglm-phone")
