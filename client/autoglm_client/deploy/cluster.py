"""One API server: paths in, plain JSON objects out, failures as sentences."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import kubernetes.client
import kubernetes.config
import urllib3
import yaml

from autoglm_client.deploy.errors import (
    ClusterError,
    DeployError,
    ForbiddenError,
    NotFoundError,
    UnauthorizedError,
    UnreachableError,
)
from autoglm_client.deploy.objects import Object, parts

_TIMEOUT_S = (10.0, 60.0)  # to connect, to read
_STREAM_TIMEOUT_S = (10.0, None)
# the packages have no types
_client = cast("Any", kubernetes.client)
_config = cast("Any", kubernetes.config)

_NO_KUBECONFIG = (
    "no cluster is configured: neither --kubeconfig, KUBECONFIG nor ~/.kube/config names one. Get a kubeconfig from "
    "whoever runs the cluster (a managed one writes it by its own command line), and `kubectl get nodes` must work."
)


class Cluster:
    """A connection. Every method raises ClusterError (or one of its kinds), or UnreachableError."""

    def __init__(self, api: Any, *, context: str, namespace: str = "default") -> None:
        self._api = api
        self.context = context
        self.namespace = namespace

    @property
    def url(self) -> str:
        return str(self._api.configuration.host)

    def get(self, path: str, **query: str) -> Object:
        return self._json("GET", path, query, None)

    def find(self, path: str, **query: str) -> Object | None:
        """None where there is no such object."""
        try:
            return self.get(path, **query)
        except NotFoundError:
            return None

    def items(self, path: str, **query: str) -> list[Object]:
        return parts(self.get(path, **query), "items")

    def create(self, path: str, body: Mapping[str, Any], **query: str) -> Object:
        return self._json("POST", path, query, dict(body))

    def lines(self, path: str, **query: str) -> Iterator[str]:
        """The lines of an answer that may not end, such as a log that is followed."""
        response = self._request("GET", path, query, None, _STREAM_TIMEOUT_S)
        rest = ""
        for piece in response.response.stream(65536, decode_content=True):
            *whole, rest = (rest + piece.decode(errors="replace")).split("\n")
            yield from whole
        if rest:
            yield rest

    def _json(self, method: str, path: str, query: Mapping[str, str], body: Object | None) -> Object:
        return json.loads(self._request(method, path, query, body, _TIMEOUT_S).read())

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        timeout_s: tuple[float, float | None],
    ) -> Any:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        request = self._api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = self._api.call_api(*request, _request_timeout=timeout_s)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise UnreachableError(
                f"the API server at {self.url} (context {self.context}) does not answer: {reason}. Is it the right "
                "context, is the cluster up, and is a VPN needed?"
            ) from error
        if response.status >= 400:
            raise _refusal(response.status, response.read(), self.context)
        return response


def connect(kubeconfig: Path | None, context: str | None) -> Cluster:
    """The cluster that kubectl would use; inside a pod without a kubeconfig, the pod's own. Raises DeployError."""
    configuration = _client.Configuration()
    configuration.retries = False
    chosen = kubeconfig_path(kubeconfig)
    if chosen is None:
        if "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise DeployError(_NO_KUBECONFIG)
        _config.load_incluster_config(client_configuration=configuration)
        return Cluster(_client.ApiClient(configuration), context="in-cluster")
    try:
        contexts, active = _config.list_kube_config_contexts(config_file=chosen)
        _config.load_kube_config(config_file=chosen, context=context, client_configuration=configuration)
    except (_config.ConfigException, OSError, yaml.YAMLError) as error:
        raise DeployError(f"the kubeconfig {chosen} cannot be used: {error}") from error
    chosen_context = next(item for item in contexts if item["name"] == context) if context else active
    return Cluster(
        _client.ApiClient(configuration),
        context=str(chosen_context["name"]),
        namespace=str(chosen_context["context"].get("namespace") or "default"),
    )


def kubeconfig_path(given: Path | None) -> str | None:
    """As kubectl looks for it; KUBECONFIG may name several. None where there is none. Raises DeployError."""
    if given is not None:
        if not given.is_file():
            raise DeployError(f"--kubeconfig {given} is not a file.")
        return str(given)
    named = os.environ.get("KUBECONFIG", "")
    paths = [path for path in named.split(os.pathsep) if path] or [str(Path.home() / ".kube" / "config")]
    return os.pathsep.join(paths) if any(Path(path).is_file() for path in paths) else None


def _refusal(status: int, body: bytes, context: str) -> ClusterError:
    try:
        message = str(json.loads(body).get("message") or body.decode())
    except (ValueError, AttributeError):  # a proxy's page, say
        message = body.decode(errors="replace")[:300]
    if status == 401:
        return UnauthorizedError(
            f"the API server does not accept the credentials of context {context}: log in again, they may have expired."
        )
    if status == 403:
        return ForbiddenError(message)
    if status == 404:
        return NotFoundError(message)
    return ClusterError(f"the API server answered {status}: {message}")
