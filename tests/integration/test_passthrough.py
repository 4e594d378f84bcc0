"""Whoever is not in the experiment cohort gets, and sends, what it would without us."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from tests.support import http_clients
from tests.support.cases import each
from tests.support.http1_wire import connect, read_all, read_answer, read_chunked, read_head
from tests.support.passthrough_sidecar import (
    CODINGS,
    PEOPLE,
    STATUSES,
    World,
    each_person,
    lines,
    port_of,
    undated,
)

HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade"}
# Answers as no well-known server gives them.
ODD = {
    "reason": b"HTTP/1.1 200 Jolly Good\r\ncontent-length: 2\r\n\r\nhi",
    "no reason": b"HTTP/1.1 299 \r\ncontent-length: 2\r\n\r\nhi",
    "case": b"HTTP/1.1 200 OK\r\nX-CaSe: A\r\nx-case: b\r\nContent-LENGTH: 0\r\n\r\n",
    "empty value": b"HTTP/1.1 200 OK\r\nX-Empty: \r\ncontent-length: 0\r\n\r\n",
    "bytes": b"HTTP/1.1 200 OK\r\nx-name: caf\xe9 \xf0\x9f\x98\x80\r\ncontent-length: 0\r\n\r\n",
    "long": b"HTTP/1.1 200 OK\r\nx-long: " + b"a" * 30_000 + b"\r\ncontent-length: 0\r\n\r\n",
    "cookies": b"HTTP/1.1 200 OK\r\n"
    + b"".join(b"Set-Cookie: c%d=%d; Path=/\r\n" % (i, i) for i in range(20))
    + b"content-length: 0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n",
    "not modified": b'HTTP/1.1 304 Not Modified\r\netag: "a"\r\ncontent-length: 99\r\n\r\n',
    "until the end": b"HTTP/1.1 200 OK\r\nx-a: b\r\n\r\nuntil I close",
    "1.0": b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nold",
    "chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "trailers": b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\nx-sum: 42\r\nx-more: a\r\n\r\n",
    "hints": b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nlink: </b.css>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
}
TARGETS = [
    "/",
    "/a%2Fb",
    "/a%20b",
    "//a//b/",
    "/..%2f..%2Fetc",
    "/a/../b/./c",
    "/a;v=1;w/b;x",
    "/?a=1&b=%26&c=&d",
    "/a?",
    "/a??b=?",
    "/%e2%82%ac/€",
    "/a#b",
    "/~!$&'()*+,=:@|^`{}[]\\",
    "/" + "a" * 4000 + "?q=" + "b%3D" * 4000,
    "*",
    "http://shop.test/absolute?a=b",
]
# What Envoy says instead, the `date` aside that it adds where there is none.
ENVOYS_ODD = {
    "no reason": ODD["no reason"].replace(b"299 ", b"299 Unknown"),
    "case": ODD["case"].replace(b"x-case", b"X-CaSe"),  # as it was spelt first
    "until the end": b"HTTP/1.1 200 OK\r\nx-a: b\r\ntransfer-encoding: chunked\r\n\r\n"
    b"d\r\nuntil I close\r\n0\r\n\r\n",
    "1.0": ODD["1.0"].replace(b"HTTP/1.0", b"HTTP/1.1"),
    "trailers": b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\nx-sum: 42\r\nx-more: a\r\n\r\n",
    "hints": ODD["hints"].replace(b"HTTP/1.1 103 Early Hints\r\nlink: </b.css>\r\n\r\n", b""),
}
ENVOY_REFUSES = {"/%e2%82%ac/€", "/a#b", "*"}
HEADERS = [
    b"HOST: Shop.Test:8080\r\n",
    b"Host: shop.test\r\nX-MiXeD: Case\r\naccept: a\r\nACCEPT: b\r\nAccept: c\r\n",
    b"x-before: 1\r\nHost: shop.test\r\nX-Empty: \r\nX-Tab: a\tb\r\n",
    b"Host: shop.test\r\nx-name: caf\xe9\r\n",
    b"Host: shop.test\r\nConnection: keep-alive\r\nAccept-Encoding: gzip, br\r\n",
    b"Host: shop.test\r\nX-Forwarded-For: 10.0.0.1\r\nVia: 1.1 x\r\nForwarded: for=a\r\n",
    b"Host: shop.test\r\nx_under_score: 1\r\nx.dot: 2\r\n",
    b"Host: shop.test\r\nCookie: a=1; b=2\r\nCookie: c=3\r\n",
    b"Host: shop.test\r\ntraceparent: 00-4bf9-00f0-01\r\nx-long: " + b"y" * 20_000 + b"\r\n",
    b"Host: shop.test\r\nContent-Length: 0\r\n",
]


@pytest.fixture(scope="module")
def world(passthrough_worlds: Callable[[str], World], engine: str) -> World:
    return passthrough_worlds(engine)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with http_clients.Client(timeout=20) as client:
        yield client


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer as a client saw it, the hop's own headers and the clock aside."""

    version: str
    status: int
    reason: str
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]


