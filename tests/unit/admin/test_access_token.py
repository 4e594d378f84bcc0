"""The token of the admin port, over real sockets: who is let in, and what he can do."""

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from counterfault.proxy.admin import events
from counterfault.proxy.admin.access_token import SESSION_SECONDS, Token
from counterfault.proxy.admin.route import cookie_name
from counterfault.proxy.config.loader import load
from counterfault.proxy.config.model import ConfigError
from tests.support import http_clients
from tests.support.cases import each
from tests.support.supervisor_world import SLOW, World

pytestmark = pytest.mark.anyio

TOKEN = "correct-horse-battery-staple"
OTHER = "another-horse-another-staple"
PROBES = ("/metrics", "/healthz", "/readyz")
GUARDED = (
    ("GET", "/"),
    ("GET", "/api/experiments"),
    ("GET", "/api/experiments/slow"),
    ("GET", "/api/events"),
    ("GET", "/openapi.json"),
    ("GET", "/nothing"),
    ("POST", "/-/reload"),
    ("POST", "/api/stop"),
    ("POST", "/api/resume"),
    ("POST", "/api/experiments/slow/stop"),
)
FOREIGN = {"Host": "sidecar.example:9900"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "config")
    guarded = {"listen": "0.0.0.0:0", "token_file": "token", "metrics": "127.0.0.1:0"}
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "token").write_text(TOKEN + "\n")
    world.write(SLOW, admin=guarded)
    world.start()
    yield world
    world.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def untouched(world: World) -> bool:
    run = world.supervisor.registry.runs["slow"]
    return run.state == "baseline" and not world.supervisor.reader.killed


@each(("method", "path"), GUARDED)
@each(
    "headers",
    [
        {},
        bearer("x"),
        bearer(TOKEN[:-1]),
        bearer(TOKEN + "x"),
        bearer("ünïcode-ünïcode-ünïcode"),
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Cookie": f"counterfault={TOKEN}"},
        {"Cookie": "counterfault=9999999999.0"},
    ],
)
async def test_without_the_token_nothing_is_shown_or_done(world, client, method, path, headers):
    raw = {name: value.encode() for name, value in headers.items()}
    answer = await client.request(method, path, headers=raw)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="counterfault"'
    assert "slow" not in answer.text
    assert TOKEN not in answer.text
    assert untouched(world)


async def test_all_refusals_are_the_same(client):
    answers = [
        await client.get("/api/experiments", headers=headers)
        for headers in ({}, bearer("x"), bearer(OTHER), {"Cookie": "counterfault=1.2"})
    ]
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("method", "path"), GUARDED[1:])
async def test_the_token_opens_everything_under_any_name(client, method, path):
    headers = bearer(TOKEN) | FOREIGN
    async with client.stream(method, path, headers=headers) as answer:
        assert answer.status_code == (404 if path == "/nothing" else 200)


@each("path", PROBES)
async def test_probes_need_no_token(client, path):
    assert (await client.get(path, headers=FOREIGN)).status_code == 200


async def test_another_site_cannot_post_even_with_a_session(world, client):
    await client.post("/login", data={"token": TOKEN})
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert (await client.post("/api/stop", headers=headers)).status_code == 403
    assert untouched(world)


