"""The page of the admin port: complete as HTML; scripts only keep it fresh and draw charts."""

from base64 import b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files

from tornado.template import DictLoader

from counterfault.proxy.admin.page import wording
from counterfault.proxy.admin.page.gauge import Gauge
from counterfault.proxy.analysis.wording import WITHOUT_BASELINE
from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.experiments.lifecycle import LIVE, State
from counterfault.proxy.models.json_model import of_cohort
from counterfault.proxy.models.overview import ExperimentSummary, Overview
from counterfault.proxy.models.run_record import TimelineEvent
from counterfault.proxy.values.units import percent

# Live runs come first; the others follow as they are of interest.
_ORDER = (
    *(State.BASELINE, State.RUNNING, State.RECOVERING),
    *(State.PENDING, State.DONE, State.STOPPED),
)
# Up to this many runs that are over are shown with their details open.
_FEW = 2


def _file(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _policy(**directives: str) -> str:
    """Return a Content-Security-Policy that allows nothing but the given directives."""
    found = {"default-src": "'none'", "base-uri": "'none'", "frame-ancestors": "'none'"}
    found |= {name.replace("_", "-"): value for name, value in directives.items()}
    return "; ".join(f"{name} {value}" for name, value in found.items())


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
# A browser without a token gets no other file, so the form contains its style sheet.
LOGIN_POLICY = _policy(style_src=f"'sha256-{_LOGIN_HASH}'", img_src="data:", form_action="'self'")


def login(wrong: str = "") -> str:
    """Return the form that asks for the token; `wrong` says why it asks again."""
    return _LOADER.load("login.html").generate(css=_LOGIN_CSS, wrong=wrong).decode()


def render(
    overview: Overview,
    timelines: Mapping[str, Sequence[TimelineEvent]],
    paused: Collection[str] = (),
    signed_in: bool = False,
) -> str:
    """Return the page. The templates escape all text of users.

    Args:
        overview: The state of the sidecar.
        timelines: The changes of each run's state, by experiment.
        paused: The experiments whose files say `state: paused`.
        signed_in: Whether to show a button to sign out.
    """
    experiments = sorted(overview.experiments, key=lambda e: _ORDER.index(e.state))
    page = _LOADER.load("page.html").generate(
        o=overview,
        experiments=experiments,
        timelines=timelines,
        paused=paused,
        risk=_risk(overview),
        signed_in=signed_in,
        opened=_opened(experiments),
        percent=percent,
        gauge=Gauge.of,
        dose=_dose,
        of_cohort=of_cohort,
        without_baseline=WITHOUT_BASELINE,
        **_WORDS,
    )
    return page.decode()


_WORDS = {
    word.__name__: word
    for word in (
        wording.seconds,
        wording.duration,
        wording.count,
        wording.share,
        wording.effect,
        wording.utc,
        wording.clock,
        wording.sample_ratio,
        wording.until_verdict,
        wording.phases,
    )
}


def _opened(experiments: Sequence[ExperimentSummary]) -> Callable[[ExperimentSummary], bool]:
    """Return a function that says whether the details of an experiment are shown open."""
    few = sum(e.state not in LIVE for e in experiments) <= _FEW
    return lambda e: e.state in LIVE or (few and e.state is not State.PENDING)


def _risk(overview: Overview) -> dict[str, float]:
    """Return the share of users in live cohorts, 0 to 1, and its width in the bar, of 100."""
    most = overview.limits.enrolled
    found: dict[str, float] = {}
    for cohort in reversed(ENROLLED):
        live = (of_cohort(e.cohorts, cohort) for e in overview.experiments if e.state in LIVE)
        found[cohort] = sum(live)
        found[f"{cohort}_width"] = round(found[cohort] / most * 100, 2) if most else 0.0
    return found


def _dose(dose: float | str) -> str:
    return dose if isinstance(dose, str) else percent(dose)
