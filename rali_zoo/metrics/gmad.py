"""Group maximum differentiation: the pairs of images on which two scorers disagree most.

Ma, Wu, Wang, Duanmu, Yong, Li, Zhang, "Group MAD competition", CVPR 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class GmadPair:
    """Two images that the defender scores alike and the attacker does not.

    Attributes:
        level: the middle of the defender's scores in that window.
        better: row that the attacker puts highest.
        worse: row that it puts lowest; if people see no difference, the attacker is wrong, else the defender.
        attacker_gap: difference of the attacker's scores, in standard deviations of all its scores.
        defender_gap: size of the difference of the defender's, in standard deviations of its own.
    """

    level: float
    better: int
    worse: int
    attacker_gap: float
    defender_gap: float


def gmad_pairs(
    attacker: ArrayLike, defender: ArrayLike, levels: int = 5, share: float = 0.05
) -> tuple[GmadPair, ...]:
    """The most different pair of each level of the defender, from the lowest level up.

    Scorers attack each other in turn: call it a second time with the two exchanged. A level is a window of
    images that are neighbours in the defender's order; windows are spread evenly over that order.

    Args:
        attacker: (n,) scores, higher is better; images with a NaN of either scorer are left out.
        defender: (n,) scores of the same images.
        levels: number of windows.
        share: of all images in one window, in (0, 1 / levels].

    Raises:
        ValueError: vectors of different lengths, windows that overlap or hold fewer than two images, or a
            scorer that gives every image the same score.
    """
    a, d = np.asarray(attacker, dtype=np.float64), np.asarray(defender, dtype=np.float64)
    if a.ndim != 1 or a.shape != d.shape:
        raise ValueError(f"attacker {a.shape} and defender {d.shape} must score the same images, shape (n,)")
    if levels < 1 or not 0 < share <= 1 / levels:
        raise ValueError(
            f"levels={levels}, share={share}: give at least one level and a share up to 1 / levels"
        )
    rows = np.flatnonzero(np.isfinite(a) & np.isfinite(d))
    order = rows[np.argsort(d[rows], kind="stable")]
    width = round(share * order.size)
    if width < 2:
        raise ValueError(f"{order.size} images scored by both: a window of share {share} holds under two")
    std_a, std_d = a[rows].std(), d[rows].std()
    if a[rows].min() == a[rows].max() or d[rows].min() == d[rows].max():
        raise ValueError("a scorer that gives every image the same score has no levels and no extremes")
    pairs = []
    for k in range(levels):
        start = round((k + 0.5) / levels * order.size - width / 2)
        window = order[start : start + width]
        better, worse = int(window[np.argmax(a[window])]), int(window[np.argmin(a[window])])
        gap_a, gap_d = (a[better] - a[worse]) / std_a, abs(d[better] - d[worse]) / std_d
        pairs.append(GmadPair(float(np.median(d[window])), better, worse, float(gap_a), float(gap_d)))
    return tuple(pairs)
