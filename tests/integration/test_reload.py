"""A reload starts an experiment; a bad file changes nothing; nobody loses a request."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import httpx
import pytest
import yaml

from tests.support import http_clients
from tests.support.conformance import primary_engine
from tests.support.persistent_clients import Clients
from tests.support.programs import MakeNginx, MakeSidecar, Sidecar, until
from tests.support.shared_sidecar import HELLO, exclusive_use

ERROR = [{"at": "inbound", "error": 503}]


@pytest.fixture
def sidecar(plain_sidecars: Callable[[str], Sidecar], engine: str) -> Iterator[Sidecar]:
    with exclusive_use(plain_sidecars(engine)) as sidecar:
        yield sidecar


def code(sidecar: Sidecar, who: str) -> int:
    return http_clients.get(sidecar.url, headers={"x-user-id": who}).status_code


def gets(sidecar: Sidecar, who: str, status: int) -> bool:
    return code(sidecar, who) == status


def test_a_new_file_acts_within_a_second_of_its_rename(
    sidecar: Sidecar, name: str, user: Callable[..., str]
) -> None:
    who = user("experiment", name)
    assert code(sidecar, who) == 200
    sidecar.experiment(name, faults=ERROR)
    start = time.monotonic()
    until(lambda: code(sidecar, who) == 503)
    assert time.monotonic() - start < 1


def test_removing_the_file_ends_it(sidecar: Sidecar, name: str, user: Callable[..., str]) -> None:
    sidecar.running(name, faults=ERROR)
    (sidecar.directory / "experiments" / f"{name}.yaml").unlink()
    until(lambda: code(sidecar, user("experiment", name)) == 200)
    assert sidecar.state(name) is None


@pytest.mark.parametrize("way", ["hangup", "api"])
def test_a_reload_can_be_asked_for(
    sidecar: Sidecar, name: str, user: Callable[..., str], way: str
) -> None:
    sidecar.experiment(name, faults=ERROR)
    if way == "api":
        sidecar.post("/-/reload")
    else:
        assert sidecar.process is not None
        sidecar.process.send_signal(signal.SIGHUP)
    until(lambda: code(sidecar, user("experiment", name)) == 503)


def test_a_bad_file_changes_nothing_and_says_what_is_wrong(
    sidecar: Sidecar, name: str, user: Callable[..., str]
) -> None:
    sidecar.running(name, faults=ERROR)
    sidecar.experiment("y", faults=[{"at": "nowhere", "latencey": "1s"}])
    until(lambda: sidecar.metric("counterfault_config_last_reload_successful") == 0)
    with pytest.raises(Exception, match="422"):
        sidecar.post("/-/reload")
    assert (sidecar.state(name), sidecar.state("y")) == ("running", None)
    assert code(sidecar, user("experiment", name)) == 503
    assert "unknown fault 'latencey'" in sidecar.log.read_text()
    (sidecar.directory / "experiments" / "y.yaml").unlink()
    until(lambda: sidecar.metric("counterfault_config_last_reload_successful") == 1)
    assert sidecar.state(name) == "running"


def test_kubernetes_swaps_are_seen(sidecar: Sidecar, name: str, user: Callable[..., str]) -> None:
    """A ConfigMap's files are links through `..data`, which is replaced as a whole."""
    experiments = sidecar.directory / "experiments"
    for generation, fault in enumerate([503, 418]):
        real = experiments / f"..{generation}"
        real.mkdir()
        said = sidecar.said(name, faults=[{"at": "inbound", "error": fault}])
        (real / f"{name}.yaml").write_text(yaml.safe_dump(said))
        (experiments / "..new").symlink_to(real.name)
        (experiments / "..new").rename(experiments / "..data")
        if generation == 0:
            (experiments / f"{name}.yaml").symlink_to(f"..data/{name}.yaml")
        until(partial(gets, sidecar, user("experiment", name), fault))


def test_a_new_listener_is_opened_and_a_removed_one_is_closed(
    sidecar: Sidecar,
    make_nginx: MakeNginx,
    free_port: Callable[[], int],
) -> None:
    other, port = make_nginx('location / { return 200 "other"; }'), free_port()
    listener = {"listen": f"127.0.0.1:{port}", "upstream": other.url}
    sidecar.settings["listeners"]["other"] = listener
    sidecar.write_settings()

    def answer() -> str:
        try:
            return http_clients.get(f"http://127.0.0.1:{port}/").text
        except httpx.TransportError:
            return "none"

    until(lambda: answer() == "other")
    del sidecar.settings["listeners"]["other"]
    sidecar.write_settings()
    until(lambda: answer() == "none")
    assert http_clients.get(sidecar.url).text == "hello"


def test_a_port_that_is_taken_is_refused_and_changes_nothing(
    sidecar: Sidecar, make_nginx: MakeNginx
) -> None:
    taken = make_nginx(HELLO)
    listener = {"listen": f"127.0.0.1:{taken.port}", "upstream": "http://127.0.0.1:1"}
    sidecar.settings["listeners"]["other"] = listener
    sidecar.write_settings()
    until(lambda: sidecar.metric("counterfault_config_last_reload_successful") == 0)
    assert "Address already in use" in sidecar.log.read_text()
    assert http_clients.get(sidecar.url).text == "hello"
    assert http_clients.get(taken.url).text == "hello"


@primary_engine("envoy")
def test_ten_reloads_a_second_under_load_lose_no_request(
    make_sidecar: MakeSidecar,
    make_nginx: MakeNginx,
    engine: str,
    user: Callable[..., str],
) -> None:
    sidecar = make_sidecar(make_nginx(HELLO).url, engine=engine, workers=2).start()
    loads = [
        Clients(sidecar.url, connection, user(cohort))
        for cohort in ("control", "bystander")
        for connection in ("keep-alive", "close")
    ]
    with ExitStack() as stack:
        for load in loads:
            stack.enter_context(load)
        for number in range(30):
            sidecar.experiment(faults=ERROR, hypothesis=f"Reload {number}")
            sidecar.post("/-/reload")
            time.sleep(0.1 - (time.monotonic() % 0.1))
        until(lambda: all(load.count > 50 for load in loads))
    assert [load.wrong for load in loads] == [[]] * 4
