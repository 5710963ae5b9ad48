"""How far apart data sets lie in an embedding space, and how well one score serves all of them.

Between two sets of images: overlap of the directions that they vary in, maximum mean discrepancy, and how
well a linear classifier separates them. NumPy and scikit-learn only, no torch. A space that holds quality
separates sets whose qualities differ, and rightly so: compare the same sets before and after, not with zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rali_zoo.metrics.correlation import FloatArray, srcc

_STEADY = 1e-12  # a deviation below this share of the largest is rounding


def as_embeddings(values: ArrayLike, name: str = "embeddings") -> FloatArray:
    """(n, d) float64, n at least 2.

    Raises:
        ValueError: another shape, or a value that is NaN or infinite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or len(array) < 2 or array.shape[1] < 1:
        raise ValueError(f"{name} have shape {array.shape}; give (n, d) with at least two rows")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} hold NaN or infinite values; leave those rows out and say how many")
    return array


def linear_cka(x: ArrayLike, y: ArrayLike) -> float:
    """Linear centred kernel alignment of two representations of the same images.

    Kornblith et al., "Similarity of neural network representations revisited", ICML 2019, equation 3 with
    the biased HSIC.

    Args:
        x: (n, d) embeddings.
        y: (n, e) embeddings of the same n images in another space.

    Returns:
        In [0, 1]; 1 for spaces that are equal up to rotation, shift and scale, NaN where one is constant.

    Raises:
        ValueError: other shapes.
    """
    a, b = as_embeddings(x, "x"), as_embeddings(y, "y")
    if len(a) != len(b):
        raise ValueError(f"x has {len(a)} rows and y {len(b)}; linear_cka compares the same images")
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    # the smaller of the two equal forms: (d, e) products or (n, n) ones
    if a.shape[1] * b.shape[1] <= len(a) ** 2:
        across = float(np.square(b.T @ a).sum())
        own, other = float(np.linalg.norm(a.T @ a)), float(np.linalg.norm(b.T @ b))
    else:
        k, m = a @ a.T, b @ b.T
        across, own, other = float((k * m).sum()), float(np.linalg.norm(k)), float(np.linalg.norm(m))
    return across / (own * other) if own > 0 and other > 0 else float("nan")


def covariance_cka(x: ArrayLike, y: ArrayLike) -> float:
    """Linear kernel alignment of the covariances of two sets of images in one space.

    Linear CKA compares two spaces on the same images. Here the space is the same and the images differ,
    so the roles are exchanged: the d dimensions are what is compared, tr(A B) / (|A| |B|) of the covariances.

    Args:
        x: (n, d) embeddings of one data set.
        y: (m, d) embeddings of another.

    Returns:
        In [0, 1]: 1 where both vary in the same directions in the same proportions, 0 where in orthogonal
        ones; NaN where one does not vary. Where the two lie does not matter.

    Raises:
        ValueError: other shapes.
    """
    a, b = _same_space(x, y)
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    across = float(np.square(b @ a.T).sum())
    own, other = float(np.linalg.norm(a @ a.T)), float(np.linalg.norm(b @ b.T))
    return across / (own * other) if own > 0 and other > 0 else float("nan")


def _same_space(x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    a, b = as_embeddings(x, "x"), as_embeddings(y, "y")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"x has {a.shape[1]} dimensions and y {b.shape[1]}; they are not of one space")
    return a, b


@dataclass(frozen=True)
class MMD:
    """Maximum mean discrepancy between two samples.

    Attributes:
        squared: unbiased estimate of MMD²; around 0, also below it, where the distributions are equal.
        p_value: share of permutations of the images with a value at least as large, in (0, 1].
        bandwidth: of the Gaussian kernel exp(-|a - b|² / (2 bandwidth²)).
    """

    squared: float
    p_value: float
    bandwidth: float


def mmd(
    x: ArrayLike, y: ArrayLike, bandwidth: float | None = None, permutations: int = 500, seed: int = 0
) -> MMD:
    """Maximum mean discrepancy with a Gaussian kernel, and a permutation test.

    Gretton et al., "A kernel two-sample test", JMLR 2012, lemma 6 and section 5.

    Args:
        x: (n, d) embeddings of one data set.
        y: (m, d) embeddings of another.
        bandwidth: of the kernel; the median distance between all pairs if ``None``.
        permutations: for the p-value, whose least value is 1 / (permutations + 1).
        seed: of the permutations.

    Raises:
        ValueError: other shapes, no permutations, a bandwidth of 0 or below, or points that are all equal.
    """
    a, b = _same_space(x, y)
    if permutations < 1 or (bandwidth is not None and bandwidth <= 0):
        raise ValueError(f"permutations={permutations} is at least 1 and bandwidth={bandwidth} above 0")
    both, n = np.vstack([a, b]), len(a)
    both = both - both.mean(axis=0)
    norms = np.square(both).sum(axis=1)
    distances = np.maximum(norms[:, None] + norms[None, :] - 2 * both @ both.T, 0.0)
    if bandwidth is None:
        bandwidth = float(np.sqrt(np.median(distances[np.triu_indices(len(both), 1)])))
        if bandwidth <= _STEADY * np.sqrt(norms.max()):
            raise ValueError("more than half of all distances are 0, so they give no bandwidth; give one")
    kernel = np.exp(-distances / (2 * bandwidth**2))
    np.fill_diagonal(kernel, 0.0)
    # one matrix product for all labellings: each column is 1 for the first sample
    rng = np.random.default_rng(seed)
    first = np.zeros((len(both), permutations + 1))
    first[:n, 0] = 1.0
    for column in range(1, permutations + 1):
        first[rng.permutation(len(both))[:n], column] = 1.0
    values = _unbiased(kernel, first)
    # rounding must not decide where a permutation gives the same split
    reached = int(np.sum(values[1:] >= values[0] - 1e-12))
    return MMD(float(values[0]), (reached + 1) / (permutations + 1), bandwidth)


