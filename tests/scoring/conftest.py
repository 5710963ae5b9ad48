"""A scorer file and folders of images that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    import torch

    from rali_zoo.models.files import save_scorer
    from rali_zoo.models.regression import RegressionNetwork

    torch.manual_seed(0)
    path = save_scorer(RegressionNetwork("rali:tiny"), tmp_path_factory.mktemp("m") / "model.safetensors")
    return f"local-dir:{path}"


@pytest.fixture(scope="session")
def many() -> Callable[[Path, int], Path]:
    """Maker of a folder of small JPEGs, each 97th of them damaged."""

    def make(folder: Path, count: int) -> Path:
        import numpy as np
        from PIL import Image

        folder.mkdir(parents=True)
        base = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        for i in range(count):
            path = folder / f"{i:06d}.jpg"
            if i % 97 == 5:
                path.write_bytes(b"damaged")
            else:
                Image.fromarray(np.roll(base, i % 48)).resize((80, 60)).save(path, quality=80)
        return folder

    return make
