"""The one place that fetches images by http: only from allowed hosts, and only from public addresses.

A host is resolved once, every address it has must be public, and exactly those addresses are dialled, under the
original name (Host header, SNI, certificate). Nothing of the environment is used: no proxies, cookies or credentials.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from insightv.errors import TooManyOpenFiles
from insightv.inputs.image_error import ImageError, shorten

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]

# Ranges through which an IPv4 address, a private one too, is reached under a global-looking IPv6 address.
_CARRIERS = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "::/96",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
    )
)
_REDIRECTS = (301, 302, 303, 307, 308)


def is_public(address: Address) -> bool:
    """Whether an address is a plain public one: global, unicast, and no carrier of another address."""
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return address not in ipaddress.IPv4Network("192.88.99.0/24")  # the relays of 6to4
    return not address.is_site_local and not any(address in network for network in _CARRIERS)


async def resolve(host: str, port: int) -> list[str]:
    """Every address of a host, by the system's resolver."""
    answer: Future[list[str]] = Future()
    answer.set_running_or_notify_cancel()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answer.set_exception(error)
        else:
            answer.set_result(list(dict.fromkeys(str(entry[4][0]) for entry in found)))

    # Nothing makes the resolver stop. The loop's own threads are waited for when the loop ends, a daemon is not.
    threading.Thread(target=look_up, name="insightv-resolve", daemon=True).start()
    return await asyncio.wrap_future(answer)


@dataclass(frozen=True, slots=True)
class FetchRules:
    """What may be fetched. `deadline_s` and `max_bytes` bound one image with its redirects.

    `ports`, `reachable` and `resolve` are the rule that nothing private is reached; loopback tests set their own.
    """

    hosts: frozenset[str]
    max_bytes: int
    deadline_s: float = 20.0
    redirects: int = 3
    ports: frozenset[int] = frozenset({80, 443})
    reachable: Callable[[Address], bool] = is_public
    resolve: Resolve = resolve


def fetch(url: str, rules: FetchRules) -> bytes:
    """The body at `url`; blocking, works with and without a running event loop.

    Raises:
        ImageError: remote_refused where the rules forbid it, remote_failed where the server does not deliver.
    """
    # asyncio.run refuses a thread that has a running loop; a thread of its own never has one.
    with ThreadPoolExecutor(1, thread_name_prefix="insightv-fetch") as thread:
        try:
            return thread.submit(_fetched, url, rules).result()
        except OSError as error:  # of the loop itself
            TooManyOpenFiles.raise_if_behind(error, shorten(url))
            raise


def _fetched(url: str, rules: FetchRules) -> bytes:
    return asyncio.run(afetch(url, rules))


async def afetch(url: str, rules: FetchRules) -> bytes:
    """As `fetch`, on the running loop."""
    import aiohttp

    try:
        async with asyncio.timeout(rules.deadline_s):
            return await _follow(url, rules)
    except TimeoutError:
        raise ImageError("remote_failed", f"{shorten(url)} did not arrive within {rules.deadline_s:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        TooManyOpenFiles.raise_if_behind(getattr(error, "os_error", error), shorten(url))
        raise ImageError("remote_failed", f"{shorten(url)} cannot be fetched ({type(error).__name__})") from None


async def _follow(url: str, rules: FetchRules) -> bytes:
    target = _parsed(url)
    for _ in range(rules.redirects + 1):
        addresses = await _checked(target, rules)
        answer = await _get(target, addresses, rules)
        if isinstance(answer, bytes):
            return answer
        following = _parsed(str(target.join(_parsed(answer, relative=True))))
        if target.scheme == "https" and following.scheme != "https":
            raise ImageError("remote_refused", f"{shorten(url)} leads from https to http")
        target = following
    raise ImageError("remote_refused", f"{shorten(url)} is redirected more than {rules.redirects} times")


def _parsed(url: str, *, relative: bool = False) -> URL:
    """By the parser that the client itself dials by, so that the check and the call cannot disagree."""
    from yarl import URL

    name = shorten(url)
    if "\\" in url or any(ord(character) <= 32 or ord(character) == 127 for character in url):
        raise ImageError("remote_refused", f"{name} has a backslash, a space or a control character")
    try:
        parsed = URL(url)
        port = parsed.port
    except ValueError:
        raise ImageError("remote_refused", f"{name} is not a valid address") from None
    if relative and not parsed.absolute:
        return parsed
    if parsed.scheme not in ("http", "https") or not parsed.host or not port:
        raise ImageError("remote_refused", f"{name} is not an http or https address")
    if parsed.user is not None or parsed.password is not None:
        raise ImageError("remote_refused", f"an address at {shorten(parsed.host)} holds a user name or a password")
    return parsed


async def _checked(url: URL, rules: FetchRules) -> list[str]:
    """The addresses to dial for `url`, all of them allowed."""
    name, host = shorten(str(url)), (url.host or "").lower().rstrip(".")
    if not any(_allows(rule.lower(), host) for rule in rules.hosts):
        raise ImageError("remote_not_allowed", f"{name}: the host {shorten(host)} is not among the allowed ones")
    if url.port not in rules.ports:
        raise ImageError("remote_refused", f"{name}: port {url.port} is not one of {sorted(rules.ports)}")
    try:
        addresses = await rules.resolve(host, url.port or 0)
    except (OSError, UnicodeError) as error:
        TooManyOpenFiles.raise_if_behind(error, name)
        raise ImageError("remote_failed", f"{name}: the host {shorten(host)} is not known") from None
    for text in addresses:
        try:
            allowed = "%" not in text and rules.reachable(ipaddress.ip_address(text))
        except ValueError:
            allowed = False
        if not allowed:
            raise ImageError("remote_refused", f"{name}: the host {shorten(host)} has an address that is not public")
    if not addresses:
        raise ImageError("remote_failed", f"{name}: the host {shorten(host)} has no address")
    return addresses


def _allows(rule: str, host: str) -> bool:
    if rule == "*":
        return True
    return host.endswith(rule[1:]) if rule.startswith("*.") else host == rule


def _session(url: URL, addresses: list[str]) -> aiohttp.ClientSession:
    """A client that reaches `addresses` and nothing else."""
    import aiohttp
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Pinned(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            if host.lower().rstrip(".") != (url.host or "").lower().rstrip("."):
                raise OSError("another host than the one that was checked")
            families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
            return [
                ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
                for address, kind in zip(addresses, families, strict=True)
            ]

        async def close(self) -> None:
            return None

    connector = aiohttp.TCPConnector(resolver=Pinned(), use_dns_cache=False, force_close=True)
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
    )


async def _get(url: URL, addresses: list[str], rules: FetchRules) -> bytes | str:
    """The body, or where a redirect leads."""
    name = shorten(str(url))
    headers = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "insightv"}
    async with _session(url, addresses) as session, session.get(url, headers=headers, allow_redirects=False) as reply:
        if reply.status in _REDIRECTS and "Location" in reply.headers:
            return reply.headers["Location"]
        if reply.status != 200:
            raise ImageError("remote_failed", f"{name} was answered with status {reply.status}")
        if reply.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise ImageError("remote_failed", f"{name} came compressed, which was not asked for")
        body = bytearray()
        async for chunk in reply.content.iter_chunked(65536):
            body += chunk
            if len(body) > rules.max_bytes:
                raise ImageError("too_large_bytes", f"{name} is larger than the limit of {rules.max_bytes} bytes")
        return bytes(body)
