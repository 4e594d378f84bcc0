"""Bounds of the buckets of Envoy's duration histograms, in microseconds."""

from itertools import pairwise
from math import sqrt

from counterfault.proxy.values.buckets import DURATION_BUCKETS

EXPORTED = tuple(round(bound * 1e6, 3) for bound in DURATION_BUCKETS)
"""The bounds of the buckets that `/metrics` shows."""

# Finer buckets, from which the sum of all durations is estimated: Envoy's access log would count it
# exactly, and would take 3 % more of Envoy's time. Below the first exported bound, four an octave.
_BELOW = tuple(round(EXPORTED[0] / 2 ** (i / 4), 3) for i in range(16, 0, -1))
_BETWEEN = tuple(round(sqrt(low * high), 3) for low, high in pairwise(EXPORTED))

# The last bucket holds what is longer than all exported bounds.
BUCKETS = (*sorted((*_BELOW, *_BETWEEN, *EXPORTED)), 1e13)
