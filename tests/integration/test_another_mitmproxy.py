"""A mitmproxy whose source is not the one that our faster functions were written against."""

from collections.abc import Callable
from pathlib import Path

from counterfault.addons.mitm import fast_paths
from tests.support import http_clients
from tests.support.programs import MakeNginx, MakeSidecar

# Python runs this at the start of each process that finds it: to the workers, all sources differ.
CHANGED = """
import inspect
read = inspect.getsource
inspect.getsource = lambda thing: read(thing) + "\\n# uuid __init__ changed\\n"
"""


def test_traffic_and_faults_pass_and_one_line_says_what_is_slower(
    tmp_path: Path,
    make_nginx: MakeNginx,
    make_sidecar: MakeSidecar,
    user: Callable[..., str],
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CHANGED)
    nginx = make_nginx('location / { return 200 "hello"; }')
    sidecar = make_sidecar(nginx.url, workers=2)
    sidecar.environment["PYTHONPATH"] = str(tmp_path)
    sidecar.start()
    sidecar.running(faults=[{"at": "inbound", "error": 418, "match": {"path": "/bad"}}])
    for cohort, status in (("experiment", 418), ("control", 200), ("bystander", 200)):
        headers = {"x-user-id": user(cohort)}
        with http_clients.Client(headers=headers, base_url=sidecar.url) as client:
            assert client.get("/").text == "hello"
            assert client.post("/", content=b"x" * 100_000).text == "hello"
            assert client.get("/bad").status_code == status
    assert sidecar.metric("counterfault_internal_errors_total") == 0
    lines = [
        line for line in sidecar.log.read_text().splitlines() if "mitmproxy's own stays" in line
    ]
    assert len(lines) == 1
    assert all(each.name in lines[0] for each in fast_paths.ALL)