type Same = Callable[..., Seen]


@pytest.fixture
def same(world: World, client: httpx.Client) -> Same:
    """Asks the upstream itself and asks through us; the answers must be equal."""

    def ask(base: str, method: str, target: str, headers: dict[str, str], **more: Any) -> Seen:
        named = {"host": "shop.test", **headers}
        raw = {"target": target.encode()}
        request = client.build_request(method, base, headers=named, extensions=raw, **more)
        del request.headers["connection"]  # which applications repeat
        answer = client.send(request, stream=True)
        body = b"".join(answer.iter_raw())
        kept = [(k, v) for k, v in answer.headers.raw if k.lower() not in HOP_BY_HOP | {b"date"}]
        return Seen(answer.http_version, answer.status_code, answer.reason_phrase, kept, body)

    def same(upstream: str, *request: Any, **more: Any) -> Seen:
        directly = ask(world.direct[upstream], *request, **more)
        through = ask(world.through(upstream), *request, **more)
        if world.engine == "envoy" and not directly.reason:
            through = replace(through, reason="")  # Envoy finds one
        assert through == directly
        return through

    return same


# --- answers


@each_person
def test_every_status_is_the_upstreams(same: Same, person: dict[str, str]):
    for status in STATUSES if person is PEOPLE["control"] else STATUSES[::9]:
        assert same("nginx", "GET", f"/code/{status}", person).status == status


def test_every_status_of_an_application_is_its_own(same: Same):
    for status in range(200, 600, 7):
        assert same("httpbin", "GET", f"/status/{status}", PEOPLE["control"]).status == status


