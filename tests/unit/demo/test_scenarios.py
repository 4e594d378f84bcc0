"""The demo's configuration is one that the sidecar accepts."""

from pathlib import Path

from counterfault.proxy.config.loader import load
from counterfault.proxy.demo.scenarios import SCENARIOS, paused, sidecar
from counterfault.proxy.demo.tour import PORTS


def test_each_act_loads_beside_those_that_are_over(tmp_path: Path) -> None:
    ports = {name: 20_000 + i for i, name in enumerate(PORTS)}
    state = tmp_path / "a: state"
    experiments = tmp_path / "experiments"
    experiments.mkdir()
    (tmp_path / "sidecar.yaml").write_text(sidecar(ports, str(state)))
    for act in SCENARIOS:
        file = experiments / f"{act.name}.yaml"
        file.write_text(act.file)
        config = load(tmp_path)
        assert [e.name for e in config.experiments if e.state == "running"] == [act.name]
        file.write_text(paused(act.file))
    assert config.sidecar.state_dir == str(state)
    assert not any(e.state == "running" for e in load(tmp_path).experiments)
