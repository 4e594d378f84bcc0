"""The compose file: sound, and what it starts works together; outside containers."""

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from counterfault.proxy.config.loader import load
from tests.support.dockerfile import image, parse
from tests.support.programs import program
from tests.support.prometheus_server import DEPLOY
from tests.support.sandbox import run

HERE = DEPLOY / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((HERE / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = SERVICES["sidecar"]["image"]
IMAGE = image(list(parse((DEPLOY / "docker" / "Dockerfile").read_text())))

# What somebody does who follows the guide, and what they then see.
DRIVE = """
import json, pathlib, sys, time, urllib.error, urllib.request

TOKEN = {"Authorization": "Bearer " + pathlib.Path(sys.argv[1]).read_text().strip()}

def get(url, headers={}):
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read().decode()

def until(what, seconds=120):
    end = time.monotonic() + seconds
    while True:
        try:
            if found := what():
                return found
        except (OSError, KeyError, IndexError):
            pass
        assert time.monotonic() < end, what
        time.sleep(0.2)

def query(expr):
    url = "http://127.0.0.1:9090/api/v1/query?query=" + urllib.request.quote(expr)
    return json.loads(get(url))["data"]["result"]

until(lambda: "+" in get("http://sidecar:9901/readyz"))
until(lambda: "recommended" in get("http://127.0.0.1:8080/"))
file = pathlib.Path("/etc/counterfault/experiments/slow-recommendations.yaml")
file.write_text(file.read_text().replace("state: paused ", "state: running"))
api = "http://127.0.0.1:9900/api/experiments"
until(lambda: json.loads(get(api + "/slow-recommendations", TOKEN))["state"] == "baseline")
until(lambda: query('up{job="counterfault"} == 1'))
until(lambda: query('cohort:counterfault_requests:rate1m{experiment="slow-recommendations"}'))

def refused(url, headers={}):
    try:
        get(url, headers)
    except urllib.error.HTTPError as e:
        return e.code

said = {"beside": refused("http://sidecar:9901/api/experiments", TOKEN), "api": refused(api)}
print(json.dumps({**said, "alerts": len(query("ALERTS"))}))
"""


def _references() -> Iterator[tuple[str, str]]:
    """What services mount from the tree, as it is written."""
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            yield name, volume


@pytest.mark.parametrize(("service", "volume"), _references())
def test_what_is_mounted_is_there(service: str, volume: str) -> None:
    source, target, *mode = volume.split(":")
    if source.startswith("."):
        assert (HERE / source).exists(), service
        assert mode == ["ro"], "what comes from the tree is not written to"
    else:
        assert source in COMPOSE["volumes"]
    assert target.startswith("/")


def test_the_image_is_built_from_the_dockerfile() -> None:
    build = SERVICES["sidecar"]["build"]
    root = (HERE / build["context"]).resolve()
    assert (root / build["dockerfile"]).samefile(DEPLOY / "docker" / "Dockerfile")
    assert (root / ".dockerignore").exists()


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_few_rights_and_a_fixed_image(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["read_only"] or name == "grafana"
    assert service["image"].partition(":")[2] not in ("", "latest")


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_published_beyond_this_machine(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


@pytest.mark.parametrize("name", SERVICES)
def test_networks_and_dependencies_name_services(name: str) -> None:
    service = SERVICES[name]
    network = service.get("network_mode", "service:sidecar")
    assert network.partition(":")[2] in SERVICES
    assert set(service.get("depends_on", ())) <= set(SERVICES)


def test_grafana_gets_what_its_provisioning_names() -> None:
    """The address it asks, and the folder in which it finds the dashboards."""
    grafana = SERVICES["grafana"]
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"].removeprefix("$") in grafana["environment"]
    provider = yaml.safe_load((provisioning / "dashboards" / "counterfault.yaml").read_text())
    targets = {volume.split(":")[1]: volume.split(":")[0] for volume in grafana["volumes"]}
    folder = HERE / targets[provider["providers"][0]["options"]["path"]]
    assert list(folder.glob("*.json"))


def test_sigterm_waits_no_less_than_the_drain() -> None:
    grace = int(SERVICES["sidecar"]["stop_grace_period"].removesuffix("s"))
    assert grace > load(HERE / "counterfault").sidecar.limits.drain


@pytest.mark.timeout(300)
def test_everything_works_together(tmp_path: Path) -> None:
    program("prometheus")
    lines = ["set -eu"]
    for name, service in SERVICES.items():
        lines.append(f"echo 127.0.0.1 {name} >>/etc/hosts")
        lines += [_mounted(volume) for volume in service.get("volumes", ())]
        if command := _command(service):
            lines.append(f"({shlex.join(command)}) >/tmp/{name}.log 2>&1 &")
    token = SERVICES["sidecar"]["environment"]["COUNTERFAULT_TOKEN_FILE"]
    drive = shlex.join([sys.executable, "-c", DRIVE, token])
    healthy = shlex.join(_installed(IMAGE.healthcheck))
    status = shlex.join(
        [f"COUNTERFAULT_TOKEN_FILE={token}", *_installed(["counterfault", "status"])]
    )
    told = f"{drive} && {healthy} && env {status}"
    lines.append(f"{told} || {{ tail -n 20 /tmp/*.log; exit 1; }}")
    said = run("\n".join(lines), tmp_path / "machine", timeout=280)
    driven, *table = said.splitlines()
    seen = json.loads(driven)
    assert seen["beside"] in (403, 404), "the port for Prometheus must not have the API"
    assert seen["api"] == 401
    assert seen["alerts"] == 0
    assert "slow-recommendations #1  baseline" in "\n".join(table)


def _mounted(volume: str) -> str:
    """A copy, so that the guide's edit does not change the tree; a named volume is empty."""
    source, target = volume.split(":")[:2]
    made = f"mkdir -p $(dirname {target})"
    if not source.startswith("."):
        return f"mkdir -p {target}"
    copied = f"{made} && cp -rT {(HERE / source).resolve()} {target}"
    # What is recorded takes two scrapes, and so does the test.
    faster = f" && sed -i 's/_interval: 5s/_interval: 1s/' {target}"
    return copied + faster if target.endswith("/prometheus.yml") else copied


def _installed(words: list[str]) -> list[str]:
    return [str(Path(sys.executable).with_name(words[0])), *words[1:]]


def _command(service: dict[str, Any]) -> list[str]:
    """What the container would run, with this installation's programs; nothing for Grafana."""
    if service["image"] == OURS:
        entry: list[str] = service.get("entrypoint", IMAGE.said["ENTRYPOINT"].words)
        words = entry + service.get("command", IMAGE.said["CMD"].words)
        return _installed(words)
    if service["image"].startswith("prom/prometheus:"):
        return ["prometheus", *service["command"]]
    return []
