"""The Kubernetes files: rendered, validated, and run as a node would run them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from counterfault.proxy.cli import main as cli
from counterfault.proxy.config.loader import load
from counterfault.proxy.config.model import Config
from tests.support.dockerfile import image, parse
from tests.support.kustomize import render
from tests.support.pod import write
from tests.support.programs import Sidecar, until
from tests.support.prometheus_server import DEPLOY
from tests.support.sandbox import run

HERE = DEPLOY / "kubernetes"
INSTRUCTIONS = list(parse((DEPLOY / "docker" / "Dockerfile").read_text()))
IMAGE = image(INSTRUCTIONS)
OBJECTS = render(HERE / "overlay")
OWN = [o for o in OBJECTS if o["kind"] != "PodMonitor"]  # the only custom resource
BY_KIND = {kind: [o for o in OBJECTS if o["kind"] == kind] for kind in {o["kind"] for o in OBJECTS}}
# Native sidecars need 1.29, a preStop that sleeps 1.30.
OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
MEGA = 1 << 20
POD = str(DEPLOY.parent / "tests" / "support" / "pod.py")
_PROBES = ("startup", "readiness", "liveness")
_FAULTS = [{"at": "inbound", "latency": "1ms"}]


def storefront() -> dict[str, Any]:
    (found,) = (o for o in BY_KIND["Deployment"] if o["metadata"]["name"] == "storefront")
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    return pod


def sidecar() -> dict[str, Any]:
    (found,) = storefront()["initContainers"]
    return dict(found)


def config(tmp_path: Path) -> Config:
    """What the sidecar loads, from the ConfigMaps, in the image's folder."""
    maps = {o["metadata"]["name"]: o["data"] for o in BY_KIND["ConfigMap"]}
    for name in ("settings", "experiments"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, maps[f"counterfault-{name}"])
    (tmp_path / "sidecar.yaml").symlink_to("settings/sidecar.yaml")
    return load(tmp_path)


