"""Fetching media from http(s) URLs that strangers choose: not from private addresses, not too much, not too long.

A name is resolved here, every address of it is checked, and the connection goes to the checked address, so that a
second look-up cannot answer differently. Redirects run the same checks.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx

from autoglm_gateway.deadline import within
from autoglm_gateway.draft import MediaKind, MediaRef
from autoglm_protocol.errors import InvalidRequestError

MAX_REDIRECTS = 3
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_CONNECTIONS = 64

Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """Every address of a name. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class MediaFetcher:
    """`hosts` are names, *.suffixes or "*"; none means that nothing may be fetched."""

    def __init__(
        self,
        *,
        hosts: tuple[str, ...],
        timeout_s: float,
        private_addresses: bool,
        resolve: Resolve = resolve,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._hosts = hosts
        self._timeout_s = timeout_s
        self._private_addresses = private_addresses
        self._resolve = resolve
        self._client = httpx.AsyncClient(
            transport=transport,
            trust_env=False,  # a proxy would do the look-up, and undo the checks
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=_MAX_CONNECTIONS),
            headers={"user-agent": "autoglm-gateway", "accept-encoding": "identity"},
        )

    async def fetch(self, ref: MediaRef, *, max_bytes: int) -> tuple[bytes, str]:
        """The file and its media type. Raises InvalidRequestError: invalid_*_url, failed_to_download_* or too large."""
        assert ref.url is not None
        try:
            return await within(self._fetch(ref, ref.url, max_bytes), self._timeout_s)
        except asyncio.TimeoutError:
            raise _failed(ref, f"did not arrive within {self._timeout_s:g} s") from None
        except (httpx.HTTPError, OSError) as error:
            raise _failed(ref, "could not be downloaded") from error

    async def close(self) -> None:
        await self._client.aclose()

    async def _fetch(self, ref: MediaRef, url: str, max_bytes: int) -> tuple[bytes, str]:
        for _ in range(MAX_REDIRECTS + 1):
            target, address = await self._check(ref, url)
            request = self._client.build_request(
                "GET",
                _pinned(target, address),
                headers={"host": target.netloc},
                extensions={"sni_hostname": target.hostname},
            )
            response = await self._client.send(request, stream=True)
            try:
                if response.status_code in _REDIRECTS:
                    url = urljoin(url, response.headers.get("location", ""))
                    continue
                if response.status_code != 200:
                    raise _failed(ref, f"could not be downloaded: status {response.status_code}")
                data = await self._body(ref, response, max_bytes)
                return data, response.headers.get("content-type", "").partition(";")[0].strip().lower()
            finally:
                await response.aclose()
        raise _failed(ref, f"was redirected more than {MAX_REDIRECTS} times")

    async def _body(self, ref: MediaRef, response: httpx.Response, max_bytes: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > max_bytes:
                raise InvalidRequestError(
                    f"{ref.param} leads to more than {max_bytes} bytes",
                    code=f"{ref.kind.value}_file_too_large",
                    param=ref.param,
                )
            chunks.append(chunk)
        return b"".join(chunks)

    async def _check(self, ref: MediaRef, url: str) -> tuple[SplitResult, str]:
        try:
            target = urlsplit(url)
            port = target.port or (443 if target.scheme == "https" else 80)
        except ValueError:
            raise _invalid(ref, "is no valid URL") from None
        if target.scheme not in ("http", "https") or not target.hostname:
            raise _invalid(ref, "must be a data:, http: or https: URL")
        if target.username is not None:
            raise _invalid(ref, "must not hold a user name")
        if not any(_matches(target.hostname, pattern) for pattern in self._hosts):
            raise _invalid(ref, "leads to a host that this server does not fetch from")
        addresses = await self._resolve(target.hostname, port)
        if not self._private_addresses and not all(is_public(address) for address in addresses):
            # The same words for every private address: the answer must not map our network.
            raise _invalid(ref, "leads to a host that this server does not fetch from")
        return target, addresses[0]


def is_public(address: str) -> bool:
    """False for private, loopback, link-local, multicast and other special addresses, also inside IPv6 wrappings."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(ip.packed[-4:])
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _matches(host: str, pattern: str) -> bool:
    pattern = pattern.lower()
    return pattern in ("*", host) or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def _pinned(target: SplitResult, address: str) -> httpx.URL:
    host = f"[{address}]" if ":" in address else address
    netloc = host if target.port is None else f"{host}:{target.port}"
    return httpx.URL(target._replace(netloc=netloc, fragment="").geturl())


def _invalid(ref: MediaRef, why: str) -> InvalidRequestError:
    code = "invalid_image_url" if ref.kind is MediaKind.IMAGE else "invalid_audio_url"
    return InvalidRequestError(f"{ref.param} {why}", code=code, param=ref.param)


def _failed(ref: MediaRef, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"{ref.param} {why}", code=f"failed_to_download_{ref.kind.value}", param=ref.param)
