"""The page: rendered here, so that it needs no script; scripts keep it fresh and draw charts."""

from base64 import b64encode
from collections.abc import Collection
from hashlib import sha256
from importlib.resources import files
from typing import Any

from tornado.template import DictLoader

from counterfault.proxy.admin.page import wording
from counterfault.proxy.admin.page.gauge import Gauge
from counterfault.proxy.values.units import percent

_LIVE = ("baseline", "running", "recovering")
_ORDER = (*_LIVE, "pending", "done", "stopped")
# More experiments that are over are shown closed, below those under way.
_FEW = 2


def _file(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _policy(**directives: str) -> str:
    """A Content-Security-Policy: nothing is allowed but this."""
    said = {"default-src": "'none'", "base-uri": "'none'", "frame-ancestors": "'none'"}
    said |= {name.replace("_", "-"): value for name, value in directives.items()}
    return "; ".join(f"{name} {value}" for name, value in said.items())


_LOADER = DictLoader(
    {name: _file(name) for name in ("page.html", "experiment.html", "metric.html", "login.html")},
    whitespace="all",
)
_LOGIN_CSS = _file("login.css")
_LOGIN_HASH = b64encode(sha256(_LOGIN_CSS.encode()).digest()).decode()

POLICY = _policy(
    script_src="'self'",
    style_src="'self'",
    connect_src="'self'",
    img_src="data:",
    form_action="'self'",
)
# Whoever has no token yet gets no other file, so the form brings its style along.
LOGIN_POLICY = _policy(style_src=f"'sha256-{_LOGIN_HASH}'", img_src="data:", form_action="'self'")


def login(wrong: str = "") -> str:
    """The form that asks for the token; `wrong` says why it asks again."""
    return _LOADER.load("login.html").generate(css=_LOGIN_CSS, wrong=wrong).decode()


def render(
    overview: dict[str, Any],
    timelines: dict[str, list[dict[str, Any]]],
    paused: Collection[str] = (),
    signed_in: bool = False,
) -> str:
    """The page for an overview; the templates escape all text. `paused`: whose files say so."""
    experiments = sorted(overview["experiments"], key=lambda e: _ORDER.index(e["state"]))
    few = sum(e["state"] not in _LIVE for e in experiments) <= _FEW
    page = _LOADER.load("page.html").generate(
        o=overview,
        experiments=experiments,
        timelines=timelines,
        paused=paused,
        risk=_risk(overview),
        signed_in=signed_in,
        opened=lambda e: e["state"] in _LIVE or (few and e["state"] != "pending"),
        percent=percent,
        gauge=Gauge.of,
        dose=_dose,
        **_WORDS,
    )
    return page.decode()


_WORDS = {
    word.__name__: word
    for word in (
        wording.seconds,
        wording.left,
        wording.many,
        wording.share,
        wording.effect,
        wording.utc,
        wording.clock,
        wording.sample_ratio,
        wording.until_verdict,
        wording.phases,
    )
}


def _risk(overview: dict[str, Any]) -> dict[str, float]:
    """The shares of users in live cohorts, and how much of the cap's bar each takes."""
    cap = overview["limits"]["enrolled"]
    found: dict[str, float] = {}
    for cohort in ("experiment", "control"):
        live = (e["cohorts"][cohort] for e in overview["experiments"] if e["state"] in _LIVE)
        found[cohort] = sum(live)
        found[f"{cohort}_width"] = round(found[cohort] / cap * 100, 2) if cap else 0.0
    return found


def _dose(dose: Any) -> str:
    return dose if isinstance(dose, str) else percent(dose)
