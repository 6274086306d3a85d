"""The Kubernetes API as tests use it: paths, plain objects, and waiting on a watch."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

Object = dict[str, Any]


class Api:
    """An administrator's connection to one API server."""

    def __init__(self, url: str, *, ca_file: str, cert_file: str, key_file: str) -> None:
        tls = ssl.create_default_context(cafile=ca_file)
        tls.load_cert_chain(cert_file, key_file)
        self.http = httpx.Client(base_url=url, verify=tls, timeout=60.0)

    def close(self) -> None:
        self.http.close()

    def get(self, path: str, **parameters: str) -> Object:
        return _checked(self.http.get(path, params=parameters)).json()

    def list(self, path: str, **parameters: str) -> list[Object]:
        return self.get(path, **parameters)["items"]

    def create(self, path: str, created: Object, **parameters: str) -> httpx.Response:
        """The response, refusals included."""
        return self.http.post(path, json=created, params=parameters)

    def must_create(self, path: str, created: Object) -> Object:
        return _checked(self.create(path, created)).json()

    def patch(self, path: str, change: Object, *, content_type: str = "application/merge-patch+json") -> Object:
        return _checked(
            self.http.patch(path, content=json.dumps(change), headers={"content-type": content_type})
        ).json()

    def delete(self, path: str) -> None:
        _checked(self.http.delete(path))

    def namespace(self, name: str, *, pod_security: str = "restricted") -> str:
        """Makes a namespace that enforces that Pod Security Standard."""
        levels = {f"pod-security.kubernetes.io/{mode}": pod_security for mode in ("enforce", "warn")}
        self.must_create(
            "/api/v1/namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": levels}},
        )
        return name

    def pods(self, namespace: str, component: str = "triton") -> list[Object]:
        return self.list(pods_path(namespace), labelSelector=f"app.kubernetes.io/component={component}")

    def evict(self, namespace: str, pod: str) -> int:
        """The HTTP status: 201 accepted, 429 refused by a disruption budget."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
        return self.create(f"{pods_path(namespace)}/{pod}/eviction", eviction).status_code

    def wait_until_evictable(self, namespace: str) -> None:
        """Waits until every disruption budget allows one eviction; they lag behind pods that became ready just now."""

        def all_allow_one(budgets: list[Object]) -> bool:
            return all(budget.get("status", {}).get("disruptionsAllowed") for budget in budgets)

        self.wait_for(f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets", all_allow_one)

    def wait_for(
        self, path: str, is_so: Callable[[list[Object]], bool], *, timeout_s: float = 240.0, **parameters: str
    ) -> list[Object]:
        """The objects under `path` once `is_so` of them. Raises TimeoutError with what there was."""
        deadline_s = time.monotonic() + timeout_s
        found: dict[str, Object] = {}
        while True:
            page = self.get(path, **parameters)
            found = {item["metadata"]["uid"]: item for item in page["items"]}
            if is_so(list(found.values())):
                return list(found.values())
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"{path} after {timeout_s} s: {_summary(list(found.values()))}")
            watch = {
                "watch": "1",
                "resourceVersion": page["metadata"]["resourceVersion"],
                "timeoutSeconds": str(max(1, int(left_s))),
            }
            with self.http.stream("GET", path, params={**parameters, **watch}, timeout=left_s + 10) as stream:
                for line in stream.iter_lines():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        break
                    uid = event["object"]["metadata"]["uid"]
                    found.pop(uid, None)
                    if event["type"] != "DELETED":
                        found[uid] = event["object"]
                    if is_so(list(found.values())):
                        return list(found.values())

    def wait_for_pods(
        self, namespace: str, count: int, *, component: str = "triton", timeout_s: float = 240.0
    ) -> list[Object]:
        """Waits until exactly that many pods of the component exist, all ready and none on its way out."""

        def settled(pods: list[Object]) -> bool:
            return len(pods) == count and all(is_ready(pod) and not is_leaving(pod) for pod in pods)

        selector = f"app.kubernetes.io/component={component}"
        return self.wait_for(pods_path(namespace), settled, timeout_s=timeout_s, labelSelector=selector)


def pods_path(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def apps_path(namespace: str, kind: str = "deployments") -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/{kind}"


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def is_leaving(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def node_of(pod: Object) -> str | None:
    return pod["spec"].get("nodeName")


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise AssertionError(f"{response.request.method} {response.request.url}: {response.text}")
    return response


def _summary(objects: Sequence[Object]) -> str:
    lines = [
        json.dumps({"name": o["metadata"]["name"], "node": node_of(o) if "spec" in o else None, **o.get("status", {})})
        for o in objects
    ]
    return f"{len(objects)} objects\n" + "\n".join(line[:600] for line in lines[:20])
