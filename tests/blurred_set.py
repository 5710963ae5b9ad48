"""A data set that can be learned in seconds: images of graded blur, as a csv file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

if TYPE_CHECKING:
    import lightning as L


def quiet_trainer(folder: Path, epochs: int, **options: object) -> L.Trainer:
    """A trainer on one CPU that shows nothing and, unless asked, keeps nothing."""
    import lightning as L

    return L.Trainer(
        **{
            "max_epochs": epochs,
            "default_root_dir": folder,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **options,
        }
    )


@pytest.fixture(scope="session")
def blurred(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Reference of 48 training, 16 validation and 16 test images whose MOS falls with their blur."""
    folder: Path = tmp_path_factory.mktemp("blurred")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(80):
        level = i % 8
        noise = Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
        noise.filter(ImageFilter.GaussianBlur(0.3 * level)).save(folder / f"{i:03d}.png")
        split = "train" if i < 48 else "val" if i < 64 else "test"
        rows.append({"image": f"{i:03d}.png", "mos": 90 - 10 * level + rng.normal(0, 1), "split": split})
    pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)
    texts = [
        {
            "dataset": f"csv:{folder / 'scores.csv'}?mos_range=0,100",
            "image_id": row["image"],
            "text": f"The image has blur of strength {i % 8}.",
            "score": float("nan"),
            "teacher": "test",
            "revision": "1",
            "seed": 0,
        }
        for i, row in enumerate(rows)
    ]
    pd.DataFrame(texts).to_parquet(folder / "texts.parquet", index=False)
    return f"csv:{folder / 'scores.csv'}?mos_range=0,100"


@pytest.fixture(scope="session")
def texts(blurred: str) -> str:
    """Path of descriptions of those images."""
    return str(Path(blurred.removeprefix("csv:").split("?")[0]).parent / "texts.parquet")
