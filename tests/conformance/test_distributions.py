"""What real clients measure is what was asked for: within 10 ms and 5 %, at p50 and p90."""

import time
from concurrent.futures import ThreadPoolExecutor
from statistics import quantiles

import httpx
import pytest
from programs import MakeNginx, MakeSidecar, user

REQUESTS = 400
CASES = {
    "fixed": ("200ms", 0.2, 0.2),
    "jitter": ({"mean": "200ms", "jitter": "100ms"}, 0.2, 0.28),
    "percentiles": ({"p50": "100ms", "p90": "300ms"}, 0.1, 0.3),
    "lognormal": ({"lognormal": {"median": "150ms", "sigma": 0.3}}, 0.15, 0.2203),
    "values": ({"recorded": "values.csv"}, 0.2005, 0.2805),
    "buckets": ({"recorded": "buckets.csv"}, 0.2, 0.36),
}
VALUES = "\n".join(f"{100 + i}ms" for i in range(201)).encode()
BUCKETS = b"le,count\n0.1,100\n0.2,200\n0.4,400\n+Inf,400\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_clients_wait_as_long_as_was_asked(
    make_sidecar: MakeSidecar, make_nginx: MakeNginx, engine: str, name: str
) -> None:
    nginx = make_nginx('location / { return 200 "hello"; }')
    sidecar = make_sidecar(nginx.url, engine=engine).start()
    for file, content in (("values.csv", VALUES), ("buckets.csv", BUCKETS)):
        (sidecar.directory / "experiments" / file).write_bytes(content)
    latency, p50, p90 = CASES[name]
    sidecar.running(faults=[{"at": "inbound", "latency": latency}])
    headers = {"x-user-id": user("experiment")}
    with httpx.Client(headers=headers, trust_env=False) as client:

        def ask(_: int) -> float:
            start = time.monotonic()
            assert client.get(sidecar.url).status_code == 200
            return time.monotonic() - start

        with ThreadPoolExecutor(4) as threads:
            took = list(threads.map(ask, range(REQUESTS)))
    cuts = quantiles(took, n=10)
    for measured, asked in ((cuts[4], p50), (cuts[8], p90)):
        # Besides what is promised, what a sample of 400 may be off by chance.
        assert abs(measured - asked) < 0.010 + 0.05 * asked + _chance(name, asked)


def _chance(name: str, asked: float) -> float:
    """Three standard errors of a quantile; the densities are about 1 / (2 * asked)."""
    return 0.0 if name == "fixed" else 3 * (0.25 / REQUESTS) ** 0.5 * asked