@each("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
@each_person
def test_every_method_is_answered_as_by_the_application(
    same: Same, person: dict[str, str], method: str
):
    path = "/html" if method in ("GET", "HEAD", "OPTIONS") else "/status/418"
    same("httpbin", method, path, person)


@each("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_an_application_is_told_it_repeats(same: Same, method: str):
    content = '{"a": [1, 2, {"b": "é"}]}'.encode()
    headers = {"content-type": "application/json", **PEOPLE["bystander"]}
    seen = same("httpbin", method, "/anything/a?x=1&x=2&y=%26", headers, content=content)
    assert b'"method": "%s"' % method.encode() in seen.body


@each_person
def test_a_method_of_ones_own_passes(
    same: Same, world: World, client: httpx.Client, person: dict[str, str]
):
    if world.engine == "envoy":  # over HTTP/1 it passes what others have registered
        assert client.request("BREW", world.through("nginx"), headers=person).status_code == 400
        assert same("nginx", "PROPFIND", "/method", person).body == b"PROPFIND"
    else:
        assert same("nginx", "BREW", "/method", person).body == b"BREW"


@each("status", [301, 302, 303, 307, 308])
@each_person
def test_redirects_are_the_clients_to_follow(same: Same, person: dict[str, str], status: int):
    seen = same("httpbin", "GET", f"/redirect-to?url=%2Fget&status_code={status}", person)
    assert (seen.status, seen.all(b"location")) == (status, [b"/get"])


@each_person
def test_absolute_redirects_name_the_host_the_client_named(same: Same, person: dict[str, str]):
    seen = same("httpbin", "GET", "/absolute-redirect/2", person)
    assert seen.all(b"location") == [b"http://shop.test/absolute-redirect/1"]


@each_person
def test_a_directory_redirects_to_its_trailing_slash(same: Same, person: dict[str, str]):
    seen = same("nginx", "GET", "/dir", person)
    assert (seen.status, seen.all(b"location")[0][-5:]) == (301, b"/dir/")


@each_person
def test_set_cookies_keep_number_and_order(same: Same, person: dict[str, str]):
    seen = same("httpbin", "GET", "/cookies/set?c=3&a=1&b=2", person)
    assert [value[:4] for value in seen.all(b"set-cookie")] == [b"c=3;", b"a=1;", b"b=2;"]
    assert same("nginx", "GET", "/cookies", person).all(b"set-cookie") == [b"a=1", b"b=2"]


def test_cookies_reach_the_application(same: Same):
    headers = {"cookie": "session=abc; theme=dark; odd=%3D=;", **PEOPLE["bystander"]}
    assert b"dark" in same("httpbin", "GET", "/cookies", headers).body


@each_person
def test_conditional_requests_are_answered_without_a_body(same: Same, person: dict[str, str]):
    etag = same("nginx", "GET", "/file", person).all(b"etag")[0].decode()
    seen = same("nginx", "GET", "/file", {**person, "if-none-match": etag})
    assert (seen.status, seen.body) == (304, b"")
    seen = same("httpbin", "GET", "/etag/abc", {**person, "if-none-match": '"abc"'})
    assert (seen.status, seen.body) == (304, b"")


@each_person
def test_ranges_are_partial(same: Same, person: dict[str, str]):
    seen = same("nginx", "GET", "/file", {**person, "range": "bytes=10-19"})
    assert (seen.status, seen.body) == (206, bytes(range(10, 20)))


@each_person
def test_a_head_request_has_the_length_and_no_body(same: Same, person: dict[str, str]):
    seen = same("nginx", "HEAD", "/file", person)
    assert (seen.all(b"content-length"), seen.body) == ([b"10240"], b"")


@each("coding", CODINGS)
@each_person
def test_compressed_bodies_stay_compressed(
    same: Same, world: World, person: dict[str, str], coding: str
):
    seen = same("nginx", "GET", f"/{coding}", {**person, "accept-encoding": coding})
    assert seen.all(b"content-encoding") == [coding.encode()]
    assert seen.body == (world.www / coding).read_bytes()


@each_person
def test_what_is_compressed_on_the_way_has_the_same_bytes(same: Same, person: dict[str, str]):
    seen = same("nginx", "GET", "/live", {**person, "accept-encoding": "gzip"})
    assert seen.all(b"content-encoding") == [b"gzip"]


@each("coding", ["gzip", "deflate", "brotli"])
@each_person
def test_what_an_application_compresses_can_be_read(
    world: World, client: httpx.Client, person: dict[str, str], coding: str
):
    answer = client.get(f"{world.through('httpbin')}/{coding}", headers=person)
    assert answer.json()["method"] == "GET"


@each("path", ["/stream/20", "/stream-bytes/50000?seed=1&chunk_size=777"])
def test_chunked_answers_have_the_same_bytes(same: Same, path: str):
    assert len(same("httpbin", "GET", path, PEOPLE["bystander"]).body) > 1000


@each("odd", ODD)
@each_person
def test_odd_answers_come_as_they_are(world: World, person: dict[str, str], odd: str):
    def script(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(ODD[odd])

    world.stage.play(script)
    with world.connect("stage") as sock:
        last = b"Connection: close\r\n" + lines(person)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n%s\r\n" % last)
        got = read_all(sock)
    if world.engine == "envoy":
        got = undated(got).replace(b"connection: close\r\n", b"")
        assert got == ENVOYS_ODD.get(odd, ODD[odd])
    else:
        assert got == ODD[odd]


# --- requests


def heads(world: World, head: bytes, body: bytes = b"") -> tuple[bytes, bytes]:
    """A request's head as it is directly and as it comes through us, the tag taken out."""
    seen = []
    for url in (world.direct["echo"], world.through("echo")):
        with connect(port_of(url)) as sock:
            sock.sendall(head + body)
            seen.append(read_answer(sock).body)
    directly, through = seen
    if PEOPLE["control"]["x-user-id"].encode() in head:
        through, tag = through.split(b"x-counterfault: x.control.", 1)
        through += tag.split(b"\r\n", 2)[2]
    return directly, through


def arriving(world: World, head: bytes) -> bytes:
    """A request's head as it is to come through us."""
    if world.engine != "envoy":
        return head
    # Envoy writes the hop's own headers anew, Host comes first, `accept` is one, and of nothing the
    # length is told.
    line, *fields = head.replace(b" http://shop.test/", b" /").splitlines(keepends=True)[:-1]
    host = [field for field in fields if field.lower().startswith(b"host:")]
    framing = [field for field in fields if field.startswith(b"Transfer-Encoding:")]
    if line.startswith(b"POST ") and not framing and b"Content-Length" not in head:
        framing = [b"content-length: 0\r\n"]
    rest = [f for f in fields if f not in (*host, *framing) and not f.startswith(b"Connection:")]
    joined = b"".join(rest).replace(b"accept: a\r\nACCEPT: b\r\nAccept: c", b"accept: a,b,c")
    return b"".join((line, *host, joined, *framing, b"\r\n"))


@each("target", TARGETS)
@each_person
def test_the_target_stays_as_it_was_written(world: World, person: dict[str, str], target: str):
    head = b"GET %s HTTP/1.1\r\nHost: shop.test\r\n%s\r\n" % (target.encode(), lines(person))
    if world.engine == "envoy" and target in ENVOY_REFUSES:
        with world.connect("echo") as sock:
            sock.sendall(head)
            assert read_answer(sock).status == 400
        return
    directly, through = heads(world, head)
    assert (directly, through) == (head, arriving(world, head))


@each_person
def test_options_of_the_server_as_a_whole(world: World, person: dict[str, str]):
    """Which Envoy passes to no route."""
    head = b"OPTIONS * HTTP/1.1\r\nHost: shop.test\r\n%s\r\n" % lines(person)
    with world.connect("echo") as sock:
        sock.sendall(head)
        answer = read_answer(sock)
    if world.engine == "envoy":
        assert answer.status == 404
    else:
        assert answer.body.startswith(b"OPTIONS * HTTP/1.1\r\n")


@each("target", [target for target in TARGETS[:10] if ".." not in target])
@each_person
def test_nginx_gets_the_target_it_would_get(same: Same, person: dict[str, str], target: str):
    assert same("nginx", "GET", f"/target{target}", person).body == f"/target{target}".encode()


@each("header", HEADERS)
@each_person
def test_headers_keep_order_number_case_and_bytes(
    world: World, person: dict[str, str], header: bytes
):
    head = b"POST /a HTTP/1.1\r\n%s%s\r\n" % (header, lines(person))
    directly, through = heads(world, head)
    assert (directly, through) == (head, arriving(world, head))


def test_baggage_of_others_stays(world: World):
    head = b"GET / HTTP/1.1\r\nHost: a\r\nbaggage: a=1;p=q, b=2\r\n\r\n"
    directly, through = heads(world, head)
    assert (directly, through) == (head, arriving(world, head))


@each_person
def test_chunked_requests_stay_chunked(world: World, person: dict[str, str]):
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n%s\r\n" % lines(person)
    directly, through = heads(world, head, b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
    assert (directly, through) == (head, arriving(world, head))


@each("trailers", [b"", b"x-sum: 42\r\nX-More: a\r\n"])
@each_person
def test_chunks_and_trailers_of_a_request_arrive(
    world: World, person: dict[str, str], trailers: bytes
):
    body = b"2\r\nhi\r\nc\r\nthere, world\r\n0\r\n" + trailers + b"\r\n"
    got = []

    def script(sock: socket.socket) -> None:
        read_head(sock)
        got.append(read_chunked(sock))
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    world.stage.play(script)
    with world.connect("stage") as sock:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n%s\r\n" % lines(person)
        sock.sendall(head + body)
        assert read_answer(sock).status == 200
    if world.engine == "envoy":  # what comes together is one chunk, names of trailers are small
        assert got == [b"e\r\nhithere, world\r\n0\r\n" + trailers.lower() + b"\r\n"]
    else:
        assert got == [body]