def _unbiased(kernel: FloatArray, first: FloatArray) -> FloatArray:
    """(P,) values of MMD² for a (N, N) kernel without its diagonal and (N, P) labellings."""
    n, m = first.sum(axis=0), (1 - first).sum(axis=0)
    toward = kernel @ first
    within = np.einsum("ij,ij->j", first, toward)
    across = np.einsum("ij,ij->j", 1 - first, toward)
    rest = kernel.sum() - within - 2 * across
    return within / (n * (n - 1)) + rest / (m * (m - 1)) - 2 * across / (n * m)


@dataclass(frozen=True)
class Separability:
    """How well a linear classifier separates data sets.

    Attributes:
        accuracy: balanced, cross-validated, in [0, 1].
        chance: 1 / number of data sets; the accuracy in a space that holds nothing of them.
        folds: accuracies of the folds.
        correct: (n,) whether the data set of each image was named, out of its fold; data sets one after the
            other.
    """

    accuracy: float
    chance: float
    folds: tuple[float, ...]
    correct: NDArray[np.bool_]


def separability(
    embeddings: Sequence[ArrayLike],
    folds: int = 5,
    seed: int = 0,
    groups: Sequence[Sequence[str]] | None = None,
) -> Separability:
    """Accuracy of a logistic regression that names the data set from the embedding.

    Args:
        embeddings: for each data set (n, d); dimensions are standardised on the training folds.
        folds: parts of the cross-validation, each with its share of every data set.
        seed: of the folds.
        groups: for each data set n labels, such as the photograph that an image was made from; images with
            one label stay in one fold. Each image its own if ``None``.

    Raises:
        ValueError: fewer than two data sets, other shapes, or fewer images of one than folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(embeddings) < 2:
        raise ValueError("one data set has no gap; give two or more")
    parts = [as_embeddings(e, f"embeddings of data set {i}") for i, e in enumerate(embeddings)]
    if len({part.shape[1] for part in parts}) > 1:
        raise ValueError(f"embeddings have shapes {[p.shape for p in parts]}; they are not of one space")
    if min(map(len, parts)) < folds:
        raise ValueError(f"the smallest data set has {min(map(len, parts))} rows, fewer than {folds} folds")
    x = np.vstack(parts)
    y: NDArray[np.int64] = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    together = None if groups is None else np.array([g for each in groups for g in each])
    splitter = StratifiedKFold if together is None else StratifiedGroupKFold
    accuracies, correct = [], np.zeros(len(x), dtype=bool)
    for train, test in splitter(folds, shuffle=True, random_state=seed).split(x, y, together):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        named = model.fit(x[train], y[train]).predict(x[test])
        correct[test] = named == y[test]
        accuracies.append(float(balanced_accuracy_score(y[test], named)))
    return Separability(float(np.mean(accuracies)), 1 / len(parts), tuple(accuracies), correct)


@dataclass(frozen=True)
class CommonScale:
    """Rank correlations of one scorer on several data sets.

    Attributes:
        pooled: SRCC over all images together, which asks that scores and MOS mean the same in all sets.
        mean: of the sets' own.
        each: by data set.
    """

    pooled: float
    mean: float
    each: dict[str, float]


def common_scale(scores: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> CommonScale:
    """SRCC of each data set and of all together, on the scale of [1, 5] that all share.

    Args:
        scores: by data set, (n,) predictions and (n,) MOS, finite.

    Raises:
        ValueError: no data set, or rows that do not pair up.
    """
    if not scores:
        raise ValueError("no data set to correlate; give one or more")
    each = {name: srcc(pred, mos) for name, (pred, mos) in scores.items()}
    pred = np.concatenate([np.asarray(p, dtype=np.float64) for p, _ in scores.values()])
    mos = np.concatenate([np.asarray(m, dtype=np.float64) for _, m in scores.values()])
    return CommonScale(srcc(pred, mos), float(np.mean(list(each.values()))), each)
