"""What the analyses are tried on: the shipped reasoner, which can write, and a few synthetic images."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from rali_zoo.analysis.common import Settings

REFS = ["synthetic:lab?n=60", "synthetic:phone?n=60"]


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(split="all", limit=24, batch_size=12, resamples=50)


@pytest.fixture(scope="session")
def reasoner():
    from rali_zoo.zoo import load_reasoner

    return load_reasoner("reasoner-tiny-synthetic", "score", None)


@pytest.fixture(scope="session")
def frames(settings):
    from rali_zoo.analysis.common import choose

    return choose(REFS, settings)


@pytest.fixture(scope="session")
def build_family():
    """Maker of tiny models of the families that the reasoner is meant for."""
    place = Path(__file__).parents[1] / "vlm_families.py"
    spec = importlib.util.spec_from_file_location("vlm_families", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build
