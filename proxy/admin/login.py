"""Signing a browser in and out; everybody else sends the token itself."""

from http import HTTPStatus

from counterfault.proxy.admin import page
from counterfault.proxy.admin.access_token import SESSION
from counterfault.proxy.admin.route import HTML, Route, cookie_name


class Login(Route):
    """GET and POST /login: a token for a cookie."""

    wants_token = False

    def get(self) -> None:
        self.form()

    head = get

    def post(self) -> None:
        token, offered = self.site.token, self.get_body_argument("token")
        if token is not None and not token.matches(offered):
            self.set_status(HTTPStatus.UNAUTHORIZED)
            self.form("That is not the token.")
            return
        if token is not None:
            _keep(self, token.session(), SESSION)
        self.redirect("/", status=HTTPStatus.SEE_OTHER)

    def form(self, wrong: str = "") -> None:
        """The form."""
        self.set_header("Content-Security-Policy", page.LOGIN_POLICY)
        self.text(page.login(wrong), HTML)


class Logout(Route):
    """POST /logout."""

    wants_token = False

    def post(self) -> None:
        _keep(self, "", 0)
        self.redirect("/login", status=HTTPStatus.SEE_OTHER)


def _keep(route: Route, session: str, seconds: int) -> None:
    name = cookie_name(route.request.host)
    route.set_cookie(name, session, httponly=True, samesite="Strict", max_age=seconds)
