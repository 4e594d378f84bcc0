"""Every answer of a Prometheus server is counts, one number, or a reason why it is neither."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.analysis.external.prometheus_response import (
    Counts,
    Level,
    NoPrometheusAnswer,
    parse_response,
    replicate_of,
)


def vector(*rows, **more):
    """An answer with rows of labels and a value."""
    result = [{"metric": labels, "value": [1.5, value]} for labels, value in rows]
    data = {"resultType": "vector", "result": result}
    return json.dumps({"status": "success", "data": data, **more}).encode()


def of(kind, result):
    data = {"resultType": kind, "result": result}
    return json.dumps({"status": "success", "data": data}).encode()


def counted(number, value="1", **labels):
    return {"replicate": str(number), **labels}, value


def test_series_with_a_replicate_are_cumulative_counts():
    found = parse_response(200, vector(counted(0, "7"), counted(15, "2.5")))
    assert found == Counts({(("replicate", "0"),): 7.0, (("replicate", "15"),): 2.5})


def test_each_instance_counts_for_itself():
    found = parse_response(200, vector(counted(3, pod="a"), counted(3, pod="b")))
    assert isinstance(found, Counts)
    assert [replicate_of(series) for series in found.by_series] == [3, 3]


def test_one_series_without_a_replicate_is_one_number():
    assert parse_response(200, vector(({"job": "shop"}, "0.25"))) == Level(0.25)


def test_a_scalar_is_one_number():
    assert parse_response(200, of("scalar", [1.5, "42"])) == Level(42.0)


def test_infos_are_no_warnings():
    assert parse_response(200, vector(({}, "1"), infos=["might not be a counter"])) == Level(1.0)


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, vector(), "no series matches"),
        (200, vector(({}, "NaN")), "its value is NaN"),
        (200, vector(({}, "+Inf")), r"its value is \+Inf"),
        (200, of("scalar", [1.5, "NaN"]), "its value is NaN"),
        (200, vector(({"a": "1"}, "1"), ({"a": "2"}, "2")), "2 series; one is needed, or each"),
        (200, vector(counted(1), ({"a": "1"}, "2")), "2 series; one is needed, or each"),
        (200, vector(counted(64)), "replicate must be 0 to 63, not '64'"),
        (200, vector(counted(-1)), "replicate must be 0 to 63, not '-1'"),
        (200, vector(counted("²")), "replicate must be 0 to 63, not"),
        (200, vector(counted("9" * 9999)), "replicate must be 0 to 63, not"),
        (200, vector(counted(1, "-1")), "a cumulative count is below zero"),
        (200, vector(counted(1), warnings=["store down"]), "it warns: store down"),
        (200, vector(*[counted(i % 64, pod=str(i)) for i in range(6401)]), "6401 series; at most"),
        (200, of("matrix", []), "an instant vector or a scalar is needed, not 'matrix'"),
        (200, of("vector", 1), "an answer of an unknown form"),
        (200, of("vector", [{"metric": {}}]), "an answer of an unknown form"),
        (200, of("vector", [{"metric": {}, "value": [1, "x"]}]), "an answer of an unknown form"),
        (200, b'{"status": "success"}', "an answer of an unknown form"),
        (200, b"<html>", "HTTP 200, not the JSON of Prometheus' API"),
        (200, b"[" * 100_000, "HTTP 200, not the JSON of Prometheus' API"),
        (200, b"[]", "HTTP 200"),
        (200, b"\xff", "HTTP 200, not the JSON"),
        (302, b"", "HTTP 302, not the JSON"),
        (503, b"down", "HTTP 503, not the JSON"),
        (422, vector(({}, "1")), "HTTP 422"),
        (
            400,
            b'{"status": "error", "errorType": "bad_data", "error": "parse\\nerror"}',
            "HTTP 400: bad_data: parse error",
        ),
    ],
)
def test_anything_else_says_why_it_is_no_answer(status, body, why):
    with pytest.raises(NoPrometheusAnswer, match=f"^{why}"):
        parse_response(status, body)


def test_somebody_elses_words_are_cut():
    with pytest.raises(NoPrometheusAnswer) as found:
        parse_response(500, json.dumps({"status": "error", "error": "x" * 9999}).encode())
    assert len(str(found.value)) < 250


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(
    ["status", "data", "resultType", "result", "metric", "value", "replicate", "warnings"]
)
TREES = st.recursive(
    SCALARS | st.sampled_from(["success", "vector", "scalar"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(result=TREES, kind=st.sampled_from(["vector", "scalar"]))
def test_no_structure_raises_anything_else(result, kind):
    for body in (of(kind, result), json.dumps(result).encode()):
        try:
            found = parse_response(200, body)
        except NoPrometheusAnswer:
            continue
        assert isinstance(found, Counts | Level)


@given(body=st.binary())
def test_no_bytes_raise_anything_else(body):
    with pytest.raises(NoPrometheusAnswer):
        parse_response(200, body)
