"""Queries a Prometheus server over HTTP."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.httputil import HTTPInputError
from tornado.iostream import UnsatisfiableReadError
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from counterfault.proxy.analysis.external.prometheus_response import (
    Answer,
    NoPrometheusAnswer,
    line,
    parse_response,
)
from counterfault.proxy.config.files import read_regular_file, reason_of
from counterfault.proxy.config.model import Config
from counterfault.proxy.config.sidecar import PrometheusServer
from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.supervisor.metric_source import NoAnswer

_MOST_BODY = 4 << 20
_MOST_TOKEN = 16 << 10
# Why a client gets no answer: the network, the certificate, or a response that is not HTTP.
_BROKEN = (HTTPClientError, HTTPInputError, UnsatisfiableReadError, OSError, ValueError)


def configured_source(config: Config) -> "PrometheusSource | None":
    """Return the source that a configuration names; None if it names none."""
    server = config.sidecar.prometheus
    return None if server is None else PrometheusSource(server, config.directory)


@dataclass(frozen=True, slots=True)
class PrometheusSource:
    """A MetricSource: the query API of a Prometheus server, or of one that speaks it.

    The paths in `server` are relative to `directory`. The files are read for each query, so that
    a token or a CA can be replaced while the sidecar runs.
    """

    server: PrometheusServer
    directory: Path

    async def query(self, queries: Mapping[Cohort, str], at: float) -> Mapping[Cohort, Answer]:
        """Return the answers to instant queries at `at`, in Unix seconds. Raises NoAnswer."""
        try:
            return await self._query(queries, at)
        except NoPrometheusAnswer as e:
            raise NoAnswer(str(e)) from e

    async def _query(self, queries: Mapping[Cohort, str], at: float) -> dict[Cohort, Answer]:
        server, token = self.server, None
        if server.token_file is not None:
            token = await asyncio.to_thread(_token, self.directory / server.token_file)
        ca = None if server.ca is None else self.directory / server.ca
        client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=_MOST_BODY)
        try:
            requests = (_request(server, query, at, token, ca) for query in queries.values())
            # All are awaited, even if the first has failed, so that no request is left behind.
            answers = await asyncio.gather(
                *(_answer(client, request) for request in requests), return_exceptions=True
            )
            return {c: _or_raise(answer) for c, answer in zip(queries, answers, strict=True)}
        finally:
            client.close()


def _or_raise(answer: Answer | BaseException) -> Answer:
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _token(file: Path) -> str:
    try:
        token = read_regular_file(file, _MOST_TOKEN).decode("ascii").strip()
    except OSError as e:
        raise NoPrometheusAnswer(f"token_file: {reason_of(e)}") from e
    except UnicodeDecodeError:
        token = ""
    if not token.isprintable() or not token or " " in token:
        raise NoPrometheusAnswer("token_file: holds no token")
    return token


def _request(
    server: PrometheusServer, query: str, at: float, token: str | None, ca: Path | None
) -> HTTPRequest:
    return HTTPRequest(
        f"{server.url}/api/v1/query",
        method="POST",
        headers={
            "Content-Type": "application/x-www-form-urlencoded",
            **({} if token is None else {"Authorization": f"Bearer {token}"}),
        },
        body=urlencode({"query": query, "time": f"{at:.3f}"}),
        connect_timeout=server.timeout,
        request_timeout=server.timeout,
        follow_redirects=False,
        decompress_response=False,  # the size of what comes out has no bound
        ca_certs=None if ca is None else str(ca),
    )


async def _answer(client: AsyncHTTPClient, request: HTTPRequest) -> Answer:
    try:
        response = await client.fetch(request, raise_error=False)
    except _BROKEN as e:
        raise NoPrometheusAnswer(line(e) or type(e).__name__) from e
    return parse_response(response.code, response.body or b"")