def kubectl(folder: Path) -> list[dict[str, Any]]:
    """What kubectl makes of a kustomization; components need 1.21."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    told = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, check=False
    )
    if "invalid Kustomization" in told.stderr or 'unknown field "components"' in told.stderr:
        pytest.skip("kubectl is older than 1.21: it knows no components")
    assert told.returncode == 0, told.stderr
    return list(yaml.safe_load_all(told.stdout))


@pytest.mark.parametrize("folder", ["base", "overlay"])
def test_kubectl_renders_what_is_tested_here(folder: str) -> None:
    def key(o: dict[str, Any]) -> tuple[str, str]:
        return o["kind"], o["metadata"]["name"]

    assert sorted(kubectl(HERE / folder), key=key) == sorted(render(HERE / folder), key=key)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("o", OWN, ids=lambda o: f"{o['kind']}-{o['metadata']['name']}")
def test_every_object_is_valid(o: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(o, version, strict=True)


def test_the_base_does_without_the_sidecar() -> None:
    for o in render(HERE / "base"):
        assert "initContainers" not in o["spec"].get("template", {}).get("spec", {})


def test_the_sidecar_is_native_and_starts_before_the_application() -> None:
    assert sidecar()["restartPolicy"] == "Always"
    assert sidecar()["startupProbe"]["httpGet"]["path"] == "/readyz"


def test_what_the_sidecar_runs_is_a_command_and_its_image_is_the_one_built_here() -> None:
    cli._parser().parse_args(sidecar()["args"])
    assert sidecar()["args"][1] == IMAGE.said["CMD"].words[1]
    (others,) = {c["image"] for o in BY_KIND["Deployment"] for c in _containers(o)}
    assert others == sidecar()["image"]


def _containers(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    pod = deployment["spec"]["template"]["spec"]
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.mark.parametrize("deployment", BY_KIND["Deployment"], ids=lambda o: o["metadata"]["name"])
def test_every_container_has_few_rights_and_bounded_memory(deployment: dict[str, Any]) -> None:
    for container in _containers(deployment):
        context = container["securityContext"]
        assert context["runAsNonRoot"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "memory" in container["resources"]["limits"]
        assert "requests" in container["resources"]


def test_config_maps_are_mounted_such_that_a_change_reaches_the_pod() -> None:
    volumes = {v["name"]: v.get("configMap", {}).get("name") for v in storefront()["volumes"]}
    names = {o["metadata"]["name"] for o in BY_KIND["ConfigMap"]}
    mounted = {volumes[m["name"]] for m in sidecar()["volumeMounts"]} - {None}
    assert mounted == names
    assert not any("subPath" in m for m in sidecar()["volumeMounts"])


def test_the_sidecar_listens_where_services_probes_and_prometheus_look(tmp_path: Path) -> None:
    settings = config(tmp_path).sidecar
    inbound = settings.listeners["inbound"].listen
    (service,) = (o for o in BY_KIND["Service"] if o["metadata"]["name"] == "storefront")
    assert inbound == f"0.0.0.0:{service['spec']['ports'][0]['targetPort']}"
    probes = [sidecar()[f"{name}Probe"]["httpGet"]["port"] for name in _PROBES]
    assert {f"0.0.0.0:{port}" for port in probes} == {settings.admin.metrics}
    ports = {port["name"]: port["containerPort"] for port in sidecar()["ports"]}
    (monitor,) = BY_KIND["PodMonitor"]
    assert {ports[e["port"]] for e in monitor["spec"]["podMetricsEndpoints"]} == set(probes)
    (policy,) = BY_KIND["NetworkPolicy"]
    let_in = {rule["port"] for ingress in policy["spec"]["ingress"] for rule in ingress["ports"]}
    assert let_in == set(ports.values())


def test_monitor_and_policy_select_the_pods_with_a_sidecar_and_no_others() -> None:
    (monitor,), (policy,) = BY_KIND["PodMonitor"], BY_KIND["NetworkPolicy"]
    for labels in (monitor["spec"]["selector"], policy["spec"]["podSelector"]):
        wanted = labels["matchLabels"].items()
        hit = {
            o["metadata"]["name"]
            for o in BY_KIND["Deployment"]
            if wanted <= o["spec"]["template"]["metadata"]["labels"].items()
        }
        assert hit == {"storefront"}


def test_the_pod_monitor_has_only_keys_that_the_operator_knows() -> None:
    (monitor,) = BY_KIND["PodMonitor"]
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert set(monitor["spec"]) == {"selector", "podMetricsEndpoints"}
    assert set(*monitor["spec"]["podMetricsEndpoints"]) == {"port", "path", "interval"}


def test_the_application_finds_its_dependencies_at_the_sidecar(tmp_path: Path) -> None:
    (application,) = storefront()["containers"]
    found = {e["value"].removeprefix("http://") for e in application["env"]}
    listeners = config(tmp_path).sidecar.listeners
    assert found == {listener.listen for name, listener in listeners.items() if name != "inbound"}
    base = {o["metadata"]["name"]: o for o in render(HERE / "base") if o["kind"] == "Service"}
    for name in listeners.keys() - {"inbound"}:
        (port,) = base[name]["spec"]["ports"]
        assert listeners[name].upstream == (f"http://{name}:{port['port']}",)


def test_there_is_time_for_the_drain(tmp_path: Path) -> None:
    (application,) = storefront()["containers"]
    sleep = application["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = config(tmp_path).sidecar.limits.drain
    assert storefront()["terminationGracePeriodSeconds"] >= sleep + 30 + drain


def test_check_has_nothing_against_the_config_maps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config(tmp_path)
    assert cli.main(["check", str(tmp_path)]) == 0
    assert "slow-payments: paused" in capsys.readouterr().out


DEPLOYED = sorted(DEPLOY.glob("*/**/experiments/*.yaml"))
EXAMPLES = sorted((DEPLOY.parent / "config").glob("ex*/*.yaml"))


@pytest.mark.parametrize("file", [*DEPLOYED, *EXAMPLES], ids=lambda p: p.name)
def test_every_example_experiment_has_an_end_that_is_far(file: Path) -> None:
    assert yaml.safe_load(file.read_text())["not_after"] > datetime(2027, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize("file", DEPLOYED, ids=lambda p: p.name)
def test_what_is_deployed_waits_to_be_started(file: Path) -> None:
    assert yaml.safe_load(file.read_text())["state"] == "paused"


def test_a_changed_config_map_is_in_use_within_seconds(make_sidecar: Any) -> None:
    """The image's folder with two mounts in it, changed as the kubelet does."""
    made: Sidecar = make_sidecar("http://127.0.0.1:9")
    settings, experiments = made.directory / "settings", made.directory / "experiments"
    settings.mkdir()
    text = (made.directory / "sidecar.yaml").read_text()
    write(settings, {"sidecar.yaml": text})
    (made.directory / "sidecar.yaml").unlink()
    (made.directory / "sidecar.yaml").symlink_to("settings/sidecar.yaml")
    write(experiments, {})
    made.start()
    for name in ("one", "two"):
        write(experiments, {f"{name}.yaml": yaml.safe_dump(made.said(name, faults=_FAULTS))})
        until(partial(_is_running, made, name))
    write(settings, {"sidecar.yaml": text.replace("100%", "1%")})
    until(lambda: made.metric("counterfault_config_last_reload_successful") == 0)


def _is_running(made: Sidecar, name: str) -> bool:
    return made.state(name) == "running"


@pytest.mark.timeout(300)
def test_the_pod_works_as_a_node_would_run_it(tmp_path: Path) -> None:
    objects = tmp_path / "objects.json"
    objects.write_text(json.dumps(OBJECTS))
    (layout,) = (i.text for i in INSTRUCTIONS if i.name == "RUN" and "ln -s" in i.text)
    pod = shlex.join([sys.executable, POD, str(objects), sys.executable])
    said = run(f"set -e\n{layout}\n{pod} || {{ cat /tmp/*.log; exit 1; }}", tmp_path / "node", 280)
    seen = json.loads(said.splitlines()[-1])
    memory = seen.pop("memory")
    assert seen.pop("api") in (401, 403, 404), "the API must not be there for other pods"
    assert seen == {"storefront": 0, "sidecar": 0}
    asked = int(re.sub("Mi$", "", sidecar()["resources"]["requests"]["memory"]))
    assert memory < asked * MEGA, f"{memory / MEGA:.0f} MiB"
