"""Which hosts and origins a browser may name."""

from counterfault.proxy.admin.request_origin import host_problem, origin_problem
from tests.support.cases import each


@each("host", ["", "[", "a.example", "127.0.0.1.a.example", "127.0.0.1@a.b"])
def test_strange_hosts_are_foreign(host):
    assert host_problem(host, "127.0.0.1") is not None


def test_the_configured_host_is_ours():
    assert host_problem("Admin.example:9900", "admin.example") is None


def test_clients_that_are_no_browsers_have_no_origin():
    assert origin_problem({}, "localhost:9900") is None
