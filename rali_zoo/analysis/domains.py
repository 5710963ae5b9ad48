"""The gap between data sets, in the spaces that models and texts make, and on the scale of their scores.

Three kinds of spaces: what a language model is shown of an image (``vision``), what is written about it
(``text``), and what a light scorer makes of it (``student``). Each is measured for every name that it is given
under, such as ``before`` and ``after`` a training across data sets, on the same images.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rali_zoo.analysis.common import batches, decodable, predictions_of, written
from rali_zoo.analysis.intervals import jackknife, mean_interval
from rali_zoo.errors import ConfigError, ImageDecodeError
from rali_zoo.metrics.domains import common_scale, covariance_cka, linear_cka, mmd, separability
from rali_zoo.report import JsonDict
from rali_zoo.settings import read_frame

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from numpy.typing import NDArray

    from rali_zoo.analysis.common import Settings
    from rali_zoo.models.base import IQANetwork
    from rali_zoo.models.vlm import VLMNetwork
    from rali_zoo.text.base import TextEncoder
    from rali_zoo.vlm.model import Images

#: Embeddings (n, d) by data set.
Space = dict[str, "NDArray[np.float64]"]
#: What the images of each data set show, n names each.
Contents = Mapping[str, Sequence[str]]
SAMPLE, DESCRIBED = "the sample", "the described images"


class Named(NamedTuple):
    """A space.

    Attributes:
        kind: ``vision``, ``text`` or ``student``.
        name: of the model or of the texts.
        of: which images, :data:`SAMPLE` or :data:`DESCRIBED`.
        space: embeddings by data set.
        contents: of its rows.
    """

    kind: str
    name: str
    of: str
    space: Space
    contents: Contents

    @property
    def title(self) -> str:
        """As in tables and files."""
        return f"{self.kind}, {self.name}"


# ---- embeddings ----


def image_space(network: IQANetwork, frames: Mapping[str, pd.DataFrame], batch_size: int) -> Space:
    """What a network makes of images: of a reasoner the language model's view, else the embedding.

    Args:
        network: a reasoner's, or one with a backbone.
        frames: images by data set, column ``path``.
        batch_size: images a forward pass.

    Raises:
        ImageDecodeError: an image that cannot be decoded.
    """
    import torch

    from rali_zoo.models.vlm import VLMNetwork

    space, bad = {}, dict[int, str]()
    with torch.inference_mode():
        for ref, frame in frames.items():
            if isinstance(network, VLMNetwork):
                kept = network.cached_features(ref, frame, batch_size)
                if kept is not None:
                    parts = [shown(network, (), part) for part in kept.split(batch_size)]
                    space[ref] = torch.cat(parts).double().cpu().numpy()
                    continue
            rows: dict[int, torch.Tensor] = {}
            for places, images in batches(network, frame["path"].tolist(), batch_size, bad):
                rows |= dict(zip(places, _embed(network, images), strict=True))
            if bad:
                place, reason = next(iter(bad.items()))
                raise ImageDecodeError(f"{frame['path'].iloc[place]} of {ref}: {reason}")
            space[ref] = torch.stack([rows[i] for i in range(len(frame))]).numpy()
    return space


def _embed(network: IQANetwork, images: torch.Tensor) -> torch.Tensor:
    """(B, d) on the CPU, float64; views are averaged."""
    from rali_zoo.models.base import BackboneNetwork
    from rali_zoo.models.rali import RALINetwork
    from rali_zoo.models.vlm import VLMNetwork
    from rali_zoo.types import Batch

    if isinstance(network, VLMNetwork):
        return shown(network, images).double().cpu()
    if not isinstance(network, BackboneNetwork):
        raise ConfigError(f"a {type(network).__name__} has no backbone, so it has no space to look at")
    features = network.features(Batch(image=images))
    if isinstance(network, RALINetwork):
        features = network.embed(features.flatten(0, 1)).view(*features.shape[:2], -1)
    return features.mean(1).double().cpu()


def shown(network: VLMNetwork, image: Images, features: torch.Tensor | None = None) -> torch.Tensor:
    """(B, d) means of the vectors that stand for (B, 3, H, W) images before a reasoner's language model.

    Args:
        network: the reasoner.
        image: in [0, 1].
        features: (B, T * D) of :meth:`~rali_zoo.models.vlm.VLMNetwork.cached_features`, in place of the images.

    Raises:
        ConfigError: a family that does not name the token which stands for images.
    """
    from rali_zoo.analysis.attention import image_tokens

    vlm = network.vlm
    prompts = vlm.ask(image, [network.asked] * len(image if features is None else features), features)
    output = vlm.model(**prompts.inputs, output_hidden_states=True, logits_to_keep=1, use_cache=False)
    hidden = output.hidden_states[0]
    weights = image_tokens(vlm, prompts.inputs["input_ids"]).to(hidden.dtype)[..., None]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def text_space(
    table: pd.DataFrame, frames: Mapping[str, pd.DataFrame], encoder: TextEncoder
) -> tuple[Space, Contents, str]:
    """Embeddings of the first text of each image; numbers are taken out, or they would be read as scores.

    Args:
        table: descriptions of images of all data sets.
        frames: the images that are looked at where all have a text; else those of the table, equally many.
        encoder: of texts.

    Returns:
        The space, contents of its rows, and which images it is of: :data:`SAMPLE` or :data:`DESCRIBED`.

    Raises:
        ConfigError: a data set without texts.
    """
    first = table.drop_duplicates(["dataset", "image_id"])
    texts: dict[str, pd.Series] = {}
    for ref in frames:
        own = first[first["dataset"] == ref]
        if own.empty:
            raise ConfigError(f"no texts of {ref}; the table is of {sorted(set(first['dataset']))}")
        texts[ref] = own.set_index("image_id")["text"]
    wanted = {ref: frame["id"].astype(str) for ref, frame in frames.items()}
    whole = all(wanted[ref].isin(texts[ref].index).all() for ref in frames)
    count = min(len(next(iter(frames.values()))), *map(len, texts.values()))
    chosen = {
        ref: t.loc[wanted[ref]] if whole else t.sample(count, random_state=0) for ref, t in texts.items()
    }
    plain = {ref: [re.sub(r"\d+(?:\.\d+)?", "", text) for text in own] for ref, own in chosen.items()}
    space = {ref: encoder.encode(words).double().cpu().numpy() for ref, words in plain.items()}
    if whole:
        return space, {ref: frame["content"].astype(str).tolist() for ref, frame in frames.items()}, SAMPLE
    return space, {ref: own.index.astype(str).tolist() for ref, own in chosen.items()}, DESCRIBED


def equally_many(frames: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The first rows of each data set, as many of each, so that chance is one in the number of sets.

    Raises:
        ConfigError: fewer than two data sets.
    """
    if len(frames) < 2:
        raise ConfigError("a gap is between data sets: give two or more with --data")
    count = min(map(len, frames.values()))
    return {ref: frame.head(count) for ref, frame in frames.items()}


