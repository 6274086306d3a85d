from __future__ import annotations

import httpx
from tests.gateway.processes import Gateway

from autoglm_gateway.openai_fields import KNOWN_FIELDS, UNSUPPORTED_FIELDS, WITHOUT_EFFECT_FIELDS
from autoglm_gateway.openapi import SETTINGS, TOOLS, document


def test_every_field_that_is_understood_is_described():
    assert {*SETTINGS, *TOOLS} == KNOWN_FIELDS - UNSUPPORTED_FIELDS - WITHOUT_EFFECT_FIELDS - {"messages"}


def test_every_route_that_is_described_answers_and_the_document_is_served(gateway: Gateway):
    served = httpx.get(f"http://{gateway.http}/openapi.json").json()

    assert served == document()
    for path, operations in served["paths"].items():
        url = f"http://{gateway.http}{path.format(name='autoglm-phone-9b')}"
        if "get" in operations:
            assert httpx.get(url).status_code == 200
        else:
            assert httpx.post(url, json={}).status_code == 400


def test_the_documents_page_shows_every_path_and_needs_no_script(gateway: Gateway):
    page = httpx.get(f"http://{gateway.http}/docs")

    assert all(f"<code>{path}</code>" in page.text for path in document()["paths"])
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
