"""Rows of a data set as :class:`~rali_zoo.types.Sample`: the torch side of a table.

Whatever is drawn for an image (its crop, its mirroring, which of its texts) depends on the seed, the epoch and the
image alone: not on workers, batches, or what was drawn before. A resumed run sees what it would have seen.
"""

from __future__ import annotations

import copy
import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rali_zoo.data.images import load_views
from rali_zoo.types import Batch, Preprocess, Sample
from rali_zoo.views import View

if TYPE_CHECKING:
    import pandas as pd

Texts = Mapping[tuple[str, str], Sequence[str]]


class Draw(NamedTuple):
    """One visit to an image."""

    row: int
    epoch: int = 0
    visit: int = 0  #: how often it was drawn before in this epoch
    chain: int | None = None  #: of images whose order is known; -1 in no chain, ``None`` where there are none


def generator(seed: int, epoch: int, image: str, visit: int = 0) -> torch.Generator:
    """A generator on the CPU for one visit to an image.

    Args:
        seed: of the run.
        epoch: of the run.
        image: data set and id.
        visit: how often the image was drawn before in this epoch.
    """
    digest = hashlib.sha256(f"{seed}|{epoch}|{visit}|{image}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class ImageDataset(Dataset[Sample]):
    """The images of one table, decoded and cut as a view says.

    Args:
        ref: the data set's reference; becomes ``Sample["dataset"]``.
        frame: columns id, path, mos, std; MOS in [1, 5], NaN where unknown; ``distortion`` and ``level`` (or
            ``levels``, one for each of several classes) are handed on where there are any, and so is ``prompt``.
        view: how an image is cut.
        preprocess: what the backbone expects.
        texts: descriptions by (dataset, id); one of an image's is drawn at each visit.
        features: (N, D) or (N, V, D) cached features that take the place of the images.
        seed: of whatever is drawn for an image.
    """

    def __init__(
        self,
        ref: str,
        frame: pd.DataFrame,
        view: View,
        preprocess: Preprocess,
        texts: Texts | None = None,
        features: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        self.ref, self.seed = ref, seed
        self.ids: list[str] = frame["id"].astype(str).tolist()
        self.paths: list[str] = frame["path"].astype(str).tolist()
        self.mos = torch.tensor(frame["mos"].to_numpy(float), dtype=torch.float32)
        self.std = torch.tensor(frame["std"].to_numpy(float), dtype=torch.float32)
        self.distortions: list[str] | None = None
        if "distortion" in frame:
            levels = frame["levels" if "levels" in frame else "level"]
            self.distortions = frame["distortion"].fillna("").astype(str).tolist()
            self.levels: list[str] = levels.astype(str).tolist()
        self.prompts = frame["prompt"].fillna("").astype(str).tolist() if "prompt" in frame else None
        self.view, self.preprocess, self.texts, self.features = view, preprocess, texts, features

    def __len__(self) -> int:
        return len(self.ids)

    def with_view(self, view: View) -> ImageDataset:
        """The same images under another view; cached features are kept, as only one view can be cached."""
        other = copy.copy(self)
        other.view = view
        return other

    def __getitem__(self, index: int | Draw) -> Sample:
        row, epoch, visit, chain = index if isinstance(index, Draw) else Draw(index)
        sample = Sample(mos=self.mos[row], std=self.std[row], dataset=self.ref, id=self.ids[row])
        draw = generator(self.seed, epoch, f"{self.ref}|{self.ids[row]}", visit)
        if self.features is not None:
            sample["features"] = self.features[row]
        else:
            sample["image"] = load_views(self.paths[row], self.view, self.preprocess, draw=draw)
        if self.distortions is not None:
            sample["distortion"], sample["level"] = self.distortions[row], self.levels[row]
        if self.prompts is not None:
            sample["prompt"] = self.prompts[row]
        if chain is not None:
            sample["chain"] = torch.tensor(chain)
        if self.texts is not None:
            sample["text"] = self._text(row, draw)
        return sample

    def _text(self, row: int, draw: torch.Generator) -> str:
        choices = cast("Texts", self.texts)[(self.ref, self.ids[row])]
        return choices[int(torch.randint(len(choices), (), generator=draw))]

    def cached(self, draws: Sequence[Draw]) -> Batch:
        """The batch of some visits to images whose features are cached: rows of whole tensors, which takes a tenth
        of the time of collating samples.
        """
        rows = [draw.row for draw in draws]
        index = torch.tensor(rows)
        batch = Batch(
            mos=self.mos[index],
            std=self.std[index],
            dataset=[self.ref] * len(rows),
            id=[self.ids[row] for row in rows],
            features=cast(Tensor, self.features)[index],
        )
        if draws[0].chain is not None:
            batch["chain"] = torch.tensor([draw.chain for draw in draws])
        if self.texts is not None:
            batch["text"] = [
                self._text(d.row, generator(self.seed, d.epoch, f"{self.ref}|{self.ids[d.row]}", d.visit))
                for d in draws
            ]
        if self.distortions is not None:
            batch["distortion"] = [self.distortions[row] for row in rows]
            batch["level"] = [self.levels[row] for row in rows]
        if self.prompts is not None:
            batch["prompt"] = [self.prompts[row] for row in rows]
        return batch


class Batches(Dataset[Batch]):
    """Whole batches of several data sets, joined end to end.

    Args:
        sets: at least one.
    """

    def __init__(self, sets: Sequence[ImageDataset]) -> None:
        self.sets = list(sets)
        self.ends = list(accumulate(len(s) for s in sets))

    def __getitem__(self, draws: Sequence[Draw]) -> Batch:
        owners = [bisect_right(self.ends, draw.row) for draw in draws]
        one = self.sets[owners[0]]
        if one.features is not None and len(set(owners)) == 1:
            first = self.ends[owners[0]] - len(one)
            return one.cached([draw._replace(row=draw.row - first) for draw in draws])
        samples = []
        for draw, owner in zip(draws, owners, strict=True):
            first = self.ends[owner] - len(self.sets[owner])
            samples.append(self.sets[owner][draw._replace(row=draw.row - first)])
        return collate(samples)


def collate(samples: list[Sample]) -> Batch:
    """Stack samples; images whose native sizes differ stay a list of (3, H, W) or (V, 3, H, W) tensors."""
    batch = Batch(
        mos=torch.stack([s["mos"] for s in samples]),
        std=torch.stack([s["std"] for s in samples]),
        dataset=[s["dataset"] for s in samples],
        id=[s["id"] for s in samples],
    )
    if "features" in samples[0]:
        batch["features"] = torch.stack([s["features"] for s in samples])
    else:
        images = [s["image"] for s in samples]
        alike = all(image.shape == images[0].shape for image in images)
        batch["image"] = torch.stack(images) if alike else cast(Tensor, images)
    if "chain" in samples[0]:
        batch["chain"] = torch.stack([s["chain"] for s in samples])
    if "text" in samples[0]:  # those of a chain come last, and have none
        batch["text"] = [s.get("text", "") for s in samples]
    if "distortion" in samples[0]:
        batch["distortion"] = [s.get("distortion", "") for s in samples]
        batch["level"] = [s.get("level", "0") for s in samples]
    if any("prompt" in s for s in samples):
        batch["prompt"] = [s.get("prompt", "") for s in samples]
    return batch
