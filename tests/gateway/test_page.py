"""The page at `/`: served safely, without a key, off with one flag."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
from tests.gateway.processes import Gateway, running_gateway

from autoglm_gateway.page_routes import PAGE_FOLDER


def test_page_allows_no_script_but_its_own(gateway: Gateway) -> None:
    policy = httpx.get(f"http://{gateway.http}/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy


def test_everything_the_page_names_is_there(gateway: Gateway) -> None:
    html = httpx.get(f"http://{gateway.http}/").text
    names = re.findall(r'(?:src|href)="(page/[^"]+)"', html)
    assert len(names) > 5
    for name in names:
        answer = httpx.get(f"http://{gateway.http}/{name}")
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_page_links_nothing_on_other_hosts() -> None:
    for file in PAGE_FOLDER.rglob("*"):
        if file.suffix in (".html", ".css", ".js"):
            text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "http://" not in text
            assert "https://" not in text.replace("on https:// and on", "")


def test_path_outside_the_page_is_not_served(gateway: Gateway) -> None:
    assert httpx.get(f"http://{gateway.http}/page/..%2fsettings.py").status_code == 404


def test_page_can_be_turned_off() -> None:
    with running_gateway("--fake", "--no-page") as gateway:
        assert httpx.get(f"http://{gateway.http}/").status_code == 404
        assert httpx.get(f"http://{gateway.http}/page/main.js").status_code == 404


def test_page_needs_no_key_where_the_api_does(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"name": "a", "sha256": "0" * 64}]}))
    with running_gateway("--fake", "--api-keys-file", str(keys)) as gateway:
        assert httpx.get(f"http://{gateway.http}/").status_code == 200
        assert httpx.get(f"http://{gateway.http}/page/main.js").status_code == 200
        assert httpx.get(f"http://{gateway.http}/v1/models").status_code == 401
