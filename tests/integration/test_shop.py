"""The demo's shop as real processes, with stand-ins for the services that misbehave."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from counterfault.proxy.demo.services import BACKENDS

DEADLINE = 30.0
BAGGAGE = "counterfault.tag=slow.experiment.7"
TEAPOT = {"id": 3, "name": "Teapot", "cents": 500}


@dataclass
class StandIn:
    """A service that answers always the same, or hangs until the test is over."""

    status: int = 200
    answer: Any = None
    hangs: bool = False
    heard: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def serving(self) -> Iterator[str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            self.over.set()
            server.shutdown()
            server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                stand_in.heard.append((self.path, headers))
                self.rfile.read(int(headers.get("content-length", 0)))
                if stand_in.hangs:
                    stand_in.over.wait(DEADLINE)
                    return
                body = json.dumps(stand_in.answer).encode()
                self.send_response(stand_in.status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@dataclass
class Answer:
    """What a shopper gets."""

    status: int
    body: Any


def ask(port: int, path: str, body: Any = None) -> Answer:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
        connection.request(
            "GET" if body is None else "POST",
            path,
            None if body is None else json.dumps(body),
            {"x-user-id": "user-17", "baggage": BAGGAGE},
        )
        answer = connection.getresponse()
        return Answer(answer.status, json.loads(answer.read()))


@contextmanager
def process(service: str, **urls: str) -> Iterator[int]:
    """A service's real process; its port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    arguments = [service, "--port", str(port)]
    arguments += [x for name, url in urls.items() for x in (f"--{name}", url)]
    child = subprocess.Popen([sys.executable, "-m", "counterfault.proxy.demo.shop", *arguments])
    try:
        _until_up(child, port)
        yield port
        child.send_signal(signal.SIGTERM)
        assert child.wait(DEADLINE) == 0
    finally:
        child.kill()
        child.wait()


def _until_up(child: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        assert child.poll() is None
        try:
            assert ask(port, "/healthz") == Answer(200, {"status": "ok"})
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"no answer at port {port}")


type OpenShop = Callable[..., int]


@pytest.fixture
def open_shop() -> Iterator[OpenShop]:
    """Opens a storefront, with a stand-in or else a real process for each service."""
    with ExitStack() as stack:

        def backend(name: str, stand_in: StandIn | None) -> str:
            if stand_in is not None:
                return stack.enter_context(stand_in.serving())
            return f"http://127.0.0.1:{stack.enter_context(process(name))}"

        def shop(**stand_ins: StandIn) -> int:
            urls = {name: backend(name, stand_ins.get(name)) for name in BACKENDS}
            return stack.enter_context(process("storefront", **urls))

        yield shop


def test_the_whole_shop_works(open_shop: OpenShop) -> None:
    port = open_shop()
    home, product = ask(port, "/"), ask(port, "/product/3")
    assert len(home.body["catalog"]["products"]) == 10
    assert product.body["catalog"]["id"] == 3
    assert home.body["recommended"]["from"] in ("recommendations", "bestsellers")
    price = product.body["catalog"]["cents"]
    assert ask(port, "/checkout", {"product": 3}) == Answer(200, {"product": 3, "paid": price})


def test_unknown_products_and_bad_orders_are_the_users_fault(open_shop: OpenShop) -> None:
    port = open_shop(recommendations=StandIn(answer={"products": []}))
    assert ask(port, "/product/51").status == 404
    assert ask(port, "/checkout", {"product": 51}).status == 404
    assert ask(port, "/checkout", {"basket": 3}).status == 400


@pytest.mark.parametrize(
    "misbehaving",
    [
        StandIn(hangs=True),
        StandIn(status=503, answer={}),
        StandIn(answer={"error": "a 200 without products"}),
        StandIn(answer=["no object"]),
    ],
    ids=["hangs", "fails", "says nonsense", "says something else"],
)
def test_bestsellers_stand_in_for_recommendations(
    open_shop: OpenShop, misbehaving: StandIn
) -> None:
    port = open_shop(
        catalog=StandIn(answer=TEAPOT), payments=StandIn(), recommendations=misbehaving
    )
    page = ask(port, "/product/3")
    assert page.status == 200
    assert page.body["catalog"] == TEAPOT
    assert page.body["recommended"]["from"] == "bestsellers"
    assert page.body["recommended"]["products"]


def test_a_checkout_fails_with_502_when_payments_fail(open_shop: OpenShop) -> None:
    port = open_shop(
        catalog=StandIn(answer=TEAPOT),
        payments=StandIn(status=503, answer={}),
        recommendations=StandIn(answer={"products": []}),
    )
    assert ask(port, "/checkout", {"product": 3}).status == 502
    assert ask(port, "/product/3").status == 200


def test_a_page_fails_with_502_when_the_catalog_fails(open_shop: OpenShop) -> None:
    port = open_shop(
        catalog=StandIn(status=500, answer={}),
        payments=StandIn(),
        recommendations=StandIn(answer={"products": []}),
    )
    assert ask(port, "/").status == 502


def test_the_cohorts_tag_and_the_user_are_handed_down(open_shop: OpenShop) -> None:
    services = {
        "catalog": StandIn(answer=TEAPOT),
        "payments": StandIn(answer={"paid": 500}),
        "recommendations": StandIn(answer={"products": []}),
    }
    port = open_shop(**services)
    assert ask(port, "/").status == 200
    assert ask(port, "/checkout", {"product": 3}).status == 200
    for service, path in [
        ("catalog", "/products"),
        ("catalog", "/products/3"),
        ("recommendations", "/for/user-17"),
        ("payments", "/charge"),
    ]:
        headers = dict(services[service].heard)[path]
        assert (headers["baggage"], headers["x-user-id"]) == (BAGGAGE, "user-17")
