"""Editors see the configuration as the models do."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from counterfault.proxy.config.json_schema import MODELS, schema_of, schema_text, write_schemas
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.config.yaml_reader import read_yaml
from counterfault.proxy.experiments.experiment import Experiment

CONFIG = Path(__file__).parents[3] / "config"
SHIPPED = sorted(CONFIG.rglob("*.yaml"))
EXPERIMENT = {
    "experiment": "slow",
    "state": "running",
    "duration": "30m",
    "cohorts": {"experiment": "1%", "control": "1%"},
    "faults": [{"at": "payments", "latency": "400ms"}],
}
SIDECAR = {"service": "shop", "listeners": {"inbound": {"listen": "a:1", "upstream": "http://b"}}}


@pytest.mark.parametrize("name", MODELS)
def test_the_committed_schema_is_what_the_models_say_today(name):
    committed = (CONFIG / "schema" / f"{name}.schema.json").read_text()
    assert committed == schema_text(MODELS[name]), "run `make generate`"


def test_schemas_are_written_whole_and_the_same_each_time(tmp_path):
    write_schemas(tmp_path / "schema")
    written = {path.name: path.read_text() for path in (tmp_path / "schema").iterdir()}
    assert sorted(written) == ["experiment.schema.json", "sidecar.schema.json"]
    assert all(content.endswith("}\n") for content in written.values())
    write_schemas(tmp_path / "schema")
    assert {p.name: p.read_text() for p in (tmp_path / "schema").iterdir()} == written


@pytest.mark.parametrize("model", MODELS.values())
def test_a_schema_is_a_schema(model):
    found = schema_of(model)
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert found["title"]
    jsonschema.Draft202012Validator.check_schema(found)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_file_names_the_schema_that_it_fits(path):
    first = path.read_text().splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named
    found = json.loads((path.parent / named[1]).read_text())
    jsonschema.validate(read_yaml(path.name, path.read_bytes()).data, found)


def _accepts(model, data):
    return jsonschema.Draft202012Validator(schema_of(model)).is_valid(data)


@pytest.mark.parametrize(
    "change",
    [
        {"faults": [{"at": "a", "latency": {"p50": "400ms", "p99": "2s"}}]},
        {"faults": [{"at": "a", "error": 503}]},
        {"faults": [{"at": "a", "drop": {"mode": "hang", "hang": "5s"}}]},
        {"faults": [{"at": "a", "drop": "reset", "match": {"method": "GET"}}]},
        {"faults": [{"at": "a", "drop": "reset", "match": {"method": ["GET", "PUT"]}}]},
        {"steady_state": [{"name": "a", "at": "b", "match": {"status": 503}}]},
        {"steady_state": [{"name": "a", "at": "b", "match": {"status": ["2xx", 404]}}]},
        {"steady_state": [{"name": "a", "at": "b", "rate": {"drop": "5%"}}]},
        {"steady_state": [{"name": "a", "prometheus": {"query": "$cohort", "drop": "5%"}}]},
        {"not_after": "2026-12-01T18:00:00Z"},
    ],
)
def test_every_spelling_of_the_model_fits(change):
    assert _accepts(Experiment, EXPERIMENT | change)


@pytest.mark.parametrize(
    "change",
    [
        {"duration": 30},
        {"duration": "30 minutes"},
        {"durations": "30m"},
        {"experiment": "No Name"},
        {"cohorts": {"experiment": "1%"}},
        {"cohorts": {"experiment": "0.5pp", "control": "1%"}},
        {"faults": []},
        {"faults": [{"at": "a", "latencey": "1s"}]},
        {"faults": [{"at": "a", "drop": "rst"}]},
        {"faults": [{"at": "a", "error": 700}]},
        {"steady_state": [{"name": "a", "at": "b", "match": {"status": "9xx"}}]},
        {"steady_state": [{"name": "a", "rate": {"drop": "5%"}}]},
        {"steady_state": [{"name": "a", "at": "b", "prometheus": {"query": "$cohort"}}]},
    ],
)
def test_what_the_model_refuses_does_not_fit(change):
    assert not _accepts(Experiment, EXPERIMENT | change)


def test_an_upstream_may_be_one_or_a_list():
    assert _accepts(Sidecar, SIDECAR)
    several = {"listen": "a:1", "upstream": ["http://b", "http://c"]}
    assert _accepts(Sidecar, SIDECAR | {"listeners": {"inbound": several}})
    assert not _accepts(Sidecar, SIDECAR | {"listeners": {"inbound": several | {"upstream": 5}}})


def test_defaults_are_written_as_a_user_would():
    fields = schema_of(Experiment)["properties"]
    assert fields["baseline"]["default"] == "1m"
    assert schema_of(Experiment)["$defs"]["GuardLimits"]["properties"]["confidence"]["default"] == (
        "95%"
    )


@pytest.mark.parametrize("name", MODELS)
def test_no_module_is_named(name):
    assert all(re.fullmatch("[A-Z][A-Za-z]+", found) for found in schema_of(MODELS[name])["$defs"])


def test_names_that_a_fault_and_a_metric_share_say_which_is_meant():
    found = schema_of(MODELS["experiment"])["$defs"]
    assert {"LatencyFault", "LatencyMetric"} <= found.keys()
