"""What a node would do with deploy/kubernetes, on a machine of its own: `python pod.py FILE`.

All pods share one loopback here, and every Service is a name for it; so Services must not remap
ports, but for the one whose traffic goes to the sidecar.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

type Object = dict[str, Any]
SIDECAR = "counterfault"
EXPERIMENT = "slow-payments"
RECOMMENDED = "recommendations"
METRICS = 15090


def until(what: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait for something true; what cannot be reached yet is not."""
    end = time.monotonic() + seconds
    while True:
        try:
            if found := what():
                return found
        except OSError:
            pass
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.1)


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def status(port: int, path: str) -> int:
    try:
        get(port, path)
    except urllib.error.HTTPError as e:
        return e.code
    return 200


class Node:
    """Starts the containers of Deployments, one pod of each."""

    def __init__(self, objects: list[Object], python: str) -> None:
        self._python = Path(python)
        self._maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
        self.services = {o["metadata"]["name"]: o for o in objects if o["kind"] == "Service"}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        with Path("/etc/hosts").open("a") as hosts:
            hosts.writelines(f"127.0.0.1 {name}\n" for name in self.services)

    def start(self, pod: Object) -> None:
        """Mount, then the native sidecars, each when the one before has started, then the rest."""
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            for mount in container.get("volumeMounts", ()):
                volume = next(v for v in pod["volumes"] if v["name"] == mount["name"])
                self._mount(volume, Path(mount["mountPath"]))
        for container in pod.get("initContainers", ()):
            assert container["restartPolicy"] == "Always"
            self._run(container)
            self._probed(container["startupProbe"])
        for container in pod["containers"]:
            self._run(container)
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            self._probed(container["readinessProbe"])

    def _run(self, container: Object) -> None:
        env = {e["name"]: e["value"] for e in container.get("env", ())}
        words = [*container.get("command", [SIDECAR]), *container["args"]]
        words = [re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], word) for word in words]
        with Path(f"/tmp/{container['name']}.log").open("wb") as log:
            command = [str(self._python.with_name(words[0])), *words[1:]]
            inherited = {**os.environ, "STATE_DIRECTORY": "/var/lib/counterfault", **env}
            process = subprocess.Popen(command, env=inherited, stdout=log, stderr=log)
        self.running[container["name"]] = process

    def _probed(self, probe: Object) -> None:
        asked = probe["httpGet"]
        until(lambda: status(asked["port"], asked["path"]) == 200)

    def _mount(self, volume: Object, where: Path) -> None:
        where.mkdir(parents=True, exist_ok=True)
        if "configMap" in volume:
            write(where, self._maps[volume["configMap"]["name"]])

    def stop(self, name: str) -> int:
        self.running[name].send_signal(signal.SIGTERM)
        return self.running[name].wait(60)


def write(where: Path, data: dict[str, str]) -> None:
    """A ConfigMap's files as the kubelet writes them: a new folder, and one rename for all."""
    folder = where / f"..{time.time_ns()}"
    folder.mkdir()
    for name, text in data.items():
        (folder / name).write_text(text)
        if not (where / name).is_symlink():
            (where / name).symlink_to(f"..data/{name}")
    (where / "..data_tmp").symlink_to(folder.name)
    (where / "..data_tmp").rename(where / "..data")
    for link in where.iterdir():
        if not link.name.startswith("..") and link.name not in data:
            link.unlink()


def resident(pid: int) -> int:
    """Bytes of a process and of all below it."""
    own = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", own)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(found[1]) * 1024 if found else 0) + sum(resident(int(c)) for c in children)


def passed(page: str) -> bool:
    """Whether the storefront's own calls have been counted at the sidecar."""
    wanted = ("counterfault_requests_total", 'listener="recommendations"', 'code="2xx"')
    lines = [line for line in page.splitlines() if all(w in line for w in wanted)]
    return any(float(line.rpartition(" ")[2]) > 0 for line in lines)


def main(file: str, python: str) -> None:
    objects: list[Object] = json.loads(Path(file).read_text())
    node = Node(objects, python)
    pods = {o["metadata"]["name"]: o for o in objects if o["kind"] == "Deployment"}
    for name in sorted(pods, key=lambda name: name == "storefront"):
        node.start(pods[name]["spec"]["template"]["spec"])

    said = _serves(node)
    _reloads(objects)
    said["memory"] = resident(node.running[SIDECAR].pid)
    said["storefront"] = node.stop("storefront")
    said["sidecar"] = node.stop(SIDECAR)
    print(json.dumps(said))


def _serves(node: Node) -> Object:
    """Users come by the Service, and what the application asks goes through the sidecar too."""
    (port,) = node.services["storefront"]["spec"]["ports"]
    # It waits for 100 ms only, which a busy machine may not make at first.
    until(lambda: json.loads(get(port["targetPort"], "/"))["recommended"]["from"] == RECOMMENDED)
    until(lambda: passed(get(METRICS, "/metrics")))
    return {"api": status(METRICS, "/api/experiments")}


def _reloads(objects: list[Object]) -> None:
    """First an experiment is started, then a mistake is made: 1 % and 1 % are more than 1 %."""
    data = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    _edit("experiments", data, "state: paused ", "state: running")
    api = f"/api/experiments/{EXPERIMENT}"
    until(lambda: json.loads(get(9900, api))["state"] == "baseline")
    _edit("settings", data, "enrolled: 10%", "enrolled: 1%")
    failed = 'counterfault_config_last_reload_successful{service="storefront"} 0.0'
    until(lambda: failed in get(METRICS, "/metrics"))


def _edit(name: str, data: dict[str, dict[str, str]], old: str, new: str) -> None:
    changed = {k: v.replace(old, new) for k, v in data[f"counterfault-{name}"].items()}
    assert changed != data[f"counterfault-{name}"]
    write(Path("/etc/counterfault") / name, changed)


if __name__ == "__main__":
    main(*sys.argv[1:])
