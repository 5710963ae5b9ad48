"""The gap between data sets where an image is seen, where it is described, and where RALI scores it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rali_zoo.analysis.common import readable, written
from rali_zoo.analysis.intervals import jackknife, mean_interval
from rali_zoo.errors import ConfigError
from rali_zoo.metrics.domains import covariance_cka, mmd

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from rali_zoo.analysis.common import Settings
    from rali_zoo.models.base import IQANetwork
    from rali_zoo.models.vlm import VLMNetwork
    from rali_zoo.text.base import TextEncoder

#: Embeddings (n, d) by data set.
Space = dict[str, "NDArray[np.float64]"]
_FOLDS = 5


def spaces(
    module: VLMNetwork,
    students: Mapping[str, IQANetwork],
    frames: Mapping[str, pd.DataFrame],
    encoder: TextEncoder,
    settings: Settings,
) -> tuple[dict[str, Space], dict[str, list[str]]]:
    """Embeddings of the same images in every space.

    Args:
        module: the reasoner: ``vision`` is the mean of the vectors that stand for an image before its
            language model, ``text`` what it writes, embedded without the numbers.
        students: name to a scorer, whose space is its embedding (of a RALI the aligned one).
        frames: images by data set.
        encoder: of texts.
        settings: how.

    Returns:
        Space by name, and the contents of its rows by data set.
    """
    from rali_zoo.analysis.domains import image_space

    if len(frames) < 2:
        raise ConfigError("a gap is between data sets: give two or more with --data")
    good = {ref: readable(written(module, ref, frame, settings), ref) for ref, frame in frames.items()}
    count = min(map(len, good.values()))  # equally many of each, so that chance is one in the number of sets
    good = {ref: rows.head(count) for ref, rows in good.items()}
    found = {
        "vision": image_space(module, good, settings.batch_size),
        "text": {
            ref: encoder.encode(_words(rows["text"])).double().cpu().numpy() for ref, rows in good.items()
        },
    }
    for name, student in students.items():
        found[name] = image_space(student, good, settings.batch_size)
    return found, {ref: rows["content"].astype(str).tolist() for ref, rows in good.items()}


def _words(texts: Sequence[str]) -> list[str]:
    from rali_zoo.analysis.interventions import words

    return words(list(texts))


def domains(
    found: Mapping[str, Space], contents: Mapping[str, Sequence[str]], settings: Settings
) -> dict[str, Any]:
    """How far apart the data sets lie in each space.

    Images of one content stay together everywhere but in the permutation test, whose p-value takes images
    as independent and is too small where many share a content.

    Args:
        found: space by name.
        contents: of the rows, by data set.
        settings: how.

    Returns:
        By space ``classifier`` (accuracy of a linear classifier that names the data set, with its ``chance``)
        and ``pairs``: for each two data sets ``classifier``, ``mmd2`` with ``p``, and ``cka`` of their
        covariances; ``value, low, high`` each. Where two sets are alike, MMD² is a degenerate statistic and
        its interval too narrow, and a cross-validated accuracy scatters below chance rather than around it:
        whether they differ at all is for the p-value to say.
    """
    return {name: _gaps(space, contents, settings) for name, space in found.items()}


def _gaps(space: Space, contents: Mapping[str, Sequence[str]], settings: Settings) -> dict[str, Any]:
    pairs: list[dict[str, Any]] = []
    try:
        for (a, x), (b, y) in itertools.combinations(space.items(), 2):
            groups, seed = [contents[a], contents[b]], settings.seed
            test = mmd(x, y, permutations=settings.resamples, seed=seed)

            # the kernel stays the same in all resamples, and no permutation is needed there
            def apart(parts: list[NDArray[np.float64]], bandwidth: float = test.bandwidth) -> float:
                return mmd(parts[0], parts[1], bandwidth, permutations=1).squared

            def alike(parts: list[NDArray[np.float64]]) -> float:
                return covariance_cka(parts[0], parts[1])

            pairs.append(
                {
                    "a": a,
                    "b": b,
                    "classifier": _told_apart([x, y], groups, settings),
                    "mmd2": jackknife(apart, [x, y], groups, seed) | {"p": test.p_value},
                    "cka": jackknife(alike, [x, y], groups, seed, (0.0, 1.0)),
                }
            )
        everyone = _told_apart(list(space.values()), [contents[ref] for ref in space], settings)
    except ValueError as error:
        raise ConfigError(f"no gap can be measured here: {error}") from None
    return {"classifier": everyone | {"chance": 1 / len(space)}, "pairs": pairs}


def _told_apart(
    parts: Sequence[NDArray[np.float64]], contents: Sequence[Sequence[str]], settings: Settings
) -> dict[str, float]:
    """Share of images whose data set a linear classifier names that saw none of their content.

    The classifier is that of :func:`rali_zoo.metrics.domains.separability`; here every image's own outcome
    is needed, so that contents can be drawn.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    y = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    names = [f"{k} {name}" for k, some in enumerate(contents) for name in some]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=settings.seed)
    told = cross_val_predict(model, np.vstack(list(parts)), y, groups=names, cv=folds)
    return mean_interval(told == y, names, settings.resamples, settings.seed)


def flattened(found: Mapping[str, Space], seed: int) -> dict[str, dict[str, Space]]:
    """Every space in two dimensions: by PCA, and by t-SNE on the first 50 components.

    Args:
        found: space by name.
        seed: of t-SNE.

    Returns:
        By space, ``PCA`` and ``t-SNE``: (n, 2) by data set, dimensions standardised first.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    maps: dict[str, dict[str, Space]] = {}
    for name, space in found.items():
        both = StandardScaler().fit_transform(np.vstack(list(space.values())))
        components = PCA(min(50, *both.shape), random_state=seed).fit_transform(both)
        near = TSNE(2, perplexity=min(30.0, (len(both) - 1) / 3), init="pca", random_state=seed)
        flat = {"PCA": components[:, :2], "t-SNE": near.fit_transform(components)}
        ends = np.cumsum([len(x) for x in space.values()])[:-1]
        maps[name] = {
            kind: dict(zip(space, np.split(points, ends), strict=True)) for kind, points in flat.items()
        }
    return maps
