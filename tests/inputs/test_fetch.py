"""The fetcher of images: what it never connects to, and what it takes from a server that it may ask."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from insightv.inputs.fetch import FetchRules, afetch, fetch, is_public, resolve
from insightv.inputs.images import ImageError, open_picture

from . import hostile

ANY = FetchRules(hosts=frozenset({"*"}), max_bytes=2**20, deadline_s=10)
STILL = hostile.encoded(hostile.photo(), "PNG")


class Server:
    """A raw TCP server on loopback: keeps what it was sent, and answers what `answer` says."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(connection,)).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            try:
                request = connection.recv(65536)
                self.requests.append(request)
                reply = self.answer(request)
                if reply is None:
                    time.sleep(3)
                elif reply.startswith(b"DRIP"):
                    connection.sendall(reply[4:])
                    for _ in range(30):
                        connection.sendall(b"x")
                        time.sleep(0.1)
                else:
                    connection.sendall(reply)
            except OSError:
                return

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


def reply(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[bytes], bytes | None]], Server]]:
    servers: list[Server] = []

    def start(answer: Callable[[bytes], bytes | None]) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def rules_for(server: Server, **changes: object) -> FetchRules:
    """Loopback stands for a public server; every name has its address."""

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    given = replace(ANY, ports=frozenset({server.port}), reachable=lambda address: True, resolve=resolve)
    return replace(given, **changes)  # type: ignore[arg-type]  # fields by name


NEVER = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST.:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://127.127.127.127:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::ffff:0:127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b::a9fe:a9fe]:{port}/",
    "http://[64:ff9b:1::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[fe80::1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fec0::1]:{port}/",
    "http://[fc00::1]:{port}/",
    "http://[ff02::1]:{port}/",
    "http://169.254.169.254:{port}/latest/meta-data/",
    "http://10.0.0.1:{port}/",
    "http://172.16.0.1:{port}/",
    "http://192.168.0.1:{port}/",
    "http://100.64.0.1:{port}/",
    "http://192.88.99.1:{port}/",
    "http://198.18.0.1:{port}/",
    "http://224.0.0.1:{port}/",
    "http://255.255.255.255:{port}/",
    "http://user:pass@127.0.0.1:{port}/",
    "http://example.org@127.0.0.1:{port}/",
    "http://example.org:80@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@example.org/",
    "http://example.org\\@127.0.0.1:{port}/",
    "http:\\\\127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "http://:{port}/",
    "http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: x",
    "http://127.0.0.1:{port}\t/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://127。0。0。1:{port}/",
    "http://[::1:{port}/",
    "http://[v1.127.0.0.1]:{port}/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:-1/",
    "file:///etc/passwd",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/",
    "dict://127.0.0.1:{port}/",
    "unix:///var/run/docker.sock",
    "//127.0.0.1:{port}/",
]


@pytest.mark.parametrize("pattern", NEVER, ids=ascii)
def test_never_connects_to_anything_private(pattern: str, serve: Callable[..., Server]) -> None:
    canary = serve(lambda request: reply(STILL))
    url = pattern.format(port=canary.port)
    with pytest.raises(ImageError) as caught:
        fetch(url, replace(ANY, ports=frozenset({canary.port, 99999})))
    assert canary.connections == 0
    assert caught.value.code in ("remote_refused", "remote_failed"), str(caught.value)
    assert "pass" not in str(caught.value).replace("password", "").replace("/etc/passwd", "")
    with pytest.raises(ImageError):
        open_picture(url, allow_http={"*"})


@pytest.mark.parametrize("port", [22, 25, 6379, 8080, 11434, 65535])
def test_only_the_ports_of_http(port: int) -> None:
    with pytest.raises(ImageError, match=f"port {port}"):
        fetch(f"http://example.org:{port}/a.png", ANY)


