"""Evidence for harm and for its absence, valid however often it is evaluated.

A signal is the distance of the cohorts from the boundary of the tolerance, in standard errors. Its
evidence is a normal mixture e-value against that boundary: on the boundary, the chance that the
evidence ever reaches 1/alpha is at most alpha (Howard, Ramdas, McAuliffe & Sekhon, Time-uniform,
nonparametric, nonasymptotic confidence sequences, Annals of Statistics 49, 2021; with estimated
variances: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, Time-uniform central limit theory and
asymptotic confidence sequences, Annals of Statistics 52, 2024).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import copysign, erfc, exp, inf, log, log1p, pi, sqrt

# The evidence "within" is mixed over effects about none at all, which it is to find: by a normal
# distribution about the distance from the boundary to no effect, whose deviation is part of that
# (Grünwald, de Heide & Koolen, Safe testing, Journal of the Royal Statistical Society B 86, 2024).
_WITHIN_DEVIATION = 0.3
_WITHIN_VARIANCE = _WITHIN_DEVIATION**2
# The weights of two mixtures for harm: one as wide as the distance from the boundary to no effect,
# one ten times as wide, so that outages are found as soon as slight degradations are.
_NEAR, _FAR = 0.8, 0.2
_FAR_VARIANCE = 100.0
_STEPS = 60
_CLOSE = 1e-4
_SMALL = 1e-3
"""Relative step of Newton's method after which the next would change no digit that is shown."""
_ROOT2, _DENSITY = sqrt(2), sqrt(2 / pi)
_WITHIN_SIDE = erfc(-1 / (_WITHIN_DEVIATION * _ROOT2))
# Bounds of scores, and of multiples of events.
_MOST, _MANY = 1e6, 1e12
_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Signal:
    """The experiment's distance from the boundary; positive is worse than the tolerance allows."""

    distance: float
    """The distance from the boundary, in the unit of the metric: see `deviance`."""
    z: float
    """The distance in standard errors: the signed root of the deviance."""
    variance: float
    """The variance of the distance at the boundary, with the correlation of users' requests."""
    reach: float
    """The distance from the boundary to no effect at all, in the unit of `distance`."""
    freedom: float
    """Effective degrees of freedom of the variance."""
    blind: float = 0.0
    """How much of the distance cannot be told from none, however many events there are."""
    scale: float = 1.0
    """A unit of `distance` in the unit of `variance` and `reach`."""

    @property
    def kappa(self) -> float:
        """The variance of the mixture in units of that of the distance."""
        return self.reach * self.reach / self.variance if self.variance > 0 else 0.0

    @property
    def error(self) -> float:
        """The standard error: the distance divided by z."""
        tells = self.distance != 0 and abs(self.z) > 1e-6
        return self.distance / self.z if tells else sqrt(self.variance) * self.scale

    @property
    def told(self) -> float:
        """The score that is evidence: z, less what is blind."""
        if not self.blind:
            return self.z
        return self.z * max(0.0, 1 - self.blind / abs(self.distance)) if self.distance else 0.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Natural logarithms of the e-values for harm, and for an effect within the tolerance."""

    harm: float = 0.0
    within: float = 0.0


def evidence(signal: Signal) -> Evidence:
    """Return the evidence of a signal."""
    z, kappa = _normal(signal.told, signal.freedom), signal.kappa
    return Evidence(_harm(z, kappa), _log_within(-z, kappa))


def two_sided_evidence(signal: Signal) -> float:
    """Return the two-sided evidence of a difference from the boundary, a natural logarithm."""
    z, kappa = _normal(signal.told, signal.freedom), signal.kappa
    return _log_mean(_log_e(z, kappa), _log_e(-z, kappa), 0.5)


def bounds(signal: Signal, harm_at: float, within_at: float) -> tuple[float, float]:
    """Return bounds of the distance that are valid at any time, in its unit.

    The lower one is above zero exactly when the evidence for harm is above `harm_at`, the upper one
    below zero exactly when that for "within" is above `within_at` (natural logarithms).
    """
    kappa, far = signal.kappa, _FAR_VARIANCE * signal.kappa
    harm = _student(_inverse(((_NEAR, kappa), (_FAR, far)), harm_at), signal.freedom)
    within = _student(_inverse_within(kappa, within_at), signal.freedom)
    low = signal.distance - signal.blind - harm * signal.error
    return low, signal.distance + signal.blind + within * signal.error


def needed_times(signal: Signal, target: float) -> float:
    """Return how many times as many events would bring the evidence for "within" to a target.

    `target` is a natural logarithm. The square of z and kappa grow in proportion to the events.
    Returns inf if the signal is beyond the boundary.
    """
    if signal.told >= 0:
        return inf
    z, kappa, freedom = -signal.told, signal.kappa, signal.freedom

    def within(times: float) -> float:
        return _log_within(_normal(z * sqrt(times), freedom), kappa * times)

    return _solve(within, target)


def _harm(z: float, kappa: float) -> float:
    return _log_mean(_log_e(z, kappa), _log_e(z, _FAR_VARIANCE * kappa), _NEAR)


def _log_e(z: float, kappa: float) -> float:
    """Return the natural logarithm of the one-sided normal mixture e-value of a z-score."""
    x = z * sqrt(kappa / (2 + 2 * kappa))
    twice = erfc(-x)
    return log(twice) - 0.5 * log1p(kappa) + x * x if twice > 0 else -inf


def _log_within(z: float, kappa: float) -> float:
    """Return the natural logarithm of the e-value of a z-score on the side of "within".

    Of the normal distribution of effects only the part on that side of the boundary is used.
    """
    drift, info = z * sqrt(kappa), 1 + _WITHIN_VARIANCE * kappa
    ratio = (drift + 0.5 * _WITHIN_VARIANCE * drift * drift - 0.5 * kappa) / info
    # The part of the posterior distribution on that side, divided by that of the prior.
    side = (1 + _WITHIN_VARIANCE * drift) / (_WITHIN_DEVIATION * sqrt(info))
    part = erfc(-side / _ROOT2)
    return ratio - 0.5 * log(info) + log(part / _WITHIN_SIDE) if part > 0 else -inf


def _inverse_within(kappa: float, target: float) -> float:
    """Return the z-score at which the evidence "within" is a target, a natural logarithm.

    If the whole distribution counted, it would be the root of a quadratic; Newton's method does the
    rest.
    """
    root, info = sqrt(max(kappa, _TINY)), 1 + _WITHIN_VARIANCE * kappa
    wanted = 0.5 * kappa + info * (target + 0.5 * log(info))
    drift = 2 * wanted / (1 + sqrt(1 + 2 * _WITHIN_VARIANCE * wanted))
    for _ in range(3):
        z = min(drift / root, _MOST)
        if z >= _MOST:
            return _MOST
        slope = (1 + _WITHIN_VARIANCE * drift) / info
        drift -= (_log_within(z, kappa) - target) / slope
    return min(drift / root, _MOST)


def _log_mean(a: float, b: float, weight: float) -> float:
    """Return log(weight * e^a + (1 - weight) * e^b)."""
    top = max(a, b)
    if top == -inf:
        return -inf
    return top + log(weight * exp(a - top) + (1 - weight) * exp(b - top))


def _inverse(mixture: tuple[tuple[float, float], ...], target: float) -> float:
    """Return the z-score at which the evidence of a mixture is a target, a natural logarithm.

    `mixture` has the weight and the kappa of each part. Newton's method: the evidence is convex in
    the score, so that from a score that is too high each next one is lower and still high enough.
    It starts where one part alone is enough.
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
    """Return a score that is enough for one part, found from its two-sided e-value."""
    w = max(kappa / (1 + kappa), _TINY)
    return min(sqrt(2 * (target - log(weight) + 0.5 * log1p(kappa)) / w), _MOST)


