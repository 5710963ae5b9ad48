"""RALI's score definition: PCA, then K-means inside score buckets (paper section 4, stage 2).

Numpy in, numpy out; the LightningModule turns the result into parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rali_zoo.errors import ConfigError
from rali_zoo.types import MOS_RANGE

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Projection:
    """A fitted PCA: ``((x - mean) / scale) @ components.T``.

    Attributes:
        mean: (D,).
        scale: (D,), positive; all ones unless inputs are standardised as in the official code.
        components: (d, D), orthonormal rows.
    """

    mean: Array
    scale: Array
    components: Array

    def __call__(self, x: Array) -> Array:
        """Project (N, D) embeddings to (N, d)."""
        return ((x - self.mean) / self.scale) @ self.components.T


@dataclass(frozen=True)
class Prototypes:
    """Centres and what they mean.

    Attributes:
        vectors: (K, d).
        scores: (K,) in [1, 5]: mean MOS of the centre's members.
        counts: (K,) members of each centre, at least 1.
    """

    vectors: Array
    scores: Array
    counts: NDArray[np.integer]


def fit_projection(x: Array, dim: int | None, standardise: bool = False, seed: int = 0) -> Projection:
    """Fit the PCA of embeddings (N, D).

    Args:
        x: (N, D) embeddings.
        dim: components to keep; clamped to min(N - 1, D). ``None`` keeps the space as it is (the
            paper's "no PCA" ablation).
        standardise: divide each input by its standard deviation after the fit, as the released
            inference code does.
        seed: of the randomised solver.

    Raises:
        ConfigError: fewer than two rows, or values that are not finite.
    """
    from sklearn.decomposition import PCA

    n, width = x.shape
    if n < 2:
        raise ConfigError(f"PCA needs at least 2 embeddings, got {n}")
    if not np.isfinite(x).all():
        raise ConfigError(
            "the embeddings hold NaN or infinity; lower the learning rate of the alignment stage"
        )
    if dim is None:
        return Projection(x.mean(axis=0) * 0, np.ones(width), np.eye(width))
    pca = PCA(n_components=min(dim, n - 1, width), svd_solver="auto", random_state=seed).fit(x)
    scale = x.std(axis=0) if standardise else np.ones(width)
    return Projection(pca.mean_, np.where(scale < 1e-10, 1.0, scale), pca.components_)


def bucket_centres(members: NDArray[np.integer], k: int) -> NDArray[np.integer]:
    """Share ``k`` centres among buckets of ``members`` images: one each, the rest by size.

    Every non-empty bucket gets one centre; what is left goes one by one to the bucket with most
    members a centre. No bucket gets more centres than members, so no cluster can be empty.

    Args:
        members: (N,) images in each bucket.
        k: centres wanted.

    Returns:
        (N,) centres of each bucket. They sum to ``k``, or to the nearest number that the buckets allow.
    """
    centres = (members > 0).astype(int)
    for _ in range(min(k, int(members.sum())) - int(centres.sum())):
        room = np.where(centres < members, members / np.maximum(centres, 1), -1.0)
        centres[int(room.argmax())] += 1
    return centres


def fit_prototypes(x: Array, mos: Array, buckets: int, k: int, seed: int = 0) -> Prototypes:
    """K-means inside equal-width score buckets; a centre's score is the mean MOS of its members.

    The paper uses 240 buckets and 250 centres in all. Centres are clamped to what the data allow: a
    bucket asks for no more than it has distinct rows, and an empty bucket has none.

    Args:
        x: (N, d) projected embeddings.
        mos: (N,) in [1, 5].
        buckets: equal-width buckets over the range of ``mos``, k at most; 1 is plain K-means.
        k: prototypes in all, at most.
        seed: of K-means.

    Raises:
        ConfigError: no rows, more buckets than prototypes, or a MOS that is missing or outside [1, 5].
    """
    from sklearn.cluster import KMeans

    if len(x) == 0 or len(x) != len(mos):
        raise ConfigError(
            f"prototypes need one MOS an embedding; got {len(x)} embeddings and {len(mos)} scores"
        )
    if not 1 <= buckets <= k:
        raise ConfigError(f"{buckets} score buckets each need a prototype, and there are {k}")
    low, high = MOS_RANGE
    if not np.isfinite(mos).all() or mos.min() < low - 1e-6 or mos.max() > high + 1e-6:
        raise ConfigError("prototypes need a MOS in [1, 5] for every training image")
    edges = np.linspace(mos.min(), mos.max() + 1e-9, buckets + 1)
    bucket = np.clip(np.searchsorted(edges, mos, side="right") - 1, 0, buckets - 1)
    distinct = np.array([len(np.unique(x[bucket == b], axis=0)) for b in range(buckets)])
    vectors, scores, counts = [], [], []
    for b, n in enumerate(bucket_centres(distinct, k)):
        if n == 0:
            continue
        inside, values = x[bucket == b], mos[bucket == b]
        label = np.zeros(len(inside), int)
        if n > 1:
            label = KMeans(n_clusters=int(n), n_init=4, random_state=seed).fit_predict(inside)
        for j in np.unique(label):
            vectors.append(inside[label == j].mean(axis=0))
            scores.append(values[label == j].mean())
            counts.append(int((label == j).sum()))
    return Prototypes(np.stack(vectors), np.array(scores), np.array(counts))