def test_every_address_of_a_host_must_be_public(serve: Callable[..., Server]) -> None:
    canary = serve(lambda request: reply(STILL))

    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "127.0.0.1"]

    with pytest.raises(ImageError) as caught:
        fetch(f"http://x.example:{canary.port}/", rules_for(canary, resolve=resolve, reachable=is_public))
    assert (caught.value.code, canary.connections) == ("remote_refused", 0)


def test_a_host_is_resolved_once_and_that_address_is_dialled(serve: Callable[..., Server]) -> None:
    server = serve(lambda request: reply(STILL))
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    rules = rules_for(server, resolve=resolve, reachable=lambda address: str(address) == "127.0.0.1")
    assert fetch(f"http://images.example:{server.port}/a.png?k=v", rules) == STILL
    assert asked == ["images.example"]
    request = server.requests[0].decode()
    assert request.startswith("GET /a.png?k=v HTTP/1.1\r\n")
    assert f"\r\nHost: images.example:{server.port}\r\n" in request


def test_tls_names_the_host_and_not_the_address(serve: Callable[..., Server]) -> None:
    server = serve(lambda request: b"")
    with pytest.raises(ImageError, match="cannot be fetched"):
        fetch(f"https://images.example:{server.port}/a.png", rules_for(server))
    assert b"images.example" in server.requests[0]
    assert server.requests[0][0] == 0x16


def test_nothing_of_the_environment_is_used(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    server, canary = serve(lambda request: reply(STILL, "200 OK", "Set-Cookie: a=b")), serve(lambda request: b"")
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    for _ in range(2):
        assert fetch(f"http://images.example:{server.port}/", rules_for(server)) == STILL
    assert canary.connections == 0
    for request in server.requests:
        assert not {b"cookie", b"authorization", b"referer"} & {
            line.split(b":")[0].lower() for line in request.split(b"\r\n")
        }


REDIRECTS = [
    "http://127.0.0.1:{canary}/",
    "http://localhost:{canary}/",
    "//127.0.0.1:{canary}/",
    "http://[::ffff:127.0.0.1]:{canary}/",
    "http://user@other.example:{canary}/",
    "http://other.example:22/",
    "file:///etc/passwd",
    "ftp://other.example/",
    "data:image/png;base64,AAAA",
    "http:\\\\127.0.0.1:{canary}/",
    "",
]


@pytest.mark.parametrize("pattern", REDIRECTS)
def test_redirects_are_checked(pattern: str, serve: Callable[..., Server]) -> None:
    canary = serve(lambda request: reply(STILL))
    target = pattern.format(canary=canary.port)
    server = serve(lambda request: reply(b"", "302 Found", f"Location: {target}"))

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    def reachable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return not server.connections

    rules = rules_for(server, resolve=resolve, reachable=reachable, ports=frozenset({server.port, canary.port}))
    with pytest.raises(ImageError) as caught:
        fetch(f"http://images.example:{server.port}/", rules)
    assert caught.value.code == "remote_refused"
    assert (server.connections, canary.connections) == (1, 0)


def test_redirects_to_another_host_need_that_host_allowed(serve: Callable[..., Server]) -> None:
    canary = serve(lambda request: reply(STILL))
    server = serve(lambda request: reply(b"", "307 X", f"Location: http://other.example:{canary.port}/"))
    ports = frozenset({server.port, canary.port})
    start = f"http://a.images.example:{server.port}/"
    with pytest.raises(ImageError) as caught:
        fetch(start, rules_for(server, hosts=frozenset({"*.images.example"}), ports=ports))
    assert (caught.value.code, canary.connections) == ("remote_not_allowed", 0)
    both = frozenset({"*.images.example", "Other.Example"})
    assert fetch(start, rules_for(server, hosts=both, ports=ports)) == STILL


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("images.example", True),
        ("IMAGES.EXAMPLE.", True),
        ("a.cdn.example", True),
        ("cdn.example", False),
        ("evilcdn.example", False),
        ("images.example.evil.example", False),
        ("evil.example", False),
    ],
)
def test_hosts_are_matched_whole(host: str, allowed: bool, serve: Callable[..., Server]) -> None:
    server = serve(lambda request: reply(STILL))
    rules = rules_for(server, hosts=frozenset({"images.example", "*.cdn.example"}))
    if allowed:
        assert fetch(f"http://{host}:{server.port}/", rules) == STILL
        return
    with pytest.raises(ImageError, match="not among the allowed ones"):
        fetch(f"http://{host}:{server.port}/", rules)
    assert server.connections == 0


