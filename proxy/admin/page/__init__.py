"""The page: rendered here, kept fresh by a few lines of script or, without it, by the browser."""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Any

from tornado.template import Template

from proxy.units import percent


def _file(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


_CSS, _JS = _file("page.css"), _file("page.js")
_TEMPLATE = Template(_file("page.html"), "page.html", whitespace="all")

POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(_CSS)}",
        f"script-src {_hash(_JS)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_LOGIN_CSS = _file("login.css")
_LOGIN = Template(_file("login.html"), "login.html", whitespace="all")
LOGIN_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(_LOGIN_CSS)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


def login(wrong: str = "") -> str:
    """The form that asks for the token; `wrong` says why it asks again."""
    return _LOGIN.generate(css=_LOGIN_CSS, wrong=wrong).decode()


def render(overview: dict[str, Any]) -> str:
    """The page for an overview; the template escapes all text."""
    return _TEMPLATE.generate(
        o=overview, css=_CSS, js=_JS, percent=percent, seconds=seconds, left=left, many=many
    ).decode()


def seconds(value: float | None) -> str:
    """A latency: 1.23 s, 45.6 ms; a dash where there is none."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def left(value: float) -> str:
    """A time that passes: 9 s, 1 min 05 s, 2 h 00 min."""
    whole = int(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def many(value: int) -> str:
    """A count with narrow spaces between its thousands."""
    return f"{value:,}".replace(",", "\u202f")
