"""Rows of a data set as :class:`~rali_zoo.types.Sample`: the torch side of a table."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rali_zoo.data.video import load_views
from rali_zoo.types import Batch, Preprocess, Sample
from rali_zoo.views import View

if TYPE_CHECKING:
    import pandas as pd

Texts = Mapping[tuple[str, str], Sequence[str]]


class ImageDataset(Dataset[Sample]):
    """The images of one table, decoded and cut as a view says.

    Args:
        ref: the data set's reference; becomes ``Sample["dataset"]``.
        frame: columns id, path, mos, std; MOS in [1, 5], NaN where unknown; ``distortion`` and ``level`` (or
            ``levels``, one for each of several classes) are handed on where there are any.
        view: how an image is cut.
        preprocess: what the backbone expects.
        texts: descriptions by (dataset, id); one of an image's is drawn at each visit.
        features: (N, D) or (N, V, D) cached features that take the place of the images.
    """

    def __init__(
        self,
        ref: str,
        frame: pd.DataFrame,
        view: View,
        preprocess: Preprocess,
        texts: Texts | None = None,
        features: Tensor | None = None,
    ) -> None:
        self.ref = ref
        self.ids: list[str] = frame["id"].astype(str).tolist()
        self.paths: list[str] = frame["path"].astype(str).tolist()
        self.mos = torch.tensor(frame["mos"].to_numpy(float), dtype=torch.float32)
        self.std = torch.tensor(frame["std"].to_numpy(float), dtype=torch.float32)
        self.distortions: list[str] | None = None
        if "distortion" in frame:
            levels = frame["levels" if "levels" in frame else "level"]
            self.distortions = frame["distortion"].fillna("").astype(str).tolist()
            self.levels: list[str] = levels.astype(str).tolist()
        self.view, self.preprocess, self.texts, self.features = view, preprocess, texts, features

    def __len__(self) -> int:
        return len(self.ids)

    def with_view(self, view: View) -> ImageDataset:
        """The same images under another view; cached features are kept, as only one view can be cached."""
        other = copy.copy(self)
        other.view = view
        return other

    def __getitem__(self, index: int) -> Sample:
        sample = Sample(mos=self.mos[index], std=self.std[index], dataset=self.ref, id=self.ids[index])
        if self.features is not None:
            sample["features"] = self.features[index]
        else:
            sample["image"] = load_views(self.paths[index], self.view, self.preprocess)
        if self.distortions is not None:
            sample["distortion"], sample["level"] = self.distortions[index], self.levels[index]
        if self.texts is not None:
            choices = self.texts[(self.ref, self.ids[index])]
            sample["text"] = choices[int(torch.randint(len(choices), ()))]
        return sample


def collate(samples: list[Sample]) -> Batch:
    """Stack samples; images of native size can only be stacked when their sizes agree."""
    batch = Batch(
        mos=torch.stack([s["mos"] for s in samples]),
        std=torch.stack([s["std"] for s in samples]),
        dataset=[s["dataset"] for s in samples],
        id=[s["id"] for s in samples],
    )
    if "features" in samples[0]:
        batch["features"] = torch.stack([s["features"] for s in samples])
    else:
        shapes = {tuple(s["image"].shape) for s in samples}
        if len(shapes) > 1:
            raise ValueError(
                f"images of different sizes in one batch: {sorted(shapes)[:4]}; use a view with a fixed "
                "size, or batch_size 1"
            )
        batch["image"] = torch.stack([s["image"] for s in samples])
    if "text" in samples[0]:
        batch["text"] = [s["text"] for s in samples]
    if "distortion" in samples[0]:
        batch["distortion"] = [s["distortion"] for s in samples]
        batch["level"] = [s["level"] for s in samples]
    return batch
