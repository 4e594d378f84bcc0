"""Generates openapi.json: `python -m counterfault.proxy.admin.openapi` writes it beside this file.

The schemas come from the models that the API answers with (`openapi_schemas`). The paths are those
of `server.ROUTES`; their descriptions are in this module.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from counterfault import __version__
from counterfault.proxy.admin.openapi_schemas import Json, schemas
from counterfault.proxy.models.chart_data import ChartData
from counterfault.proxy.models.json_model import JsonModel
from counterfault.proxy.models.overview import ExperimentDetail, Overview
from counterfault.proxy.models.problem import Problem
from counterfault.proxy.models.run_record import RunRecord
from counterfault.proxy.report import FORMATS

FILE = Path(__file__).with_name("openapi.json")

_STRING: Json = {"type": "string"}
_INFO: Json = {
    "title": "counterfault",
    "version": __version__,
    "description": "The admin API of a sidecar. Times are seconds, shares 0 to 1. HEAD works where"
    " GET does. With admin.token_file set, all but the probes asks for the token.",
}
_PROBLEMS = {
    "Forbidden": "The Host or Origin header is not this sidecar's",
    "NotFound": "Nothing of this name",
    "Unprocessable": "The configuration is not valid; nothing has changed",
    "TooMany": "Too many streams",
    "Unauthorized": "A token is needed",
    "BadRequest": "Not what the route takes",
}

# The problems of every route that asks for the token.
_GUARDED = ("Unauthorized", "Forbidden")
_STATUS = {
    "BadRequest": "400",
    "Unauthorized": "401",
    "Forbidden": "403",
    "NotFound": "404",
    "Unprocessable": "422",
    "TooMany": "503",
}
_BACK_TO_PAGE: Json = {"303": {"description": "A form of the page: back to it"}}


def document() -> Json:
    """Return the OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": _INFO,
        "security": [{}, {"token": []}, {"session": []}],
        "paths": _paths(),
        "components": {
            "responses": {name: _problem(name, text) for name, text in _PROBLEMS.items()},
            "schemas": schemas(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "counterfault",
                    "description": "Set by POST /login; the port is part of its name",
                },
            },
        },
    }


