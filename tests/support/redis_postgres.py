"""Real stores that speak protocols of their own: Redis and PostgreSQL, from Debian."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import redis

from tests.support.programs import free_port, program, unavailable, until


@contextmanager
def redis_server(directory: Path) -> Iterator[int]:
    """The port of a Redis server."""
    port = free_port()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    with subprocess.Popen(
        [program("redis-server"), *arguments], stdout=subprocess.DEVNULL
    ) as server:
        try:
            until(lambda: _answers(port))
            yield port
        finally:
            server.terminate()


def _answers(port: int) -> bool:
    try:
        return bool(redis.Redis(port=port).ping())
    except redis.ConnectionError:
        return False


@contextmanager
def postgres_server() -> Iterator[int]:
    """The port of a PostgreSQL server; root must not run one, so it is run as `postgres`."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("postgres", path=os.pathsep.join(map(str, homes)))
    home = Path(found or program("postgres")).parent
    with TemporaryDirectory(prefix="counterfault-postgres-") as place:
        data, as_user = Path(place), list[str]()
        if os.geteuid() == 0:
            if not os.stat(os.devnull).st_mode & 0o002:
                unavailable(f"{os.devnull} is not for everybody: PostgreSQL cannot start")
            shutil.chown(data, "postgres", "postgres")
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        with _running(home, data, as_user) as port:
            yield port


@contextmanager
def _running(home: Path, data: Path, as_user: list[str]) -> Iterator[int]:
    port = free_port()
    initdb = [*as_user, str(home / "initdb"), "-D", str(data), "-A", "trust", "-U", "shop", "-N"]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL)
    settings = ["-p", str(port), "-h", "127.0.0.1", "-k", str(data), "-F"]
    with subprocess.Popen(
        [*as_user, str(home / "postgres"), "-D", str(data), *settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            until(lambda: _serves(port))
            yield port
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)


def _serves(port: int) -> bool:
    try:
        with query(port) as connection:
            return connection.execute("select 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def query(port: int, timeout: int = 10) -> psycopg.Connection[tuple[object, ...]]:
    """A connection to a PostgreSQL server."""
    dsn = f"host=127.0.0.1 port={port} user=shop dbname=postgres connect_timeout={timeout}"
    return psycopg.connect(f"{dsn} sslmode=disable gssencmode=disable", autocommit=True)


def seconds_since(start: float) -> float:
    return time.monotonic() - start
