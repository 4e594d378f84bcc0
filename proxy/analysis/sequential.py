"""Evidence for harm and for its absence, valid however often one looks.

A signal says how far the cohorts are from the boundary of the tolerance, in standard errors. Its
evidence is a mixture e-value against that boundary: under it, the chance that the evidence ever
reaches 1/alpha is alpha at most (Howard, Ramdas, McAuliffe & Sekhon, Annals of Statistics 2021;
Waudby-Smith et al., Annals of Statistics 2024, for estimated variances).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import copysign, erfc, exp, inf, log, log1p, pi, sqrt

# Harm is mixed over the distance from the boundary to no effect, and over one ten times as far:
# an outage is seen as soon as a slight degradation would be.
_NEAR, _FAR = 0.8, 0.2
_FAR_VARIANCE = 100.0
_STEPS = 60
_CLOSE = 1e-4
_SMALL = 1e-3
"""A step of Newton's after which the next would change nothing that is shown."""
_ROOT2, _DENSITY = sqrt(2), sqrt(2 / pi)
# Scores and events beyond these are as good as none.
_MOST, _MANY = 1e6, 1e12
_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Signal:
    """Where the experiment stands; positive is worse for users than the tolerance allows."""

    distance: float
    """From the boundary, on the metric's own scale."""
    z: float
    """The same in standard errors: the signed root of the deviance."""
    variance: float
    """Of the distance, at the boundary, users' correlation included."""
    reach: float
    """From the boundary to no effect at all."""
    freedom: float
    """Effective degrees of freedom of the variance."""

    @property
    def kappa(self) -> float:
        return self.reach * self.reach / self.variance if self.variance > 0 else 0.0

    @property
    def error(self) -> float:
        """The standard error that turns the distance into z."""
        tells = self.distance != 0 and abs(self.z) > 1e-6
        return self.distance / self.z if tells else sqrt(self.variance)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Natural logarithms of e-values; each side is decided at log(1/alpha)."""

    harm: float = 0.0
    within: float = 0.0


def evidence(signal: Signal) -> Evidence:
    """What a signal says for harm beyond the tolerance, and for an effect within it."""
    z, kappa = _normal(signal.z, signal.freedom), signal.kappa
    return Evidence(_harm(z, kappa), _log_e(-z, kappa))


def two_sided_evidence(signal: Signal) -> float:
    """Two-sided evidence of a difference from the boundary, as a logarithm."""
    z, kappa = _normal(signal.z, signal.freedom), signal.kappa
    return _log_mean(_log_e(z, kappa), _log_e(-z, kappa), 0.5)


def bounds(signal: Signal, harm_at: float, within_at: float) -> tuple[float, float]:
    """Anytime-valid bounds of the distance; the arguments are the evidence that decides.

    The lower one is above zero just when there is harm, the upper one below zero just when the
    effect is within.
    """
    kappa, far = signal.kappa, _FAR_VARIANCE * signal.kappa
    harm = _student(_inverse(((_NEAR, kappa), (_FAR, far)), harm_at), signal.freedom)
    within = _student(_inverse(((1.0, kappa),), within_at), signal.freedom)
    return signal.distance - harm * signal.error, signal.distance + within * signal.error


def needed_times(signal: Signal, target: float) -> float:
    """How many times as many events would bring a signal's `within` to a target.

    The square of z, and kappa, grow as the events do; inf if the signal is not within at all.
    """
    if signal.z >= 0:
        return inf
    z, kappa, freedom = -signal.z, signal.kappa, signal.freedom

    def within(times: float) -> float:
        return _log_e(_normal(z * sqrt(times), freedom), kappa * times)

    return _solve(within, target)


def _harm(z: float, kappa: float) -> float:
    return _log_mean(_log_e(z, kappa), _log_e(z, _FAR_VARIANCE * kappa), _NEAR)


def _log_e(z: float, kappa: float) -> float:
    """The one-sided normal mixture e-value of a z-score, as a logarithm."""
    x = z * sqrt(kappa / (2 + 2 * kappa))
    twice = erfc(-x)
    return log(twice) - 0.5 * log1p(kappa) + x * x if twice > 0 else -inf


def _log_mean(a: float, b: float, weight: float) -> float:
    """log(weight e^a + (1 - weight) e^b)."""
    top = max(a, b)
    if top == -inf:
        return -inf
    return top + log(weight * exp(a - top) + (1 - weight) * exp(b - top))


def _inverse(mixture: tuple[tuple[float, float], ...], target: float) -> float:
    """The score at which a mixture's evidence is a target: its parts' weights and kappas.

    By Newton's method: the evidence is convex in the score, so that from a score that is too high
    each next one is lower and still high enough. Where it starts, one part alone is enough.
    """
    z = min(_enough(weight, kappa, target) for weight, kappa in mixture)
    for _ in range(_STEPS):
        value, slope = 0.0, 0.0
        for weight, kappa in mixture:
            part, rise = _tangent(z, kappa)
            likelihood = weight * exp(part - target)
            value, slope = value + likelihood, slope + likelihood * rise
        step = log(value) * value / slope
        z -= step
        if step < _SMALL * z:
            break
    return min(z, _MOST)


def _enough(weight: float, kappa: float, target: float) -> float:
    """A score that is enough for a part of a mixture even if its e-value were two-sided."""
    w = max(kappa / (1 + kappa), _TINY)
    return min(sqrt(2 * (target - log(weight) + 0.5 * log1p(kappa)) / w), _MOST)


def _tangent(z: float, kappa: float) -> tuple[float, float]:
    """The logarithm of a one-sided mixture e-value of a score of at least 0, and its slope."""
    w = kappa / (1 + kappa)
    x = z * sqrt(w)
    twice = erfc(-x / _ROOT2)
    value = log(twice) - 0.5 * log1p(kappa) + 0.5 * x * x
    return value, sqrt(w) * (x + _DENSITY * exp(-0.5 * x * x) / twice)


def _normal(z: float, freedom: float) -> float:
    """A t-score as a normal score (Wallace, Annals of Mathematical Statistics 1959)."""
    scale = (8 * freedom + 1) / (8 * freedom + 3)
    return copysign(scale * sqrt(freedom * log1p(z * z / freedom)), z)


def _student(z: float, freedom: float) -> float:
    """The inverse of `_normal` for z of at least 0; where it overflows, inf."""
    scale = (8 * freedom + 1) / (8 * freedom + 3)
    power = (z / scale) ** 2 / freedom
    return sqrt(freedom * (exp(power) - 1)) if power < 700 else inf


def _solve(rising: Callable[[float], float], target: float) -> float:
    """Where a rising function of a positive number reaches its target."""
    low, high = 0.0, 4.0
    while rising(high) < target and high < _MANY:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if high - low < _CLOSE * high:
            break
        low, high = (low, middle) if rising(middle) >= target else (middle, high)
    return high
