"""wrk as a crowd that never rests: many connections, each asking as soon as it is answered."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.programs import program

_CONNECTIONS = 32
_LONG = 60


@dataclass(slots=True)
class WrkResult:
    """What came of it, once it is over. Connections that were refused count nowhere."""

    answered: int = 0
    lost: int = 0
    """Sent, or at least let in, and not answered."""
    wrong: int = 0
    """Answers that are no success."""


@contextmanager
def under_wrk_load(url: str, *headers: str) -> Iterator[WrkResult]:
    """Under way inside; it goes on when there is nobody to answer."""
    told = (part for header in headers for part in ("-H", header))
    command = [program("wrk"), "-t1", f"-c{_CONNECTIONS}", f"-d{_LONG}s", *told, url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seen = WrkResult()
    try:
        yield seen
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=10)
    seen.answered = _number(r"(\d+) requests in", said)
    seen.lost = _number(r"Socket errors: .* read (\d+),", said)
    seen.wrong = _number(r"Non-2xx or 3xx responses: (\d+)", said)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0
