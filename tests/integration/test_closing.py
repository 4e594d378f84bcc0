"""Ports that close: nobody who has been let in is lost, also of those who come just then."""

import socket

import httpx
import pytest

from tests.support.programs import MakeNginx, MakeSidecar, Sidecar, free_port, until
from tests.support.shared_sidecar import HELLO
from tests.support.wrk_load import under_wrk_load

KINDS = {"keep-alive": (), "close": ("Connection: close",)}


@pytest.fixture(params=KINDS)
def headers(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return KINDS[request.param]


def test_sigterm_loses_no_request(
    make_sidecar: MakeSidecar,
    make_nginx: MakeNginx,
    engine: str,
    headers: tuple[str, ...],
) -> None:
    sidecar = make_sidecar(make_nginx(HELLO).url, engine=engine, workers=2).start()
    with under_wrk_load(sidecar.url, *headers) as clients:
        until(lambda: requests(sidecar) > 500)
        assert sidecar.stop() == 0
    assert (clients.lost, clients.wrong) == (0, 0)
    assert clients.answered > 500


def test_a_reload_that_takes_a_listener_away_loses_no_request(
    make_sidecar: MakeSidecar,
    make_nginx: MakeNginx,
    engine: str,
    headers: tuple[str, ...],
) -> None:
    upstream, port = make_nginx(HELLO).url, free_port()
    other = {"listen": f"127.0.0.1:{port}", "upstream": upstream}
    sidecar = make_sidecar(upstream, engine=engine, workers=2, listeners={"other": other}).start()
    with (
        under_wrk_load(f"http://127.0.0.1:{port}", *headers) as leaving,
        under_wrk_load(sidecar.url) as staying,
    ):
        until(lambda: requests(sidecar, listener="other") > 200)
        del sidecar.settings["listeners"]["other"]
        sidecar.write_settings()
        until(lambda: refused("127.0.0.1", port))
        before = requests(sidecar, listener="inbound")
        until(lambda: requests(sidecar, listener="inbound") > before + 200)
    assert (leaving.lost, leaving.wrong) == (0, 0)
    assert (staying.lost, staying.wrong) == (0, 0)


@pytest.mark.parametrize(
    ("listen", "served", "not_served"),
    [("[::]", ("127.0.0.1", "::1"), ()), ("[::1]", ("::1",), ("127.0.0.1",))],
)
def test_ipv6_and_where_all_addresses_are_meant_ipv4_too(
    make_sidecar: MakeSidecar,
    make_nginx: MakeNginx,
    engine: str,
    listen: str,
    served: tuple[str, ...],
    not_served: tuple[str, ...],
) -> None:
    upstream, port = make_nginx(HELLO).url, free_port()
    other = {"listen": f"{listen}:{port}", "upstream": upstream}
    make_sidecar(upstream, engine=engine, listeners={"other": other}).start()
    for host in served:
        where = f"[{host}]" if ":" in host else host
        assert httpx.get(f"http://{where}:{port}").status_code == 200
    assert [refused(host, port) for host in not_served] == [True] * len(not_served)


def requests(sidecar: Sidecar, **labels: str) -> float:
    return sidecar.metric("counterfault_requests_total", **labels)


def refused(host: str, port: int) -> bool:
    """Whether there is no listener; one that is shut for a moment lets us wait."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        return sock.connect_ex((host, port)) != 0
