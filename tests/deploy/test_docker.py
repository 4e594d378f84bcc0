"""The image: linted, its instructions carried out, its commands run; all outside a container."""

import os
import shlex
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from counterfault.proxy.cli import main as cli
from tests.support.dockerfile import context, image, parse, script
from tests.support.prometheus_server import DEPLOY
from tests.support.sandbox import run

TREE = DEPLOY.parent
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
INSTRUCTIONS = list(parse(DOCKERFILE.read_text()))
IMAGE = image(INSTRUCTIONS)

# As a container would be run: the image's user, a read-only root, a configuration mounted over
# /etc/counterfault, the volume, and a network of its own, in which an application answers.
RUNS = """
COMPILED='
import importlib.util, sys
import counterfault.addons.worker.forkserver
import counterfault.proxy.cli.main, counterfault.proxy.cli.run
files = [getattr(m, "__file__", None) or "" for m in sys.modules.values()]
found = {f: importlib.util.cache_from_source(f) for f in files if f.endswith(".py")}
def sure(cached):
    "Whether it is used whatever the time of its source."
    try:
        return open(cached, "rb").read(8)[4:] == bytes([1, 0, 0, 0])
    except OSError:
        return False
late = [f for f, cached in found.items() if not sure(cached)]
assert not late, late
print(len(found), "modules are compiled, optimised:", sys.flags.optimize)
'
export COMPILED
mount -t tmpfs none /etc/counterfault && mkdir /etc/counterfault/experiments
cat >/etc/counterfault/sidecar.yaml <<'END'
service: shop
listeners: {inbound: {listen: "0.0.0.0:8080", upstream: "http://127.0.0.1:3000"}}
END
mount -t tmpfs -o uid=65532,gid=65532,mode=0700 none /var/lib/counterfault
chmod 755 /root
mount -o remount,ro /
cat >/dev/shm/run.sh <<'END'
set -eu
ip link set lo up
(cd /opt && python3 -m http.server --bind 127.0.0.1 3000 >/dev/null 2>&1) &
application=$!
as_user() { setpriv --reuid=65532 --regid=65532 --clear-groups -- env -i ENVIRONMENT "$@"; }
as_user COMMAND &
sidecar=$!
tries=0
until as_user HEALTHCHECK; do
    tries=$((tries + 1)); [ "$tries" -lt 60 ] || exit 1; sleep 0.5
done
as_user python3 -c '
import os, urllib.request
for url in ("http://127.0.0.1:8080/", "http://127.0.0.1:9900/healthz"):
    assert urllib.request.urlopen(url).status == 200, url
assert os.listdir("/var/lib/counterfault"), "nothing is remembered"
assert os.getuid() == 65532
try:
    open("/etc/x", "w")
except OSError:
    print("the root is read-only")
'
for level in "" -O; do as_user python $level -c "$COMPILED"; done
kill -TERM "$(ps -o pid= --ppid "$sidecar" | head -1)" 2>/dev/null || kill -TERM "$sidecar"
wait "$sidecar" && echo "ended with 0"
kill "$application"
END
unshare -n sh /dev/shm/run.sh
"""


def _hadolint(*args: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("hadolint"), "--no-color", *args]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def test_hadolint_finds_nothing() -> None:
    told = _hadolint(DOCKERFILE)
    assert told.returncode == 0, told.stdout


def test_hadolint_would_find_something() -> None:
    bad = (
        DOCKERFILE.read_text().replace("USER 65532:65532", "USER root").replace("RUN", "RUN cd /;")
    )
    assert _hadolint("-", stdin=bad).returncode != 0


def test_the_container_is_not_root_and_has_no_name_to_look_up() -> None:
    user, _, group = IMAGE.said["USER"].text.partition(":")
    assert int(user) >= 1000
    assert int(group) >= 1000


def test_the_command_is_one_that_counterfault_knows() -> None:
    assert IMAGE.command[0] == "counterfault"
    cli._parser().parse_args(IMAGE.command[1:])


@pytest.mark.parametrize(
    ("status", "code"), [("200 OK", 0), ("503 Service Unavailable", 1), (None, 1)]
)
def test_the_healthcheck_is_0_when_it_is_ready_and_1_when_not(
    status: str | None, code: int
) -> None:
    """Never 2, which Docker reserves; and not by a proxy that the environment names."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        asking = threading.Thread(target=_answer, args=(server, status))
        asking.start()
        python, *words = (w.replace("9900", str(port)) for w in IMAGE.healthcheck)
        assert python == "python"
        told = subprocess.run(
            [sys.executable, *words],
            env={**os.environ, "http_proxy": "http://127.0.0.1:9"},
            capture_output=True,
            check=False,
        )
        asking.join()
    assert told.returncode == code, told.stderr


def _answer(server: socket.socket, status: str | None) -> None:
    """One request; None: the connection is closed instead."""
    connection, _ = server.accept()
    with connection:
        asked = connection.recv(4096)
        if status is not None:
            assert asked.startswith(b"GET /readyz ")
            connection.sendall(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())


def test_only_what_the_image_is_made_of_is_sent_to_the_builder(tmp_path: Path) -> None:
    sent = context(TREE, tmp_path / "context")
    copied = {
        source
        for i in INSTRUCTIONS
        if i.name == "COPY" and "from" not in i.flags
        for source in i.words[:-1]
    }
    assert {path.name for path in sent.iterdir()} == copied
    assert not list(sent.rglob("__pycache__"))


def test_what_a_stage_takes_from_another_was_made_there() -> None:
    made = {i.words[-1] for i in INSTRUCTIONS if i.name == "RUN" and "-m venv" in i.text}
    taken = {i.words[0] for i in INSTRUCTIONS if i.name == "COPY" and "from" in i.flags}
    assert taken == made


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_image_can_be_built_and_serves_with_a_read_only_root(tmp_path: Path) -> None:
    build = script(INSTRUCTIONS, context(TREE, tmp_path / "context"), {})
    environment = shlex.join(f"{k}={v}" for k, v in IMAGE.env.items())
    environment = environment.replace("$PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    runs = RUNS.replace("ENVIRONMENT", environment)
    runs = runs.replace("HEALTHCHECK", shlex.join(IMAGE.healthcheck))
    runs = runs.replace("COMMAND", shlex.join(IMAGE.command))
    said = run(f"{build}\n{runs}", tmp_path / "machine", timeout=580, network=True)
    assert "the root is read-only" in said
    assert "ended with 0" in said
    assert "modules are compiled, optimised: 0" in said
    assert "modules are compiled, optimised: 1" in said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_engine_that_is_not_known_gets_no_image(tmp_path: Path) -> None:
    build = script(INSTRUCTIONS, context(TREE, tmp_path / "context"), {"ENGINE": "squid"})
    refused = f"sh -c {shlex.quote(build)} || echo refused with $?"
    assert run(refused, tmp_path / "machine", timeout=60).strip() == "refused with 64"