async def test_the_page_asks_for_the_token_and_then_opens(client):
    asked = await client.get("/")
    assert asked.status_code == 401
    assert 'action="/login"' in asked.text
    assert "form-action 'self'" in asked.headers["content-security-policy"]
    answer = await client.post("/login", data={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert "slow" in (await client.get("/")).text
    assert (await client.post("/api/stop")).json()["killed"]


async def test_a_wrong_token_is_told_and_opens_nothing(client):
    answer = await client.post("/login", data={"token": OTHER})
    assert answer.status_code == 401
    assert "That is not the token." in answer.text
    assert OTHER not in answer.text
    assert "set-cookie" not in answer.headers
    assert (await client.get("/")).status_code == 401


async def test_signing_out_forgets_the_session(client):
    await client.post("/login", data={"token": TOKEN})
    assert (await client.get("/api/experiments")).status_code == 200
    answer = await client.post("/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert (await client.get("/api/experiments")).status_code == 401


async def test_a_new_token_replaces_the_old_one_and_its_sessions(world, client, monkeypatch):
    monkeypatch.setattr(events, "INTERVAL", 0.02)
    await client.post("/login", data={"token": TOKEN})
    async with client.stream("GET", "/api/events") as stream:
        lines = stream.aiter_lines()
        await anext(lines)
        replace_token(world, OTHER)
        async for _ in lines:
            pass  # it ends, or the test runs into its time limit
    assert (await client.get("/api/experiments")).status_code == 401
    assert (await client.get("/api/experiments", headers=bearer(TOKEN))).status_code == 401
    assert (await client.get("/api/experiments", headers=bearer(OTHER))).status_code == 200


@pytest.mark.parametrize("content", ["", "short", "two words of much length"])
async def test_a_bad_token_file_leaves_the_token_and_is_counted(world, client, content, caplog):
    replace_token(world, content)
    for _ in range(2):
        answer = await client.get("/api/experiments", headers=bearer(TOKEN))
        assert answer.status_code == 200
    counted = (await client.get("/metrics")).text
    assert re.search(r'internal_errors_total{.*where="admin"} 1.0', counted)
    assert "admin: token_file: " in caplog.text
    assert TOKEN not in caplog.text
    assert not content or content not in caplog.text


async def test_a_token_file_that_is_gone_leaves_the_token(world, client):
    (world.directory / "token").unlink()
    assert (await client.get("/api/experiments", headers=bearer(TOKEN))).status_code == 200


async def test_the_metrics_address_has_the_probes_alone(admin):
    url = f"http://127.0.0.1:{admin.addresses[1][1]}"
    async with http_clients.AsyncClient(base_url=url) as client:
        for path in PROBES:
            assert (await client.get(path, headers=FOREIGN)).status_code == 200
        for method, path in GUARDED:
            if path != "/nothing":
                answer = await client.request(method, path, headers=bearer(TOKEN))
                assert answer.status_code == 404


def test_a_session_ends(tmp_path):
    now = 1000.0
    token = made(tmp_path, lambda: now)
    session = token.new_session()
    assert token.is_session(session)
    now += SESSION_SECONDS - 1
    assert token.is_session(session)
    now += 1
    assert not token.is_session(session)


@each("until", ["", "0", "99999999999", "x", "-1", "1e9"])
def test_a_session_cannot_be_made_up_or_prolonged(tmp_path, until):
    token = made(tmp_path)
    _, _, seal = token.new_session().partition(".")
    assert not token.is_session(f"{until}.{seal}")
    assert not token.is_session(until)


def test_cookies_of_several_ports_differ():
    assert cookie_name("localhost:9901") != cookie_name("localhost:9902")
    assert cookie_name("[::1]") == cookie_name("sidecar.example") == "counterfault"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "10.0.0.1:9900", "admin.example:80"])
def test_off_loopback_a_token_is_required(tmp_path, listen):
    world = World(tmp_path)
    world.write(admin={"listen": listen})
    with pytest.raises(ConfigError, match=r"admin: at .* anybody could stop experiments: set"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "admin.token_file: cannot read token: no such file"),
        ("fifteen-bytes-x\n\n", "admin.token_file: cannot use token: must hold at least 16 bytes"),
        ("a" * 5000, "admin.token_file: cannot use token: must hold at most 4096 bytes"),
        ("two words, enough bytes", "cannot use token: must hold one word of printable ASCII"),
    ],
)
def test_a_bad_token_file_is_a_problem_with_its_place(tmp_path, content, said):
    world = World(tmp_path)
    world.write(admin={"token_file": "token"})
    if content is not None:
        (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigError) as e:
        load(tmp_path)
    assert said in str(e.value)
    assert str(e.value).startswith("sidecar.yaml:")
    assert content is None or content.strip() not in str(e.value)


def test_probes_cannot_have_the_pages_own_address(tmp_path):
    world = World(tmp_path)
    world.write(admin={"listen": "127.0.0.1:9900", "metrics": "127.0.0.1:9900"})
    with pytest.raises(ConfigError, match="listen and metrics are both"):
        load(tmp_path)


def replace_token(world: World, content: str) -> None:
    """As Kubernetes does: another file takes its name."""
    beside = world.directory / "token.new"
    beside.write_text(content)
    os.replace(beside, world.directory / "token")


def made(directory: Path, wall: Any = lambda: 0.0) -> Token:
    path = directory / "token"
    path.write_text(TOKEN)
    return Token(path, lambda *_: None, wall)