def spaces(
    networks: Mapping[str, IQANetwork],
    texts: Mapping[str, pd.DataFrame],
    frames: Mapping[str, pd.DataFrame],
    encoder: TextEncoder,
    settings: Settings,
) -> list[Named]:
    """Embeddings of the same images in every space.

    Args:
        networks: name to a network. A reasoner's ``vision`` is the mean of the vectors that stand for an image
            before its language model, its ``text`` what it writes, unless ``texts`` are given; a scorer's
            ``student`` is its embedding, of a RALI the aligned one.
        texts: name to a table of descriptions.
        frames: images by data set.
        encoder: of texts.
        settings: how.
    """
    from rali_zoo.analysis.interventions import words
    from rali_zoo.models.vlm import VLMNetwork

    reasoners = {name: n for name, n in networks.items() if isinstance(n, VLMNetwork)}
    answers = {
        name: {ref: written(network, ref, frame, settings) for ref, frame in frames.items()}
        for name, network in ({} if texts else reasoners).items()
    }
    good = dict(frames)
    for rows in answers.values():  # the same images everywhere: those that all reasoners could read
        ids = {ref: set(decodable(table, ref)["id"]) for ref, table in rows.items()}
        good = {ref: frame[frame["id"].isin(ids[ref])] for ref, frame in good.items()}
    good = equally_many(good)
    contents = {ref: frame["content"].astype(str).tolist() for ref, frame in good.items()}
    found = []
    for name, network in networks.items():
        kind = "vision" if name in reasoners else "student"
        space = image_space(network, good, settings.batch_size)
        found.append(Named(kind, name, SAMPLE, space, contents))
        if name in answers:
            own = {ref: t.set_index("id").loc[good[ref]["id"], "text"] for ref, t in answers[name].items()}
            space = {ref: encoder.encode(words(t.tolist())).double().cpu().numpy() for ref, t in own.items()}
            found.append(Named("text", name, SAMPLE, space, contents))
    for name, table in texts.items():
        space, shows, of = text_space(table, good, encoder)
        found.append(Named("text", name, of, space, shows))
    return found


# ---- numbers ----


