"""Routing: a cheap scorer for all images, an expensive one for those that the cheap one is least sure of.

RALI's authors leave open which images should still go to the reasoner. The curve here shows what each share
of them is worth, against the same share drawn at random and against an oracle.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rali_zoo.errors import ConfigError
from rali_zoo.metrics import Resamples, plcc, srcc
from rali_zoo.metrics.bootstrap import percentile_interval

if TYPE_CHECKING:
    import pandas as pd

    from rali_zoo.protocols import Scorer
    from rali_zoo.types import Score

FloatArray = NDArray[np.float64]

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
_ORDERS = 20  # random orders that the control is the mean of
_FEWEST = 10  # images that a line, or a curve, is made of


@dataclass(frozen=True)
class RoutePoint:
    """What one share of routed images gives.

    Attributes:
        share: of the images that the expensive scorer judges, in [0, 1].
        threshold: uncertainty from which an image is routed; infinite for none.
        srcc: SRCC of the mixture.
        low: lower end of its 95 % interval.
        high: upper end.
        plcc: PLCC of the mixture.
        random: mean SRCC when as many are drawn at random.
        gain: ``srcc - random``.
        gain_low: lower end of its 95 % interval, on shared resamples.
        gain_high: upper end.
        oracle: SRCC when those images are routed whose error shrinks most, which takes the MOS to know.
    """

    share: float
    threshold: float
    srcc: float
    low: float
    high: float
    plcc: float
    random: float
    gain: float
    gain_low: float
    gain_high: float
    oracle: float


def routing_curve(
    mos: ArrayLike,
    cheap: ArrayLike,
    expensive: ArrayLike,
    uncertainty: ArrayLike,
    shares: Sequence[float] = SHARES,
    content: Sequence[str] | None = None,
    resamples: int = 500,
    seed: int = 0,
) -> list[RoutePoint]:
    """SRCC against the share of images that go to the expensive scorer.

    Args:
        mos: (n,) MOS.
        cheap: (n,) scores on the scale of the MOS.
        expensive: (n,) scores on the same scale: a mixture of two scales ranks nothing.
        uncertainty: (n,) of the cheap scores; the largest are routed first.
        shares: in [0, 1].
        content: (n,) what each image shows; intervals draw contents where they repeat.
        resamples: of the bootstrap.
        seed: of the resamples and of the random orders.

    Raises:
        ValueError: vectors that do not pair up or are not finite, or a share outside [0, 1].
    """
    y, a, b, doubt = (np.asarray(v, dtype=np.float64) for v in (mos, cheap, expensive, uncertainty))
    if not y.shape == a.shape == b.shape == doubt.shape or y.ndim != 1 or y.size < _FEWEST:
        raise ValueError(
            f"mos {y.shape}, scores {a.shape} {b.shape}, uncertainty {doubt.shape}: give (n,) each"
        )
    if not all(np.isfinite(v).all() for v in (y, a, b, doubt)):
        raise ValueError("mos, scores and uncertainty must be finite; leave failed images out")
    if not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"shares {list(shares)} lie between 0 and 1")
    rng = np.random.default_rng(seed)
    first = np.argsort(-doubt, kind="stable")
    best = np.argsort(np.abs(b - y) - np.abs(a - y), kind="stable")
    orders = [first, best, *(rng.permutation(y.size) for _ in range(_ORDERS))]
    drawn = Resamples(y.size, resamples, seed, content)
    return [_point(y, a, b, doubt, orders, share, drawn) for share in shares]


def _point(
    y: FloatArray,
    a: FloatArray,
    b: FloatArray,
    doubt: FloatArray,
    orders: Sequence[NDArray[np.intp]],
    share: float,
    drawn: Resamples,
) -> RoutePoint:
    count = round(share * y.size)
    mixed = []
    for order in orders:
        score = a.copy()
        score[order[:count]] = b[order[:count]]
        mixed.append(score)
    routed, oracle, *random = (srcc(score, y) for score in mixed)
    boot = drawn.srcc([mixed[0], *mixed[2:]], y)
    low, high = percentile_interval(boot[0], units=drawn.units)
    gain_low, gain_high = percentile_interval(boot[0] - boot[1:].mean(axis=0), units=drawn.units)
    threshold = float(doubt[orders[0][count - 1]]) if count else float("inf")
    control = float(np.mean(random))
    return RoutePoint(
        share=share,
        threshold=threshold,
        srcc=routed,
        low=low,
        high=high,
        plcc=plcc(mixed[0], y),
        random=control,
        gain=routed - control,
        gain_low=gain_low,
        gain_high=gain_high,
        oracle=oracle,
    )


# ---- scorers --------------------------------------------------------------------------------


class Judged(NamedTuple):
    """Scores of the validation and of the test rows by one scorer, NaN where there is none."""

    val: FloatArray
    test: FloatArray
    std: FloatArray  #: of the test rows, on the scorer's scale; NaN where the scorer has none
    seconds: float  #: an image, wall clock, decoding included, over the test rows


def judge(scorer: Scorer, val: pd.DataFrame, test: pd.DataFrame, batch_size: int = 16) -> Judged:
    """Score the rows of a data set.

    Args:
        scorer: any scorer.
        val: rows with the column ``path``.
        test: rows with the column ``path``.
        batch_size: images a forward pass.
    """
    on_val = scorer.score(val["path"].tolist(), batch_size=batch_size)
    started = time.perf_counter()
    on_test = scorer.score(test["path"].tolist(), batch_size=batch_size)
    seconds = (time.perf_counter() - started) / max(len(test), 1)
    return Judged(_values(on_val), _values(on_test), _values(on_test, "std"), seconds)


def _values(scores: Sequence[Score], name: str = "score") -> FloatArray:
    found = [getattr(s, name) for s in scores]
    return np.array([np.nan if v is None else v for v in found], dtype=np.float64)


def on_mos_scale(judged: Judged, mos_val: ArrayLike, name: str) -> tuple[FloatArray, float]:
    """Test scores on the scale of the MOS, by a line fitted to the validation rows, and the line's slope.

    Args:
        judged: scores of a scorer.
        mos_val: (m,) MOS of the validation rows.
        name: of the scorer, for messages.

    Raises:
        ConfigError: too few validation rows with a score, or scores that run against the MOS.
    """
    y = np.asarray(mos_val, dtype=np.float64)
    ok = np.isfinite(judged.val) & np.isfinite(y)
    if ok.sum() < _FEWEST:
        raise ConfigError(f"{name} has scores of {ok.sum()} validation images; a line takes {_FEWEST}")
    line: Any = stats.linregress(judged.val[ok], y[ok])
    if not line.slope > 0:
        raise ConfigError(f"{name} runs against the MOS of the validation rows (slope {line.slope:.3f})")
    return line.intercept + line.slope * judged.test, float(line.slope)


class Route(TypedDict):
    """A measured curve, see :func:`route`."""

    points: list[RoutePoint]
    n: int
    left_out: int
    uncertainty: str
    error_srcc: float
    seconds: dict[str, float]


def route(
    cheap: Scorer,
    expensive: Scorer,
    val: pd.DataFrame,
    test: pd.DataFrame,
    second: Scorer | None = None,
    shares: Sequence[float] = SHARES,
    batch_size: int = 16,
    seed: int = 0,
) -> Route:
    """Measure a routing curve.

    Args:
        cheap: judges every image.
        expensive: judges the routed ones; here all, so that every share can be measured.
        val: rows that bring both to one scale; columns path, mos.
        test: rows of the curve; columns path, mos, content.
        second: another cheap scorer; the uncertainty is then how far the two disagree, and not the std
            that the cheap scorer gives.
        shares: of the images that are routed, in [0, 1].
        batch_size: images a forward pass.
        seed: of resamples and of the control.

    Returns:
        ``points``, ``n``, ``left_out``, ``uncertainty``, ``error_srcc``
        (SRCC of uncertainty and absolute error), and ``seconds`` an image of each scorer.

    Raises:
        ConfigError: a cheap scorer without a std and no second one, or too few images with scores.
    """
    scorers = {"cheap": cheap, "expensive": expensive} | ({"second": second} if second is not None else {})
    judged = {role: judge(scorer, val, test, batch_size) for role, scorer in scorers.items()}
    score, slope = {}, {}
    for role, found in judged.items():
        score[role], slope[role] = on_mos_scale(found, val["mos"], scorers[role].name)
    doubt = _doubt(cheap.name, judged["cheap"], slope["cheap"], score["cheap"], score.get("second"))
    mos = test["mos"].to_numpy(float)
    ok: NDArray[np.bool_] = np.isfinite(np.stack([mos, score["cheap"], score["expensive"], doubt])).all(
        axis=0
    )
    if ok.sum() < _FEWEST:
        raise ConfigError(f"{ok.sum()} of {ok.size} test images have scores by all; a curve takes {_FEWEST}")
    content = test["content"].astype(str)[ok].tolist()
    points = routing_curve(
        mos[ok], score["cheap"][ok], score["expensive"][ok], doubt[ok], shares, content, seed=seed
    )
    return {
        "points": points,
        "n": int(ok.sum()),
        "left_out": int((~ok).sum()),
        "uncertainty": "std of the cheap scorer" if second is None else "disagreement with the second scorer",
        "error_srcc": srcc(doubt[ok], np.abs(mos - score["cheap"])[ok]),
        "seconds": {role: found.seconds for role, found in judged.items()},
    }


def _doubt(
    name: str, judged: Judged, slope: float, score: FloatArray, second: FloatArray | None
) -> FloatArray:
    """Uncertainty of the cheap scores, on the scale of the MOS."""
    if second is not None:
        return np.abs(score - second)
    if np.isnan(judged.std).all():
        raise ConfigError(
            f"{name} gives no std; train a DistributionRegression, take a RALI, or give --second "
            "REF, another cheap scorer: where the two disagree, images are routed"
        )
    return slope * judged.std
