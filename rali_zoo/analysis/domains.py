"""The gap between data sets, in the spaces that models and texts make, and on the scale of their scores.

Three spaces: what a language model is shown of an image (``vision``), what is written about it (``text``),
and what a light scorer makes of it (``student``). Each is measured for every name that it is given under,
such as ``before`` and ``after`` a training across data sets, on the same images.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rali_zoo.errors import ConfigError
from rali_zoo.metrics.domains import common_scale, covariance_cka, linear_cka, mmd, separability

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from numpy.typing import NDArray

    from rali_zoo.models.base import IQANetwork
    from rali_zoo.types import Batch

#: Embeddings (n, d) by data set.
Space = dict[str, "NDArray[np.float64]"]


def sample(refs: Sequence[str], split: str, limit: int, root: str, seed: int) -> dict[str, pd.DataFrame]:
    """Rows of each data set, equally many, drawn with a seed.

    Args:
        refs: references of the data sets.
        split: ``train``, ``val``, ``test`` or ``all``.
        limit: most rows of each.
        root: folder that holds the data sets' folders.
        seed: of the draw.

    Raises:
        ConfigError: fewer than two data sets, or one without rows.
    """
    from rali_zoo.data.tables import load_table

    if len(refs) < 2:
        raise ConfigError("a gap is between data sets: give two or more with --data")
    tables = {ref: load_table(ref, root) for ref in refs}
    frames = {ref: t.frame if split == "all" else t.split(split) for ref, t in tables.items()}
    for ref, frame in frames.items():
        if frame.empty:
            raise ConfigError(f"{ref!r} has no {split} rows; {tables[ref].describe()}")
    count = min(limit, *map(len, frames.values()))
    return {ref: frame.sample(count, random_state=seed) for ref, frame in frames.items()}


# ---- embeddings ----


def image_space(module: IQANetwork, frames: Mapping[str, pd.DataFrame], batch_size: int) -> Space:
    """What a module makes of images: of a reasoner the language model's view, else the embedding."""
    import torch

    module.eval()
    with torch.inference_mode():
        return {
            ref: torch.cat([_embed(module, batch) for batch in _batches(module, frame, batch_size)]).numpy()
            for ref, frame in frames.items()
        }


def _batches(module: IQANetwork, frame: pd.DataFrame, batch_size: int) -> Iterator[Batch]:
    """Images as the module scores them; those of native size one by one where they differ."""
    import torch

    from rali_zoo.data.images import load_views
    from rali_zoo.types import Batch

    waiting: list[torch.Tensor] = []
    for path in frame["path"]:
        image = load_views(path, module.view, module.preprocess)
        if waiting and (len(waiting) == batch_size or image.shape != waiting[0].shape):
            yield Batch(image=torch.stack(waiting).to(module.device))
            waiting = []
        waiting.append(image)
    yield Batch(image=torch.stack(waiting).to(module.device))


def _embed(module: Any, batch: Batch) -> torch.Tensor:
    """(B, d) on the CPU, float64; views are averaged."""
    from rali_zoo.models.rali import RALINetwork
    from rali_zoo.models.vlm import VLMNetwork

    if isinstance(module, VLMNetwork):
        return shown(module, batch["image"]).double().cpu()
    features = module.features(batch)
    if isinstance(module, RALINetwork):
        embedded: torch.Tensor = module.embed(features.flatten(0, 1)).view(*features.shape[:2], -1)
        features = embedded
    return features.mean(1).double().cpu()


def shown(module: Any, image: torch.Tensor) -> torch.Tensor:
    """(B, d) means of the vectors that stand for (B, 3, H, W) images before a reasoner's language model.

    Raises:
        ConfigError: a family that does not name the token which stands for images.
    """
    vlm = module.vlm
    names = ("image_token_id", "image_token_index")
    ids = {getattr(vlm.model.config, name, None) for name in names} - {None}
    if not ids:
        raise ConfigError(f"'{vlm.uri}' names no token that stands for images ({' or '.join(names)})")
    prompts = vlm.ask(image, [module.asked] * len(image))
    output = vlm.model(**prompts.inputs, output_hidden_states=True, logits_to_keep=1, use_cache=False)
    hidden, inside = output.hidden_states[0], prompts.inputs["input_ids"] == ids.pop()
    weights = inside.to(hidden.dtype)[..., None]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def text_space(table: pd.DataFrame, frames: Mapping[str, pd.DataFrame], encoder: str) -> tuple[Space, str]:
    """Embeddings of the first text of each image; numbers are taken out, or they would be read as scores.

    Args:
        table: descriptions of images of all data sets.
        frames: the images that are looked at where all have a text; else those of the table, equally many.
        encoder: text encoder by reference.

    Returns:
        The space, and which images it is of, in words.

    Raises:
        ConfigError: a data set without texts.
    """
    import re

    from rali_zoo.text import create_text_encoder

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
    model = create_text_encoder(encoder)
    space = {}
    for ref, own in chosen.items():
        words = [re.sub(r"\d+(?:\.\d+)?", "", text) for text in own]
        space[ref] = model.encode(words).double().cpu().numpy()
    return space, "the sample" if whole else "the described images"


# ---- numbers ----


def gaps(space: Space, permutations: int = 500, seed: int = 0) -> dict[str, Any]:
    """How far the data sets lie apart.

    Args:
        space: (n, d) embeddings by data set.
        permutations: of the test of MMD.
        seed: of permutations and folds.

    Returns:
        ``pairs``: for each two data sets ``cka`` of their covariances, ``mmd2`` with ``p``, and the
        ``classifier``'s accuracy (chance is 0.5); ``classifier`` over all of them with its ``chance``.

    Raises:
        ConfigError: embeddings of which nothing can be said; the message says why.
    """
    pairs = []
    try:
        for (a, x), (b, y) in itertools.combinations(space.items(), 2):
            apart = mmd(x, y, permutations=permutations, seed=seed)
            told = separability([x, y], seed=seed)
            pairs.append(
                {"a": a, "b": b, "cka": covariance_cka(x, y), "mmd2": apart.squared, "p": apart.p_value,
                 "classifier": told.accuracy}
            )  # fmt: skip
        everyone = separability(list(space.values()), seed=seed)
    except ValueError as error:
        raise ConfigError(f"no gap can be measured here: {error}") from None
    return {"pairs": pairs, "classifier": everyone.accuracy, "chance": everyone.chance}


def change(before: Space, after: Space) -> dict[str, float]:
    """Linear CKA of two spaces on the same images, by data set: 1 where a training changed nothing."""
    return {ref: linear_cka(before[ref], after[ref]) for ref in before if len(before[ref]) == len(after[ref])}


def agreement(frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """SRCC of a scorer on each data set and on all together; images without a score are counted.

    Args:
        frames: columns mos and score on [1, 5], by data set.

    Raises:
        ConfigError: no data set with a score.
    """
    known = {ref: f[f["mos"].notna() & f["score"].notna()] for ref, f in frames.items()}
    failed = {ref: int(frame["score"].isna().sum()) for ref, frame in frames.items()}
    pairs = {ref: (f["score"].to_numpy(float), f["mos"].to_numpy(float)) for ref, f in known.items()}
    try:
        found = common_scale(pairs)
    except ValueError as error:
        raise ConfigError(f"no correlation: {error}") from None
    return {"each": found.each, "mean": found.mean, "pooled": found.pooled, "failed": failed}
