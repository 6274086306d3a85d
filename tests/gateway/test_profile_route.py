"""Who may profile, and with what bounds: over real sockets, before any Triton is asked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway.processes import Gateway, running_gateway
from tests.gateway.wire import refusal


def profile(gateway: Gateway, body: Any = None, **headers: str) -> httpx.Response:
    return httpx.post(f"http://{gateway.http}/admin/profile", json=body, headers=headers)


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "via", "origin"])
def test_a_caller_behind_a_proxy_or_in_a_browser_is_not_local(gateway: Gateway, header: str):
    refusal(profile(gateway, **{header: "10.1.2.3"}), 403)


@pytest.mark.parametrize("body", [{"seconds": 1e9}, {"steps": "all"}, [], {"hours": 1}])
def test_bounds_that_are_none_are_refused(gateway: Gateway, body: Any):
    refusal(profile(gateway, body), 400)


def test_the_fake_has_nothing_to_profile(gateway: Gateway):
    assert refusal(profile(gateway), 400)["code"] == "unsupported_endpoint"


def test_where_keys_are_required_a_key_it_is_from_anywhere(tmp_path: Path):
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"name": "ops", "sha256": hashlib.sha256(b"k").hexdigest()}]}))
    with running_gateway("--fake", "--api-keys-file", str(keys)) as gateway:
        refusal(profile(gateway), 401)
        error = refusal(profile(gateway, **{"authorization": "Bearer k", "x-forwarded-for": "10.1.2.3"}), 400)

    assert error["code"] == "unsupported_endpoint"
