"""Exchanges of one cohort at one listener: how many by status class, and how many by duration."""

from collections import Counter
from collections.abc import Iterable

from counterfault.proxy.measurement.quantiles import duration_quantile

# The status classes that are errors: the server's, and exchanges without a whole response.
_ERRORS = ("5xx", "error")


class Traffic:
    """Counts of exchanges. They only grow."""

    __slots__ = ("by_bucket", "by_code")

    def __init__(self) -> None:
        """Begin without an exchange."""
        self.by_code: Counter[str] = Counter()
        """By status class, one of `exchanges.CODES`."""
        self.by_bucket: Counter[int] = Counter()
        """By the index of their duration in `DURATION_BUCKETS`."""

    def add(self, code: str, bucket: int, count: int) -> None:
        """Add exchanges of one status class and one bucket."""
        self.by_code[code] += count
        self.by_bucket[bucket] += count

    @property
    def requests(self) -> int:
        """How many exchanges there are."""
        return self.by_code.total()

    @property
    def errors(self) -> int:
        """How many have failed or were answered with 5xx."""
        return sum(self.by_code[code] for code in _ERRORS)

    def quantile(self, q: float) -> float | None:
        """Return a quantile of the durations, 0 to 1, in seconds; None without an exchange."""
        return duration_quantile(self.by_bucket, q)


def total(parts: Iterable[Traffic]) -> Traffic:
    """Return the sum of several counts."""
    found = Traffic()
    for part in parts:
        found.by_code.update(part.by_code)
        found.by_bucket.update(part.by_bucket)
    return found
