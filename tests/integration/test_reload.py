"""A reload starts an experiment; a bad file changes nothing; nobody loses a request."""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import yaml
from clients import Clients
from programs import MakeNginx, MakeSidecar, Sidecar

ERROR = [{"at": "inbound", "error": 503}]
HELLO = 'location / { return 200 "hello"; }'


@pytest.fixture
def sidecar(make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str) -> Sidecar:
    return make_sidecar(make_nginx(HELLO).url, engine=engine).start()


def code(sidecar: Sidecar, who: str) -> int:
    return httpx.get(sidecar.url, headers={"x-user-id": who}).status_code


def test_a_new_file_acts_within_a_second_of_its_rename(
    sidecar: Sidecar, user: Callable[..., str], until: Callable[..., Any]
) -> None:
    who = user("experiment")
    assert code(sidecar, who) == 200
    sidecar.experiment(faults=ERROR)
    start = time.monotonic()
    until(lambda: code(sidecar, who) == 503)
    assert time.monotonic() - start < 1


def test_removing_the_file_ends_it(
    sidecar: Sidecar, user: Callable[..., str], until: Callable[..., Any]
) -> None:
    sidecar.running(faults=ERROR)
    (sidecar.directory / "experiments" / "x.yaml").unlink()
    until(lambda: code(sidecar, user("experiment")) == 200)
    assert sidecar.state() is None


@pytest.mark.parametrize("way", ["hangup", "api"])
def test_a_reload_can_be_asked_for(
    sidecar: Sidecar, user: Callable[..., str], until: Callable[..., Any], way: str
) -> None:
    sidecar.experiment(faults=ERROR)
    if way == "api":
        sidecar.post("/-/reload")
    else:
        assert sidecar.process is not None
        sidecar.process.send_signal(signal.SIGHUP)
    until(lambda: code(sidecar, user("experiment")) == 503)


def test_a_bad_file_changes_nothing_and_says_what_is_wrong(
    sidecar: Sidecar, user: Callable[..., str], until: Callable[..., Any]
) -> None:
    sidecar.running(faults=ERROR)
    sidecar.experiment("y", faults=[{"at": "nowhere", "latencey": "1s"}])
    until(lambda: sidecar.metric("counterfault_config_last_reload_successful") == 0)
    with pytest.raises(Exception, match="422"):
        sidecar.post("/-/reload")
    assert (sidecar.state("x"), sidecar.state("y")) == ("running", None)
    assert code(sidecar, user("experiment")) == 503
    assert "unknown fault 'latencey'" in sidecar.log.read_text()
    (sidecar.directory / "experiments" / "y.yaml").unlink()
    until(lambda: sidecar.metric("counterfault_config_last_reload_successful") == 1)
    assert sidecar.state("x") == "running"


def test_kubernetes_swaps_are_seen(
    sidecar: Sidecar, user: Callable[..., str], until: Callable[..., Any]
) -> None:
    """A ConfigMap's files are links through `..data`, which is replaced as a whole."""
    experiments = sidecar.directory / "experiments"
    for generation, fault in enumerate([503, 418]):
        real = experiments / f"..{generation}"
        real.mkdir()
        said = sidecar.said(faults=[{"at": "inbound", "error": fault}])
        (real / "x.yaml").write_text(yaml.safe_dump(said))
        (experiments / "..new").symlink_to(real.name)
        (experiments / "..new").rename(experiments / "..data")
        if generation == 0:
            (experiments / "x.yaml").symlink_to("..data/x.yaml")
        until(lambda fault=fault: code(sidecar, user("experiment")) == fault)


def test_a_new_listener_is_opened_and_a_removed_one_is_closed(
    sidecar: Sidecar,
    make_nginx: MakeNginx,
    free_port: Callable[[], int],
    until: Callable[..., Any],
) -> None:
    other, port = make_nginx('location / { return 200 "other"; }'), free_port()
    listener = {"listen": f"127.0.0.1:{port}", "upstream": other.url}
    sidecar.settings["listeners"]["other"] = listener
    sidecar.write_settings()

    def answer() -> str:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/").text
        except httpx.TransportError:
            return "none"

    until(lambda: answer() == "other")
    del sidecar.settings["listeners"]["other"]
    sidecar.write_settings()
    until(lambda: answer() == "none")
    assert httpx.get(sidecar.url).text == "hello"


def test_a_port_that_is_taken_is_refused_and_changes_nothing(
    sidecar: Sidecar, make_nginx: MakeNginx, until: Callable[..., Any]
) -> None:
    taken = make_nginx(HELLO)
    listener = {"listen": f"127.0.0.1:{taken.port}", "upstream": "http://127.0.0.1:1"}
    sidecar.settings["listeners"]["other"] = listener
    sidecar.write_settings()
    until(lambda: sidecar.metric("counterfault_config_last_reload_successful") == 0)
    assert "Address already in use" in sidecar.log.read_text()
    assert httpx.get(sidecar.url).text == "hello"
    assert httpx.get(taken.url).text == "hello"


def test_ten_reloads_a_second_under_load_lose_no_request(
    make_sidecar: MakeSidecar,
    make_nginx: MakeNginx,
    engine: str,
    user: Callable[..., str],
    until: Callable[..., Any],
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