def test_three_redirects_and_no_more(serve: Callable[..., Server]) -> None:
    def answer(request: bytes) -> bytes:
        left = int(request.split()[1][1:])
        return reply(STILL) if left == 0 else reply(b"", "301 X", f"Location: /{left - 1}")

    server = serve(answer)
    assert fetch(f"http://images.example:{server.port}/3", rules_for(server)) == STILL
    with pytest.raises(ImageError, match="more than 3 times"):
        fetch(f"http://images.example:{server.port}/9", rules_for(server))
    assert server.connections == 8


def test_https_is_not_left_for_http() -> None:
    with pytest.raises(ImageError):
        fetch("https://127.0.0.1/", ANY)


FAULTS: dict[str, tuple[bytes | None, str]] = {
    "404": (reply(b"no", "404 Not Found"), "remote_failed"),
    "500": (reply(b"no", "500 X"), "remote_failed"),
    "206": (reply(STILL, "206 Partial Content"), "remote_failed"),
    "redirect-without-target": (reply(b"", "302 Found"), "remote_failed"),
    "cut-body": (reply(STILL)[:-20], "remote_failed"),
    "no-http": (b"SSH-2.0-OpenSSH_9.6\r\n", "remote_failed"),
    "closed": (b"", "remote_failed"),
    "hang": (None, "remote_failed"),
    "drip": (b"DRIPHTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "remote_failed"),
    "too-large": (reply(bytes(2**20 + 1)), "too_large_bytes"),
    "gzip": (reply(gzip.compress(bytes(10**8)), "200 OK", "Content-Encoding: gzip"), "remote_failed"),
    "header-flood": (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 10**6, "remote_failed"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_the_server(name: str, serve: Callable[..., Server]) -> None:
    answer, code = FAULTS[name]
    server = serve(lambda request: answer)
    started = time.monotonic()
    with pytest.raises(ImageError) as caught:
        fetch(f"http://images.example:{server.port}/a.png?token=CANARY", rules_for(server, deadline_s=1.0))
    assert caught.value.code == code
    assert "CANARY" not in str(caught.value)
    assert time.monotonic() - started < 10


def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hanging_getaddrinfo(*_: object, **__: object) -> list[object]:
        released.wait(30)
        raise socket.gaierror("released")

    monkeypatch.setattr(socket, "getaddrinfo", hanging_getaddrinfo)
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"did not arrive within 0\.3 s") as caught:
        fetch("http://hanging.example/a.png", replace(ANY, deadline_s=0.3))
    took = time.monotonic() - started
    released.set()
    assert caught.value.code == "remote_failed"
    assert took < 10


def test_the_system_s_resolver_is_asked() -> None:
    assert asyncio.run(resolve("127.0.0.1", 80)) == ["127.0.0.1"]
    with pytest.raises(ImageError, match="is not known"):
        fetch(f"http://{'x' * 64}.example/a.png", ANY)


def test_html_with_200_is_no_image() -> None:
    with pytest.raises(ImageError, match="HTML page"):
        open_picture(b"<!doctype html><p>please log in")


def test_works_inside_a_running_loop(serve: Callable[..., Server]) -> None:
    server = serve(lambda request: reply(STILL))
    url = f"http://images.example:{server.port}/"

    async def main() -> tuple[bytes, bytes]:
        return fetch(url, rules_for(server)), await afetch(url, rules_for(server))

    assert asyncio.run(main()) == (STILL, STILL)


@pytest.mark.parametrize("text", ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001::8a"])
def test_public_addresses_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))