def text() -> str:
    """Return the document as the text of openapi.json."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def _paths() -> dict[str, Json]:
    name = _parameter("name", "^[a-z0-9-]{1,40}$")
    experiment = "/api/experiments/{name}"
    probe: Json = {"security": []}
    stopped = "Stopped; a worker has yet to confirm it"
    return {
        "/": {"get": _operation("page", "The page", _page_answers(), ["Forbidden"])},
        "/page/{file}": {
            "parameters": [_parameter("file", "^[A-Za-z0-9.-]{1,40}$")],
            "get": _operation(
                "asset",
                "A file of the page",
                _ok("The file", "text/javascript", "text/css")
                | {"304": {"description": "As If-None-Match has it"}},
                [*_GUARDED, "NotFound"],
            ),
        },
        "/login": {"get": _login_form(), "post": _login()},
        "/logout": {
            "post": _operation(
                "logout",
                "End a browser's session",
                {"303": {"description": "Signed out; on to the form"}},
                ["Forbidden"],
                **probe,
            )
        },
        "/metrics": {
            "get": _operation(
                "metrics",
                "Prometheus or OpenMetrics, by Accept",
                _ok("The metrics", "text/plain"),
                **probe,
            )
        },
        "/healthz": {
            "get": _operation("healthz", "The process lives", _ok("ok", "text/plain"), **probe)
        },
        "/readyz": {
            "get": _operation(
                "readyz",
                "Every worker acts on the plan",
                _ok("What is well, and what is not", "text/plain")
                | _answer("503", "Some worker is not ready", "text/plain"),
                **probe,
            )
        },
        "/-/reload": {
            "post": _operation(
                "reload",
                "Read the configuration again",
                _ok("It is in use", "text/plain")
                | _answer("202", "Accepted; a worker has yet to confirm it", "text/plain"),
                [*_GUARDED, "Unprocessable"],
            )
        },
        "/api/experiments": {
            "get": _operation(
                "overview", "Everything at a glance", _model("200", "The overview", Overview)
            )
        },
        experiment: {
            "parameters": [name],
            "get": _operation(
                "detail",
                "One experiment",
                _model("200", "The experiment", ExperimentDetail),
                [*_GUARDED, "NotFound"],
            ),
        },
        f"{experiment}/series": {
            "parameters": [name],
            "get": _operation(
                "series",
                "A run over time and its latencies, in columns for charts",
                _model("200", "The series", ChartData),
                [*_GUARDED, "NotFound"],
            ),
        },
        f"{experiment}/report": {"parameters": [name, *_report_parameters()], "get": _report()},
        f"{experiment}/stop": {
            "parameters": [name],
            "post": _operation(
                "stop",
                "Stop one experiment; until its `run` is raised it stays stopped",
                _model("200", "Stopped", ExperimentDetail)
                | _model("202", stopped, ExperimentDetail)
                | _BACK_TO_PAGE,
                [*_GUARDED, "NotFound"],
            ),
        },
        "/api/stop": {
            "post": _operation(
                "stopAll",
                "The kill switch: stop everything, let no run start",
                _model("200", "Stopped", Overview)
                | _model("202", stopped, Overview)
                | _BACK_TO_PAGE,
            )
        },
        "/api/resume": {
            "post": _operation(
                "resume",
                "Lift the kill switch; what it stopped stays stopped",
                _model("200", "Lifted", Overview) | _BACK_TO_PAGE,
            )
        },
        "/api/events": {
            "get": _operation(
                "events",
                "The overview every second, as server-sent events",
                _ok("Each `data` is an Overview", "text/event-stream"),
                [*_GUARDED, "TooMany"],
            )
        },
        "/openapi.json": {
            "get": _operation(
                "openapi",
                "This document",
                {"200": _content("OpenAPI 3.1", {"application/json": {"type": "object"}})},
            )
        },
    }


def _page_answers() -> Json:
    return _ok("HTML", "text/html") | _answer(
        "401", "The sign-in form: a token is needed", "text/html"
    )


def _login_form() -> Json:
    return _operation(
        "loginForm", "The sign-in form", _ok("HTML", "text/html"), ["Forbidden"], security=[]
    )


def _login() -> Json:
    form = {"type": "object", "required": ["token"], "properties": {"token": _STRING}}
    body = {"application/x-www-form-urlencoded": {"schema": form}}
    return _operation(
        "login",
        "A token for a browser's session",
        {"303": {"description": "Signed in; on to the page"}}
        | _answer("401", "Not the token; the form again", "text/html"),
        ["BadRequest", "Forbidden"],
        security=[],
        requestBody={"required": True, "content": body},
    )


def _report_parameters() -> list[Json]:
    formats = {"type": "string", "enum": list(FORMATS), "default": "text"}
    run = {"type": "integer", "minimum": 1, "maximum": 1_000_000}
    return [
        {"name": "format", "in": "query", "schema": formats},
        {
            "name": "run",
            "in": "query",
            "description": "A past run; without it, the present one",
            "schema": run,
        },
        {
            "name": "download",
            "in": "query",
            "description": "1: as a file to save",
            "schema": {"type": "string", "enum": ["0", "1"]},
        },
    ]


def _report() -> Json:
    content = {
        "text/plain": _STRING,
        "application/json": _reference(RunRecord),
        "application/xml": _STRING | {"description": "JUnit"},
        "text/html": _STRING,
    }
    return _operation(
        "report",
        "What became of a run, for people and for CI",
        {"200": _content("The report", content)},
        ["BadRequest", *_GUARDED, "NotFound"],
    )


def _operation(
    name: str, summary: str, answers: Json, problems: Iterable[str] = _GUARDED, **more: Any
) -> Json:
    """Return an operation with its own answers and with the problems it may answer with."""
    refused = {_STATUS[p]: {"$ref": f"#/components/responses/{p}"} for p in problems}
    if more.get("security") == [] and problems is _GUARDED:
        refused = {}
    responses = dict(sorted((answers | refused).items()))
    return {"operationId": name, "summary": summary, **more, "responses": responses}


def _ok(description: str, *types: str) -> Json:
    return _answer("200", description, *types)


def _answer(status: str, description: str, *types: str) -> Json:
    return {status: _content(description, dict.fromkeys(types, _STRING))}


def _model(status: str, description: str, model: type[JsonModel]) -> Json:
    return {status: _content(description, {"application/json": _reference(model)})}


def _content(description: str, by_type: Mapping[str, Json]) -> Json:
    content = {media: {"schema": schema} for media, schema in by_type.items()}
    return {"description": description, "content": content}


def _problem(name: str, description: str) -> Json:
    found = _content(description, {"application/problem+json": _reference(Problem)})
    if name == "Unauthorized":
        found["headers"] = {"WWW-Authenticate": {"schema": _STRING}}
    return found


def _reference(model: type[JsonModel]) -> Json:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _parameter(name: str, pattern: str) -> Json:
    schema = _STRING | {"pattern": pattern}
    return {"name": name, "in": "path", "required": True, "schema": schema}


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
