"""The sentences that a newcomer meets, and values as Helm reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.deploy.recorded_cluster import items, recorded_cluster, write_kubeconfig

from autoglm_client.deploy import helm
from autoglm_client.deploy.command import main
from autoglm_client.deploy.errors import DeployError
from autoglm_client.deploy.values import read_values


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No kubeconfig, no helm on PATH, no pod around."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_kubeconfig_it_says_where_to_get_one(capsys: pytest.CaptureFixture[str]):
    assert main(["status"]) == 1

    assert "no cluster is configured: neither --kubeconfig, KUBECONFIG nor ~/.kube/config" in capsys.readouterr().err


def test_a_context_that_there_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    kubeconfig = write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1")

    assert main(["status", "--kubeconfig", str(kubeconfig), "--context", "nowhere"]) == 1

    assert "nowhere" in capsys.readouterr().err


def test_an_api_server_that_does_not_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    kubeconfig = write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1")

    assert main(["logs", "--kubeconfig", str(kubeconfig)]) == 1

    error = capsys.readouterr().err
    assert "http://127.0.0.1:1 (context recorded) does not answer" in error
    assert "is a VPN needed?" in error


def test_credentials_that_have_expired(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with recorded_cluster({"/api/v1/namespaces/ai/pods": 401}, tmp_path) as kubeconfig:
        assert main(["logs", "--kubeconfig", str(kubeconfig)]) == 1

    assert "does not accept the credentials of context recorded: log in again" in capsys.readouterr().err


def test_a_missing_permission_is_passed_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    refusal = (403, 'pods is forbidden: User "eve" cannot list resource "pods"')
    with recorded_cluster({"/api/v1/namespaces/ai/pods": refusal}, tmp_path) as kubeconfig:
        assert main(["logs", "--kubeconfig", str(kubeconfig)]) == 1

    assert 'User "eve" cannot list resource "pods"' in capsys.readouterr().err


def test_no_helm_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(DeployError, match=r"no helm: neither is the program on PATH .* pip install"):
        helm.find_helm(helm.Target(release="phone", namespace="ai"))


def test_logs_of_several_pods_carry_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pods = [{"metadata": {"name": name}, "spec": {"containers": [{"name": "triton"}]}} for name in ("a", "b")]
    answers = {
        "/api/v1/namespaces/ai/pods": items(*pods),
        "/api/v1/namespaces/ai/pods/a/log": "one\ntwo\n",
        "/api/v1/namespaces/ai/pods/b/log": "three",
    }
    with recorded_cluster(answers, tmp_path) as kubeconfig:
        assert main(["logs", "triton", "--kubeconfig", str(kubeconfig)]) == 0

    assert capsys.readouterr().out.splitlines() == ["a: one", "a: two", "b: three"]


def test_uninstall_asks_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with recorded_cluster({}, tmp_path) as kubeconfig:
        assert main(["uninstall", "--kubeconfig", str(kubeconfig)]) == 1

    assert "--yes uninstalls without asking" in capsys.readouterr().err


def test_values_are_merged_in_order(tmp_path: Path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("triton: {replicas: 1, device: cpu}\nmodel: {servedNames: [a, b]}\n")
    second.write_text("triton: {replicas: 2}\nmodel: {servedNames: [c]}\n")

    values = read_values([first, second], ["triton.env={x}", "gateway.options.a\\.b=true"])

    assert values == {
        "triton": {"replicas": 2, "device": "cpu", "env": ["x"]},
        "model": {"servedNames": ["c"]},
        "gateway": {"options": {"a.b": True}},
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a: [", "is not YAML"), ("- a", "holds no map of values")],
)
def test_values_that_are_none_name_their_file(text: str, sentence: str, tmp_path: Path):
    path = tmp_path / "values.yaml"
    path.write_text(text)

    with pytest.raises(DeployError, match=rf"values.yaml .*{sentence}|values.yaml {sentence}"):
        read_values([path], [])


@pytest.mark.parametrize("assignment", ["triton.replicas", "=1"])
def test_an_assignment_that_is_none(assignment: str):
    with pytest.raises(DeployError, match=r"is not KEY\.KEY=VALUE"):
        read_values([], [assignment])
