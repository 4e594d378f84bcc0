"""Clients that ask all the time and remember everything that went wrong."""

import threading
from typing import Any

import httpx

from tests.support import http_clients


class Clients(threading.Thread):
    """Requests one after the other, on one connection or each on its own; a context manager.

    `pause`: so many seconds after each, where a moment at which nobody asks does not matter.
    """

    def __init__(
        self,
        url: str,
        connection: str = "keep-alive",
        user: str | None = None,
        pause: float = 0.0,
    ) -> None:
        super().__init__()
        self._pause = pause
        self._url = url
        self._headers = {"connection": connection, **({"x-user-id": user} if user else {})}
        self._enough = threading.Event()
        self.count = 0
        self.wrong: list[Any] = []

    def run(self) -> None:
        with http_clients.Client(headers=self._headers, timeout=20) as client:
            while not self._enough.is_set():
                try:
                    answer = client.get(self._url)
                    if answer.status_code != 200:
                        self.wrong.append(answer.status_code)
                except httpx.TransportError as e:
                    self.wrong.append(e)
                self.count += 1
                if self._pause:
                    self._enough.wait(self._pause)

    def __enter__(self) -> "Clients":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self.join()
