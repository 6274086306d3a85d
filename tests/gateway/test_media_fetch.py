"""http(s) media: fetched within limits, and never from where the server's own network lives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from tests.gateway.processes import Gateway, running_gateway
from tests.gateway.wire import chat_body, png, post, refusal, usage_of

from autoglm_gateway.draft import MediaKind, MediaRef
from autoglm_gateway.media_fetch import MediaFetcher, is_public
from autoglm_protocol.errors import InvalidRequestError

PUBLIC = "93.184.216.34"


@contextmanager
def media_host() -> Iterator[str]:
    """A web server with a picture, a redirect to it, a missing file and one that never answers."""
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/never":
                released.wait()
                return
            if self.path == "/redirect":
                self.send_response(302)
                self.send_header("location", "/picture.png")
                self.end_headers()
                return
            self.send_response(200 if self.path == "/picture.png" else 404)
            self.send_header("content-type", "image/png")
            self.end_headers()
            self.wfile.write(png())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            released.set()
            server.shutdown()
            thread.join()


def image_url(url: str) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.fixture(scope="module")
def open_gateway() -> Iterator[Gateway]:
    """A gateway that may fetch from this machine."""
    with running_gateway("--fake", "--media-private-addresses", "--media-timeout-s", "0.5") as gateway:
        yield gateway


@pytest.mark.parametrize("path", ["/picture.png", "/redirect"])
def test_a_picture_is_fetched(open_gateway: Gateway, path: str):
    with media_host() as host:
        usage = usage_of(post(open_gateway, chat_body([image_url(host + path)])))

    assert usage["prompt_tokens_details"]["image_tokens"] > 0


@pytest.mark.parametrize("path", ["/missing", "/never"])
def test_a_picture_that_cannot_be_had_is_refused(open_gateway: Gateway, path: str):
    """Check 17."""
    with media_host() as host:
        error = refusal(post(open_gateway, chat_body([image_url(host + path)])), 400)

    assert error["code"] == "failed_to_download_image"
    assert error["param"] == "messages[0].content[0].image_url.url"


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1/x.png",
        "http://localhost/x.png",
        "http://[::1]/x.png",
        "http://[::ffff:10.0.0.1]/x.png",
        "http://2130706433/x.png",
        "http://0.0.0.0/x.png",
        "http://user:secret@example.com/x.png",
        "ftp://example.com/x.png",
        "http://[bad/x.png",
        "http://example.com:99999/x.png",
    ],
)
def test_where_it_must_not_fetch_from_it_refuses(gateway: Gateway, url: str):
    """Check 16."""
    error = refusal(post(gateway, chat_body([image_url(url)])), 400)

    assert error["code"] == "invalid_image_url"
    assert "secret" not in error["message"]


def test_an_allow_list_is_the_only_way_out():
    with (
        media_host() as host,
        running_gateway("--fake", "--media-private-addresses", "--media-hosts", "a.b") as gateway,
    ):
        assert refusal(post(gateway, chat_body([image_url(host)])), 400)["code"] == "invalid_image_url"


async def fetch(url: str, *, addresses: dict[str, str], answers: dict[str, httpx.Response]) -> tuple[list[str], object]:
    """Fetch with a resolver and a network of our own; the URLs that were asked for, and the outcome."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return answers[request.headers["host"]]

    async def resolve(host: str, port: int) -> list[str]:
        return [addresses.get(host, host)]

    fetcher = MediaFetcher(
        hosts=("*",), timeout_s=5, private_addresses=False, resolve=resolve, transport=httpx.MockTransport(answer)
    )
    try:
        return asked, await fetcher.fetch(MediaRef(kind=MediaKind.IMAGE, param="x", url=url), max_bytes=100)
    except InvalidRequestError as error:
        return asked, error.code
    finally:
        await fetcher.close()


async def test_the_connection_goes_to_the_address_that_was_checked():
    answers = {"cdn.test": httpx.Response(200, stream=httpx.ByteStream(b"data"), headers={"content-type": "image/png"})}
    asked, outcome = await fetch("http://cdn.test/a?b", addresses={"cdn.test": PUBLIC}, answers=answers)

    assert asked == [f"http://{PUBLIC}/a?b"]
    assert outcome == (b"data", "image/png")


async def test_a_name_of_a_private_address_is_never_connected_to():
    """Check 16."""
    asked, outcome = await fetch("http://inner.test/", addresses={"inner.test": "192.168.0.5"}, answers={})

    assert asked == []
    assert outcome == "invalid_image_url"


@pytest.mark.parametrize(
    "location", ["http://10.0.0.1/secret", "http://inner.test/", "file:///etc/passwd", "//127.0.0.1/"]
)
async def test_a_redirect_to_a_private_address_is_not_followed(location: str):
    """Check 16."""
    answers = {"cdn.test": httpx.Response(302, headers={"location": location})}
    addresses = {"cdn.test": PUBLIC, "inner.test": "192.168.0.5"}
    asked, outcome = await fetch("http://cdn.test/", addresses=addresses, answers=answers)

    assert asked == [f"http://{PUBLIC}/"]
    assert outcome == "invalid_image_url"


async def test_redirects_do_not_go_round_for_ever():
    answers = {"cdn.test": httpx.Response(302, headers={"location": "/"})}
    asked, outcome = await fetch("http://cdn.test/", addresses={"cdn.test": PUBLIC}, answers=answers)

    assert len(asked) == 4
    assert outcome == "failed_to_download_image"


async def test_a_body_above_the_limit_is_not_read_to_its_end():
    answers = {"cdn.test": httpx.Response(200, stream=httpx.ByteStream(bytes(101)))}
    _, outcome = await fetch("http://cdn.test/", addresses={"cdn.test": PUBLIC}, answers=answers)

    assert outcome == "image_file_too_large"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        (PUBLIC, True),
        ("2606:2800:220:1::1", True),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
    ],
)
def test_special_addresses_are_not_public(address: str, public: bool):
    assert is_public(address) is public