def _tangent(z: float, kappa: float) -> tuple[float, float]:
    """Return the logarithm of a one-sided e-value of a score of at least 0, and its slope."""
    w = kappa / (1 + kappa)
    x = z * sqrt(w)
    twice = erfc(-x / _ROOT2)
    value = log(twice) - 0.5 * log1p(kappa) + 0.5 * x * x
    return value, sqrt(w) * (x + _DENSITY * exp(-0.5 * x * x) / twice)


def _normal(z: float, freedom: float) -> float:
    """Return the normal score of a t-score.

    Wallace, Bounds on normal approximations to Student's and the chi-square distributions, Annals
    of Mathematical Statistics 30, 1959.
    """
    scale = (8 * freedom + 1) / (8 * freedom + 3)
    return copysign(scale * sqrt(freedom * log1p(z * z / freedom)), z)


def _student(z: float, freedom: float) -> float:
    """Return the inverse of `_normal` for z of at least 0; inf where it overflows."""
    scale = (8 * freedom + 1) / (8 * freedom + 3)
    power = (z / scale) ** 2 / freedom
    return sqrt(freedom * (exp(power) - 1)) if power < 700 else inf


def _solve(rising: Callable[[float], float], target: float) -> float:
    """Return the positive number at which a rising function reaches a target."""
    low, high = 0.0, 4.0
    while rising(high) < target and high < _MANY:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if high - low < _CLOSE * high:
            break
        low, high = (low, middle) if rising(middle) >= target else (middle, high)
    return high
