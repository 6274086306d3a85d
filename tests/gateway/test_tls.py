"""TLS and mutual TLS on both ports."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from tests.gateway.processes import Gateway, running_gateway

from autoglm_gateway.tls import TlsFiles
from autoglm_protocol.grpc import autoglm_pb2 as pb
from autoglm_protocol.grpc import autoglm_pb2_grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    ca: Path
    cert: Path
    key: Path
    client: Path
    """Certificate and key of a caller."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    server, client = ca.issue_cert("127.0.0.1"), ca.issue_cert("caller@example.com")
    found = Files(ca=folder / "ca", cert=folder / "cert", key=folder / "key", client=folder / "client")
    ca.cert_pem.write_to_path(str(found.ca))
    server.cert_chain_pems[0].write_to_path(str(found.cert))
    server.private_key_pem.write_to_path(str(found.key))
    client.private_key_and_cert_chain_pem.write_to_path(str(found.client))
    return found


def get(gateway: Gateway, files: Files, *, with_certificate: bool) -> int:
    context = ssl.create_default_context(cafile=str(files.ca))
    if with_certificate:
        context.load_cert_chain(str(files.client))
    with httpx.Client(verify=context, trust_env=False) as client:
        return client.get(f"https://{gateway.http}/health/live").status_code


def list_models(gateway: Gateway, files: Files, *, with_certificate: bool) -> list[str]:
    client = files.client.read_bytes() if with_certificate else None
    credentials = grpc.ssl_channel_credentials(files.ca.read_bytes(), client, client)
    with grpc.secure_channel(gateway.grpc, credentials) as channel:
        return list(autoglm_pb2_grpc.AutoGLMStub(channel).ListModels(pb.ListModelsRequest(), timeout=5).names)


def test_both_ports_speak_tls(files: Files):
    with running_gateway("--fake", "--tls-cert", str(files.cert), "--tls-key", str(files.key)) as gateway:
        assert get(gateway, files, with_certificate=False) == 200
        assert list_models(gateway, files, with_certificate=False)


def test_mutual_tls_turns_away_a_caller_without_a_certificate(files: Files):
    arguments = ("--tls-cert", str(files.cert), "--tls-key", str(files.key), "--tls-client-ca", str(files.ca))
    with running_gateway("--fake", *arguments) as gateway:
        assert get(gateway, files, with_certificate=True) == 200
        assert list_models(gateway, files, with_certificate=True)
        with pytest.raises(httpx.TransportError):
            get(gateway, files, with_certificate=False)
        with pytest.raises(grpc.RpcError) as refused:
            list_models(gateway, files, with_certificate=False)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="belong together"):
        TlsFiles(tls_cert="cert")
    with pytest.raises(ValueError, match="needs --tls-cert"):
        TlsFiles(tls_client_ca="ca")
    with pytest.raises(ValueError, match="there is no file"):
        TlsFiles(tls_cert=str(tmp_path / "none"), tls_key=str(tmp_path / "none"))
