"""TLS for both servers, and mutual TLS where callers must show a certificate of ours."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from autoglm_gateway.option import option


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files. Without a certificate both servers speak plain text."""

    tls_cert: str | None = option(None, "certificate chain (PEM) of both servers")
    tls_key: str | None = option(None, "its private key (PEM)")
    tls_client_ca: str | None = option(None, "callers must show a certificate that this CA (PEM) signed")

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key belong together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("--tls-client-ca needs --tls-cert and --tls-key")
        for path in (self.tls_cert, self.tls_key, self.tls_client_ca):
            if path is not None and not Path(path).is_file():
                raise ValueError(f"there is no file {path}")

    def uvicorn_options(self) -> dict[str, Any]:
        if self.tls_cert is None:
            return {}
        return {
            "ssl_certfile": self.tls_cert,
            "ssl_keyfile": self.tls_key,
            "ssl_ca_certs": self.tls_client_ca,
            "ssl_cert_reqs": ssl.CERT_NONE if self.tls_client_ca is None else ssl.CERT_REQUIRED,
        }

    def grpc_credentials(self) -> grpc.ServerCredentials | None:
        if self.tls_cert is None or self.tls_key is None:
            return None
        ca = None if self.tls_client_ca is None else Path(self.tls_client_ca).read_bytes()
        return grpc.ssl_server_credentials(
            [(Path(self.tls_key).read_bytes(), Path(self.tls_cert).read_bytes())],
            root_certificates=ca,
            require_client_auth=ca is not None,
        )
