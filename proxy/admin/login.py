"""The routes that sign a browser in and out. Other clients send the token with each request."""

from http import HTTPStatus

from counterfault.proxy.admin import page
from counterfault.proxy.admin.access_token import SESSION_SECONDS
from counterfault.proxy.admin.route import HTML, Route, cookie_name


class Login(Route):
    """GET and POST /login: exchange the token for a cookie."""

    needs_token = False

    def get(self) -> None:
        self.show_form()

    head = get

    def post(self) -> None:
        token, offered = self.site.token, self.get_body_argument("token")
        if token is not None and not token.matches(offered):
            self.set_status(HTTPStatus.UNAUTHORIZED)
            self.show_form("That is not the token.")
            return
        if token is not None:
            _set_cookie(self, token.new_session(), SESSION_SECONDS)
        self.redirect("/", status=HTTPStatus.SEE_OTHER)

    def show_form(self, wrong: str = "") -> None:
        """Answer with the form; `wrong` says why it is shown again."""
        self.set_header("Content-Security-Policy", page.LOGIN_POLICY)
        self.text(page.login(wrong), HTML)


class Logout(Route):
    """POST /logout: remove the cookie."""

    needs_token = False

    def post(self) -> None:
        _set_cookie(self, "", 0)
        self.redirect("/login", status=HTTPStatus.SEE_OTHER)


def _set_cookie(route: Route, session: str, seconds: int) -> None:
    name = cookie_name(route.request.host)
    route.set_cookie(name, session, httponly=True, samesite="Strict", max_age=seconds)
