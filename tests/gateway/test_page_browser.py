"""The page in headless Chromium, against the fake backend: what a person does first, and what goes wrong."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.gateway.processes import Gateway, running_gateway

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
expect.set_options(timeout=30_000)  # milliseconds; a busy machine is slow, and waiting costs nothing when it is not
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and "AUTOGLM_NEED_CHROMIUM" not in os.environ, reason="Chromium is not installed (make test-page)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = [
            *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
            *(["--no-sandbox"] if os.getuid() == 0 else []),  # Chromium refuses its sandbox to root
        ]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, gateway: Gateway) -> Iterator[Page]:
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"http://{gateway.http}")
    yield page
    page.close()
    assert errors == []


def test_instruction_on_an_example_ends_in_a_marked_tap(page: Page) -> None:
    page.click('[data-example="settings.png"]')
    expect(page.locator("#picture")).to_be_visible()
    page.fill("#instruction", "Tap the back icon")
    page.press("#instruction", "Enter")
    expect(page.locator("#action")).to_have_text(re.compile(r"^Tap \(\d+, \d+\)$"))
    expect(page.locator("#marks path")).to_have_count(4)
    expect(page.locator("#figures dd").first).to_have_text(re.compile(r"^[\d.]+ m?s$"))


def test_mark_stands_where_the_action_says(page: Page) -> None:
    page.click('[data-example="settings.png"]')
    page.fill("#instruction", "Tap the back icon")
    page.click("#send")
    expect(page.locator("#marks path")).to_have_count(4)
    x, y = map(int, re.findall(r"\d+", page.inner_text("#action")))
    picture, target = page.locator("#picture").bounding_box(), page.locator("#marks path").last.bounding_box()
    assert picture is not None
    assert target is not None
    natural = page.evaluate("[picture.naturalWidth, picture.naturalHeight]")
    scale = min(picture["width"] / natural[0], picture["height"] / natural[1])
    left = picture["x"] + (picture["width"] - natural[0] * scale) / 2
    top = picture["y"] + (picture["height"] - natural[1] * scale) / 2
    assert target["x"] + target["width"] / 2 == pytest.approx(left + x / 999 * natural[0] * scale, abs=2)
    assert target["y"] + target["height"] / 2 == pytest.approx(top + y / 999 * natural[1] * scale, abs=2)


def test_plan_names_what_ran(page: Page) -> None:
    page.fill("#instruction", "Go back")
    page.click("#send")
    expect(page.locator("#encoders li").first).to_have_text("vision encoder skipped")


def test_empty_instruction_is_asked_for(page: Page) -> None:
    page.click("#send")
    expect(page.get_by_role("alert")).to_have_text("Type or speak an instruction first.")


def test_refusal_shows_the_api_s_own_words(page: Page) -> None:
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(
            status=400,
            content_type="application/json",
            body=json.dumps({"error": {"message": "depth is 7, must be 6"}}),
        ),
    )
    page.fill("#instruction", "Go back")
    page.click("#send")
    expect(page.get_by_role("alert")).to_have_text("depth is 7, must be 6")
    expect(page.locator("#send")).to_be_enabled()


def test_markup_from_the_model_stays_text(page: Page) -> None:
    body = 'data: {"choices":[{"index":0,"delta":{"content":"<img src=x onerror=alert(1)>"}}]}\n\ndata: [DONE]\n\n'
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    page.fill("#instruction", "Go back")
    page.click("#send")
    expect(page.locator("#action")).to_have_text("<img src=x onerror=alert(1)>")
    expect(page.locator("#action img")).to_have_count(0)


def test_recording_is_sent_as_a_wav(page: Page) -> None:
    page.click("#record")
    expect(page.locator("#record-text")).to_have_text("Stop (1 s)")
    page.click("#record")
    expect(page.locator("#playback")).to_be_visible()
    with page.expect_request("**/v1/chat/completions") as sent:
        page.click("#send")
    sound = sent.value.post_data_json["messages"][0]["content"][0]
    assert sound["type"] == "input_audio"
    assert sound["input_audio"]["data"].startswith("UklGR")  # base64 of RIFF
    expect(page.locator("#figures div").first).to_be_visible()


def test_stop_ends_a_slow_answer(browser: Browser) -> None:
    with running_gateway("--fake", "--fake-ttft-s", "600") as gateway:
        page = browser.new_page()
        page.goto(f"http://{gateway.http}")
        page.fill("#instruction", "Go back")
        page.click("#send")
        page.click("#stop")
        expect(page.get_by_role("alert")).to_have_text("Stopped.")
        page.close()


def test_missing_key_is_asked_for_and_used(browser: Browser, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"name": "a", "sha256": hashlib.sha256(b"secret").hexdigest()}]}))
    with running_gateway("--fake", "--api-keys-file", str(keys)) as gateway:
        page = browser.new_page()
        page.goto(f"http://{gateway.http}")
        page.fill("#instruction", "Go back")
        page.click("#send")
        expect(page.locator("#key")).to_be_visible()
        page.fill("#key", "secret")
        page.click("#send")
        expect(page.locator("#figures div").first).to_be_visible()
        page.close()
