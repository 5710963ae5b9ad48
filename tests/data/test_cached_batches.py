"""Batches of cached features hold what collating the samples one by one holds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from rali_zoo.data.dataset import Batches, Draw, ImageDataset, collate
from rali_zoo.types import Preprocess
from rali_zoo.views import View

ROWS = 12


def images(ref: str = "made", texts: bool = False, **more: list[str]) -> ImageDataset:
    frame = pd.DataFrame(
        {"id": [f"{i}.png" for i in range(ROWS)], "path": "nowhere", "mos": np.linspace(1, 5, ROWS)}
    )
    frame["std"] = [0.5, float("nan")] * (ROWS // 2)
    for name, values in more.items():
        frame[name] = values
    written = (
        {(ref, i): [f"{i} is sharp", f"{i} is soft", f"{i} is noisy"] for i in frame["id"]} if texts else None
    )
    features = torch.randn(ROWS, 2, 7, generator=torch.Generator().manual_seed(0))
    return ImageDataset(ref, frame, View(), Preprocess((32, 32)), written, features, seed=3)


def same(a: dict, b: dict) -> None:
    assert list(sorted(a)) == list(sorted(b))
    for name, value in a.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, b[name], rtol=0, atol=0, equal_nan=True)
        else:
            assert value == b[name], name


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"texts": True},
        {"distortion": ["jpeg", "blur"] * 6, "level": [str(i % 5) for i in range(ROWS)]},
        {"distortion": ["jpeg;blur"] * ROWS, "level": ["3"] * ROWS, "levels": ["3;1"] * ROWS},
        {"texts": True, "prompt": ["a hunter", ""] * 6},
    ],
)
def test_a_batch_of_rows_is_a_batch_of_samples(more):
    data = images(**more)
    for draws in (
        [Draw(4), Draw(1), Draw(11)],
        [Draw(2, epoch=5), Draw(2, epoch=5, visit=1), Draw(2, epoch=6)],  # texts are drawn anew at each visit
    ):
        same(data.cached(draws), collate([data[draw] for draw in draws]))


def test_rows_of_several_sets_are_joined_as_samples_are():
    one, two = images("one", texts=True), images("two", texts=True)
    batches = Batches([one, two])
    second = [Draw(ROWS + 3, 1), Draw(ROWS, 1)]
    same(batches[second], collate([two[Draw(3, 1)], two[Draw(0, 1)]]))
    same(batches[[Draw(3, 1), *second]], collate([one[Draw(3, 1)], two[Draw(3, 1)], two[Draw(0, 1)]]))
    assert batches[second]["dataset"] == ["two", "two"]


def test_images_in_chains_keep_their_chain():
    data = images()
    batch = Batches([data])[[Draw(0, chain=-1), Draw(5, chain=0), Draw(6, chain=0)]]
    same(batch, collate([data[Draw(0, chain=-1)], data[Draw(5, chain=0)], data[Draw(6, chain=0)]]))
    assert batch["chain"].tolist() == [-1, 0, 0]