@dataclass(frozen=True)
class _Pair:
    """Statistics of two samples that :func:`~rali_zoo.analysis.intervals.jackknife` takes."""

    bandwidth: float

    def mmd2(self, parts: list[NDArray[np.float64]]) -> float:
        # the kernel stays the same in all resamples, and no permutation is needed there
        return mmd(parts[0], parts[1], self.bandwidth, permutations=1).squared

    def cka(self, parts: list[NDArray[np.float64]]) -> float:
        return covariance_cka(parts[0], parts[1])


def gaps(space: Space, contents: Contents, settings: Settings) -> JsonDict:
    """How far apart the data sets lie in a space.

    Images of one content stay together everywhere but in the permutation test, whose p-value takes images
    as independent and is too small where many share a content.

    Args:
        space: (n, d) embeddings by data set.
        contents: of the rows, by data set.
        settings: of which resamples and seed count.

    Returns:
        ``classifier`` (accuracy of a linear classifier that names the data set, with its ``chance``) and
        ``pairs``: for each two data sets ``classifier``, ``mmd2`` with ``p``, and ``cka`` of their
        covariances; ``value, low, high`` each. Where two sets are alike, MMD² is a degenerate statistic and
        its interval too narrow, and a cross-validated accuracy scatters below chance rather than around it:
        whether they differ at all is for the p-value to say.

    Raises:
        ConfigError: embeddings of which nothing can be measured; the message says why.
    """
    pairs: list[object] = []
    seed = settings.seed
    try:
        for (a, x), (b, y) in itertools.combinations(space.items(), 2):
            groups = [contents[a], contents[b]]
            test = mmd(x, y, permutations=settings.resamples, seed=seed)
            pair = _Pair(test.bandwidth)
            pairs.append(
                {
                    "a": a,
                    "b": b,
                    "classifier": classifier([x, y], groups, settings),
                    "mmd2": jackknife(pair.mmd2, [x, y], groups, seed) | {"p": test.p_value},
                    "cka": jackknife(pair.cka, [x, y], groups, seed, (0.0, 1.0)),
                }
            )
        everyone = classifier(list(space.values()), [contents[ref] for ref in space], settings)
    except ValueError as error:
        raise ConfigError(f"no gap can be measured here: {error}") from None
    return {"classifier": {**everyone, "chance": 1 / len(space)}, "pairs": pairs}  # type: ignore[dict-item]


def classifier(
    parts: Sequence[NDArray[np.float64]], contents: Sequence[Sequence[str]], settings: Settings
) -> dict[str, float]:
    """Share of images whose data set is named by a linear classifier that was shown none of their content.

    Args:
        parts: (n_i, d) embeddings of each data set.
        contents: n_i names each; an interval draws them.
        settings: of which resamples and seed count.
    """
    names = [[f"{k} {name}" for name in some] for k, some in enumerate(contents)]
    found = separability(parts, seed=settings.seed, groups=names)
    return mean_interval(found.correct, sum(names, []), settings.resamples, settings.seed)


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


def changes(found: Sequence[Named]) -> list[JsonDict]:
    """Linear CKA of every two spaces of a kind on the same images, by data set: 1 where nothing changed."""
    return [
        {
            "space": a.kind,
            "from": a.name,
            "to": b.name,
            "cka": {ref: linear_cka(a.space[ref], b.space[ref]) for ref in a.space},
        }
        for a, b in itertools.combinations(found, 2)
        if a.kind == b.kind and a.of == b.of == SAMPLE
    ]


def on_one_scale(path: str | Path, data: Sequence[str]) -> JsonDict:
    """SRCC of a run on each data set and on all together, from the predictions beside its ``results.json``.

    Args:
        path: of the file.
        data: references of data sets that the run was tested on.

    Returns:
        ``each`` by data set, their ``mean``, ``pooled``, and by data set the images without a score
        (``failed``).

    Raises:
        ConfigError: no such file, a data set that it lacks, or no score at all.
    """
    listed = predictions_of(Path(path))
    lacking = [ref for ref in data if ref not in listed]
    if lacking:
        raise ConfigError(f"{path} was not tested on {', '.join(lacking)}, but on {', '.join(listed)}")
    frames = {ref: read_frame(listed[ref]) for ref in data}
    known = {ref: f[f["mos"].notna() & f["score"].notna()] for ref, f in frames.items()}
    pairs = {ref: (f["score"].to_numpy(float), f["mos"].to_numpy(float)) for ref, f in known.items()}
    try:
        found = common_scale(pairs)
    except ValueError as error:
        raise ConfigError(f"no correlation: {error}") from None
    failed: JsonDict = {ref: int(frame["score"].isna().sum()) for ref, frame in frames.items()}
    return {"each": {**found.each}, "mean": found.mean, "pooled": found.pooled, "failed": failed}
