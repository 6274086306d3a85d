"""The page at `/`: static files from this package. They need no API key, what they call does."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

PAGE_FOLDER = Path(__file__).with_name("page")
PAGE_PATH = "/page"

# No inline script, nothing from elsewhere, no framing: whatever a model writes stays text.
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",  # asks each time and gets a 304: an upgrade shows at once
}


class _Assets(StaticFiles):
    def file_response(self, *args: object, **kwargs: object) -> Response:  # what StaticFiles lets one override
        response = super().file_response(*args, **kwargs)  # pyright: ignore[reportArgumentType]
        response.headers.update(_HEADERS)
        return response


def page_routes() -> list[BaseRoute]:
    return [Route("/", _index), Mount(PAGE_PATH, _Assets(directory=PAGE_FOLDER))]


async def _index(request: Request) -> Response:
    return FileResponse(PAGE_FOLDER / "index.html", headers=_HEADERS)
