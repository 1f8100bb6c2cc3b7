"""Where the servers are and how to sign in: base_urls checked and cleaned, the key from the environment."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from insightv.errors import ConfigError, TooManyOpenFiles
from insightv.redact import MASK, Redactor

PUBLIC_API = "https://api.openai.com/v1"
LOOK_S = 4.0
"""The longest time for a look at a server, at which nothing is asked of its model."""
EXAMPLE = "write it like 'http://localhost:8000/v1'"
Proxy = Literal["none", "environment"]
"""Whether the proxies that the environment names are used."""


@dataclass(frozen=True, slots=True)
class Address:
    """A server: its URL without userinfo, the headers that sign in, and the secrets in them."""

    url: str
    headers: dict[str, str] = field(repr=False, default_factory=dict)
    secrets: tuple[str, ...] = field(repr=False, default=())


def addresses_of(base_url: str | Sequence[str] | None, key: str | None, api_key_env: str) -> list[Address]:
    """The servers of a setting; without one that of OPENAI_BASE_URL, or the public API.

    Userinfo of a URL signs in by HTTP Basic, in place of the key.

    Raises:
        ConfigError: a URL cannot be used, or the public API has no key.
    """
    if base_url is None:
        base_url = os.environ.get("OPENAI_BASE_URL", "").strip() or PUBLIC_API
    urls = [base_url] if isinstance(base_url, str) else list(base_url)
    if not urls:
        raise ConfigError("base_url is an empty list; give at least one URL, or leave base_url out")
    found: dict[str, Address] = {}
    for url in urls:
        address = _address(url, key)
        if address.url.startswith(PUBLIC_API) and not address.headers:
            raise ConfigError(
                f"the environment variable {api_key_env} is not set, and {PUBLIC_API} needs a key; "
                "set it, or set base_url to your own server"
            )
        found.setdefault(address.url, address)
    return list(found.values())


def check_amounts(**amounts: float) -> None:
    """Check that options are positive numbers.

    Raises:
        ConfigError: one is not.
    """
    for name, amount in amounts.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount < float("inf"):
            raise ConfigError(f"{name} is {amount!r}; it must be a positive number")


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a URL by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

    This machine has none whatever they say: a proxy cannot reach its servers.
    """
    parts, named = urlsplit(url), getproxies_environment()
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy or _is_loopback(parts.hostname or "") or proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def check_proxy(url: str) -> None:
    """See that the proxy which the environment names for a URL, if any, is one that can be used.

    Raises:
        ConfigError: it cannot.
    """
    proxy = proxy_of(url)
    if proxy is None:
        return
    kind = proxy.partition("://")[0]
    if kind.lower() not in ("http", "https"):
        raise ConfigError(
            f"the environment names a {kind[:20]} proxy for {url}; only http and https proxies can be used: set "
            'HTTP_PROXY and HTTPS_PROXY to one, or proxy = "none"'
        )
    try:
        hostname, _ = urlsplit(proxy).hostname, urlsplit(proxy).port
    except ValueError:
        hostname = None
    if not hostname:
        raise ConfigError(
            f"the proxy that the environment names for {url} is no URL; write it like 'http://proxy.example:3128', or "
            'set proxy = "none"'
        )


def unused_proxy(url: str) -> str:
    """What to add to the text on a server that was not reached directly: that there is a proxy, and how to use it."""
    if proxy_of(url) is None:
        return ""
    return '; the proxy that the environment names was not used: set proxy = "environment" in [run] to use it'


async def unreached(address: Address, proxy: Proxy = "none") -> str | None:
    """Why nothing listens at an address, or at the proxy to it; None where something does. No request is sent.

    Raises:
        ConfigError: its host is no name that a network could know.
    """
    through = proxy_of(address.url) if proxy == "environment" else None
    parts = urlsplit(through or address.url)
    place = f"the proxy of the environment for {address.url}" if through else address.url
    hint = "" if through else unused_proxy(address.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(LOOK_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except TimeoutError:
        return f"{place} did not answer within {LOOK_S:g} s{hint}"
    except OSError as error:
        TooManyOpenFiles.raise_if_behind(error, f"a connection to {place}")
        return f"{place}: {error.strerror or error}{hint}"
    except UnicodeError:  # what the encoding of names for the network refuses: labels that are empty or too long
        raise ConfigError(f"{place} names a host that cannot be; {EXAMPLE}") from None
    writer.close()
    return None


async def reach_any(
    addresses: Iterable[Address], fault_of: Callable[[Address], Awaitable[str | None]] = unreached
) -> None:
    """Check that one of the addresses has no fault, which is that something listens unless told otherwise.

    Raises:
        ConfigError: each has one; the text names them.
    """
    faults = await asyncio.gather(*map(fault_of, addresses))
    if all(faults):
        raise ConfigError(f"no server can be reached: {'; '.join(map(str, faults))}; start it, or correct base_url")


def key_from(api_key_env: str) -> str | None:
    """The key in an environment variable; None where it is not set or blank.

    Raises:
        ConfigError: it holds characters that no key has.
    """
    key = os.environ.get(api_key_env, "").strip()
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(f"the key in {api_key_env} holds blanks or characters outside ASCII; set it anew")
    return key or None


def _address(url: object, key: str | None) -> Address:
    if not isinstance(url, str):
        raise ConfigError(f"base_url holds {url!r}, which is not a URL; {EXAMPLE}")
    parts = _split(url.strip())
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    clean = f"{parts.scheme.lower()}://{host}{port}{parts.path}".rstrip("/").removesuffix("/chat/completions")
    if parts.username is not None:
        user, password = unquote(parts.username), unquote(parts.password or "")
        pair = f"{user}:{password}"
        token = base64.b64encode(pair.encode()).decode()
        secrets = (pair, password, parts.password or "", user)
        return Address(clean, {"Authorization": f"Basic {token}"}, secrets)
    if key is None:
        return Address(clean)
    return Address(clean, {"Authorization": f"Bearer {key}"}, (key,))


def _split(url: str) -> SplitResult:
    _, at, rest = url.rpartition("@")
    rest, cut, _ = rest.replace("#", "?").partition("?")  # a key may stand there
    shown = Redactor().clean((f"{MASK}@{rest}" if at else rest) + ("?..." if cut else ""), 200)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ConfigError(f"base_url {shown!r} is not a URL; {EXAMPLE}") from None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"base_url {shown!r} is not an http or https URL; {EXAMPLE}")
    if parts.query or parts.fragment:
        raise ConfigError(f"base_url {shown!r} has a query or a fragment, which cannot be kept; {EXAMPLE}")
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
