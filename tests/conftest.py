"""What every test shares: one thread, no hub, a cache of its own, small photographs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch is imported anywhere: the machine's cores are shared, and nothing may reach the network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import numpy as np

SHARED = Path(__file__).resolve().parents[2] / "shared"

# How fast examples are drawn says how busy the machine is, not whether the code is right.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what tests build (synthetic data, features) out of the user's cache."""
    os.environ.setdefault("RALI_ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data and weights beside the repository; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED.name!r} with real data beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def photo() -> Callable[..., np.ndarray]:
    """Maker of small images: ``photo(height, width, seed)`` is (H, W, 3) uint8 with edges and texture."""

    def make(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
        import numpy as np

        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:height, 0:width]
        waves = sum(
            np.sin(
                2
                * np.pi
                * (rng.uniform(0.5, 6) * x / width + rng.uniform(0.5, 6) * y / height + rng.random())
            )
            for _ in range(5)
        )
        disc = (x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2 < (height / 3) ** 2
        grey = waves / 5 + disc * rng.uniform(-1, 1) + rng.normal(0, 0.05, (height, width))
        colour = grey[..., None] * rng.uniform(0.5, 1, 3) + rng.uniform(-0.3, 0.3, 3)
        return np.clip(127.5 + 90 * colour, 0, 255).astype(np.uint8)

    return make


@pytest.fixture
def photo_folder(tmp_path: Path, photo: Callable[..., np.ndarray]) -> Callable[..., list[Path]]:
    """Maker of a folder of png photographs: ``photo_folder(n)`` returns their paths."""

    def make(n: int, folder: Path | None = None, height: int = 48, width: int = 64) -> list[Path]:
        from PIL import Image

        target = folder or tmp_path / "photos"
        target.mkdir(parents=True, exist_ok=True)
        paths = [target / f"photo{i:03d}.png" for i in range(n)]
        for i, path in enumerate(paths):
            Image.fromarray(photo(height, width, seed=i)).save(path)
        return paths

    return make


def pytest_collection_finish(session: pytest.Session) -> None:
    """One torch thread once tests are known to run, if any of them imported torch."""
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
