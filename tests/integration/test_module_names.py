"""No module is loaded under two names: `counterfault.proxy.x` is never also `proxy.x`."""

import os
import sys
from collections import Counter
from pathlib import Path

from tests.support import http_clients
from tests.support.programs import MakeNginx, MakeSidecar, user
from tests.support.shared_sidecar import HELLO

ROOT = Path(__file__).parents[2]
# Each Python process that finds this on its path writes down what it imports, and who it is.
WATCH = """
import os, sys
_log = os.open(os.environ["IMPORTED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def _watch(event, args):
    if event == "import" and args[0].split(".")[0] in ("addons", "counterfault", "proxy"):
        os.write(_log, f"{args[0]}\\n".encode())
sys.addaudithook(_watch)
"""


def test_the_tests_load_each_module_once() -> None:
    files = [
        os.path.realpath(file)
        for name, module in sys.modules.items()
        if (file := getattr(module, "__file__", None)) and name != "__main__"
    ]
    rooms = [ROOT / room for room in ("addons", "proxy", "tests")]
    ours = Counter(file for file in files if any(map(Path(file).is_relative_to, rooms)))
    assert str(ROOT / "proxy" / "experiments" / "cohorts.py") in ours
    assert [file for file, count in ours.items() if count > 1] == []


def test_a_sidecar_and_its_workers_load_each_module_once(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str, tmp_path: Path
) -> None:
    imported = tmp_path / "imported"
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    sidecar = make_sidecar(make_nginx(HELLO).url, engine=engine)
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    sidecar.environment = {"PYTHONPATH": path, "IMPORTED": str(imported)}
    # Envoy needs the workers behind it for an error that comes after the upstream's answer.
    sidecar.start().running(faults=[{"at": "inbound", "error": 503, "when": "after"}])
    headers = {"x-user-id": user("experiment")}
    assert http_clients.get(sidecar.url, headers=headers).status_code == 503
    assert sidecar.stop() == 0
    names = set(imported.read_text().split())
    assert "counterfault.proxy.supervisor.supervisor" in names
    assert "counterfault.addons.worker.worker" in names
    assert {name.split(".")[0] for name in names} == {"counterfault"}
