"""The fault of docs/adding-a-fault.md in a real sidecar."""

from pathlib import Path
from typing import Any

import yaml

from counterfault.proxy.experiments.cohorts import Cohort, cohort_at, position, salt_of
from tests.support import fault_package, http_clients
from tests.support.programs import MakeNginx, MakeSidecar, until

SHARES = (0.5, 0.5)


def test_a_fault_of_another_package_happens_to_the_experiment_cohort(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, tmp_path: Path, engine: str
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    fault_package.install(packages)
    sidecar = make_sidecar(make_nginx("location / { return 200 hello; }").url, engine=engine)
    sidecar.environment["PYTHONPATH"] = str(packages)
    rule = yaml.safe_load(fault_package.files()["experiments/loop.yaml"])["faults"][0]
    sidecar.start().running("loop", faults=[rule], cohorts={"experiment": "50%", "control": "50%"})
    with http_clients.Client() as client:
        for number in range(40):
            unit = f"user-{number}"
            cohort = cohort_at(position(salt_of("loop", 1), unit.encode()), *SHARES)
            answer = client.get(f"{sidecar.url}/cart?item={number}", headers={"x-user-id": unit})
            if cohort is Cohort.EXPERIMENT:
                wanted = (308, f"/cart?item={number}")
                assert (answer.status_code, answer.headers["location"]) == wanted
            else:
                assert (answer.status_code, answer.text) == (200, "hello")

    def rules() -> list[dict[str, Any]]:
        return list(sidecar.get("/api/experiments/loop")["faults"])

    # The worker's counts arrive after its answers.
    until(lambda: rules()[0]["performed"] > 0)
    assert [(each["fault"], each["failed"]) for each in rules()] == [("redirect_loop", 0)]
