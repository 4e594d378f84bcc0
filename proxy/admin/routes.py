"""The routes of the admin port, except those of sessions and of the event stream."""

import re
from http import HTTPStatus
from importlib.resources import files

from counterfault.proxy.admin import metrics, page
from counterfault.proxy.admin.chart_data import chart_data
from counterfault.proxy.admin.page.assets import ASSETS
from counterfault.proxy.admin.route import HTML, Route
from counterfault.proxy.admin.views import detail, overview, report
from counterfault.proxy.config.model import ConfigError
from counterfault.proxy.report import FORMATS
from counterfault.proxy.report.html import POLICY as REPORT_POLICY
from counterfault.proxy.runs.record import NotRecorded
from counterfault.proxy.supervisor.sidecar_state import SidecarState
from counterfault.proxy.supervisor.supervisor import UnknownExperiment
from counterfault.proxy.values.suggestions import unknown

_OPENAPI = files("counterfault.proxy.admin").joinpath("openapi.json").read_text(encoding="utf-8")


class Page(Route):
    """GET /: the page."""

    def get(self) -> None:
        self.set_header("Content-Security-Policy", page.POLICY)
        self.text(self.site.page(), HTML)

    head = get

    def unauthorized(self) -> None:
        self.set_header("Content-Security-Policy", page.LOGIN_POLICY)
        self.text(page.login(), HTML)


class Asset(Route):
    """GET /page/NAME: a script or style sheet of the page."""

    def get(self, name: str) -> None:
        asset = ASSETS.get(name)
        if asset is None:
            self.problem(HTTPStatus.NOT_FOUND, f"no such file: {name}")
            return
        self.set_header("Cache-Control", "no-cache")
        self.set_header("ETag", asset.etag)
        if self.check_etag_header():
            self.set_status(HTTPStatus.NOT_MODIFIED)
            return
        self.set_header("Content-Type", asset.kind)
        self.finish(asset.content)

    head = get


class Metrics(Route):
    """GET /metrics: Prometheus or OpenMetrics, by the Accept header."""

    is_public = True

    def get(self) -> None:
        body, kind = metrics.render(self.supervisor, self.request.headers.get("Accept", ""))
        self.set_header("Vary", "Accept")
        self.text(body.decode(), kind)

    head = get


class Alive(Route):
    """GET /healthz: the process answers."""

    is_public = True

    def get(self) -> None:
        self.text("ok\n")

    head = get


class Ready(Route):
    """GET /readyz: whether all workers act on the plan."""

    is_public = True

    def get(self) -> None:
        ready, lines = readiness(self.supervisor)
        self.set_status(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)
        self.text("".join(f"{line}\n" for line in lines))

    head = get


class Reload(Route):
    """POST /-/reload: read the configuration again; 202 if a worker has yet to confirm it."""

    async def post(self) -> None:
        try:
            confirmed = await self.supervisor.reload()
        except ConfigError as e:
            said = "the configuration is not valid; nothing has changed"
            problems = [str(problem) for problem in e.problems]
            self.problem(HTTPStatus.UNPROCESSABLE_ENTITY, said, problems)
        else:
            self.set_status(HTTPStatus.OK if confirmed else HTTPStatus.ACCEPTED)
            self.text("reloaded\n")


class Experiments(Route):
    """GET /api/experiments: the sidecar and all experiments."""

    def get(self) -> None:
        self.model(overview(self.supervisor))

    head = get


class Experiment(Route):
    """GET /api/experiments/NAME: one experiment with its history."""

    def get(self, name: str) -> None:
        try:
            self.model(detail(self.supervisor, name))
        except UnknownExperiment:
            self.unknown_experiment(name)

    head = get


class Report(Route):
    """GET /api/experiments/NAME/report?format=…&run=…&download=1: the report on a run."""

    def get(self, name: str) -> None:
        asked = self.get_query_argument("format", "text")
        number = self.get_query_argument("run", "")
        download = self.get_query_argument("download", "0")
        form = FORMATS.get(asked)
        if form is None:
            return self.problem(HTTPStatus.BAD_REQUEST, unknown("format", asked, FORMATS))
        if number and not re.fullmatch("[1-9][0-9]{0,6}", number):
            return self.problem(HTTPStatus.BAD_REQUEST, "run must be a number from 1, such as 3")
        if download not in ("0", "1"):
            return self.problem(HTTPStatus.BAD_REQUEST, "download must be 0 or 1")
        try:
            record = report(self.supervisor, name, int(number) if number else None)
        except UnknownExperiment:
            return self.unknown_experiment(name)
        except NotRecorded as e:
            return self.problem(HTTPStatus.NOT_FOUND, str(e))
        if asked == "html":
            self.set_header("Content-Security-Policy", f"{REPORT_POLICY}; frame-ancestors 'none'")
        if download == "1":
            file = f"{record.name}-{record.run}.{form.suffix}"
            self.set_header("Content-Disposition", f'attachment; filename="{file}"')
        return self.text(form.render(record, None), form.content_type)

    head = get


class Series(Route):
    """GET /api/experiments/NAME/series: the data of the charts."""

    def get(self, name: str) -> None:
        try:
            self.model(chart_data(self.supervisor, name))
        except UnknownExperiment:
            self.unknown_experiment(name)

    head = get


class Stop(Route):
    """POST /api/stop and /api/experiments/NAME/stop; 202 if a worker has yet to confirm it."""

    async def post(self, name: str | None = None) -> None:
        try:
            confirmed = await self.supervisor.stop(name)
        except UnknownExperiment as e:
            return self.unknown_experiment(str(e))
        if not confirmed:
            self.set_status(HTTPStatus.ACCEPTED)
        if self.back_to_page():
            return None
        supervisor = self.supervisor
        return self.model(overview(supervisor) if name is None else detail(supervisor, name))


class Resume(Route):
    """POST /api/resume: lift the kill switch."""

    def post(self) -> None:
        self.supervisor.resume()
        if not self.back_to_page():
            self.model(overview(self.supervisor))


class OpenApi(Route):
    """GET /openapi.json: the description of this API."""

    def get(self) -> None:
        self.text(_OPENAPI, "application/json")

    head = get


def readiness(sidecar: SidecarState) -> tuple[bool, list[str]]:
    """Return whether all workers are ready, and a line on each thing that is well or not."""
    wanted, ready = sidecar.config.sidecar.workers, sidecar.engine.ready
    fine = ready >= wanted
    lines = [f"[{'+' if fine else '-'}] workers {ready}/{wanted}"]
    if error := sidecar.reader.error:
        where = "" if error.startswith("state_dir") else "state_dir: "
        lines.append(f"[-] {where}{error}: no run starts")
    else:
        lines.append("[+] state_dir")
    if sidecar.reload_error is None:
        lines.append("[+] last reload")
    else:
        first, *more = sidecar.reload_error.problems
        rest = f" (and {len(more)} more)" if more else ""
        lines.append(f"[-] last reload failed: {first}{rest}")
    return fine, lines
