"""Texts of training images: a few may be missing, and are said; many are an error."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from rali_zoo.data.descriptions import write_descriptions
from rali_zoo.data.texts import gather_texts
from rali_zoo.errors import ConfigError


@pytest.fixture
def sources(tmp_path) -> list[str]:
    """Texts of 9 of 10 images of "a", the first of them twice, and of all of "b"."""
    rows = [("a", f"{i}.png") for i in range(9)] + [("b", f"{i}.png") for i in range(10)]
    table = pd.DataFrame(rows, columns=["dataset", "image_id"]).assign(text="noise", seed=0)
    table = pd.concat([table, table.head(1).assign(text="strong noise", seed=1)], ignore_index=True)
    write_descriptions(table.assign(score=np.nan, teacher="t", revision="0"), tmp_path / "t.parquet")
    return [str(tmp_path / "t.parquet")]


FRAMES = {ref: pd.DataFrame({"id": [f"{i}.png" for i in range(10)]}) for ref in "ab"}


def test_few_are_left_out_and_said(sources, caplog):
    with caplog.at_level(logging.WARNING):
        found = gather_texts(sources, FRAMES, max_undescribed=0.1)
    assert len(found) == 19 and ("a", "9.png") not in found
    assert found["a", "0.png"] == ["noise", "strong noise"]
    assert "a: 1 of 10 training images" in caplog.text and "9.png" in caplog.text


def test_many_are_an_error(sources):
    with pytest.raises(ConfigError, match=r"a: 1 of 10 training images .*max_undescribed = 9\.0%"):
        gather_texts(sources, FRAMES, max_undescribed=0.09)
    with pytest.raises(ConfigError, match="c: 10 of 10 training images"):
        gather_texts(sources, {"c": FRAMES["a"]}, max_undescribed=0.5)
