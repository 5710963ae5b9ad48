"""The model for photographs that the package carries."""

import numpy as np
import pytest

import rali_zoo
from rali_zoo.data.synthetic.degraded import degrade
from rali_zoo.paths import SHIPPED
from rali_zoo.zoo import DEFAULT_MODEL


@pytest.fixture(scope="module")
def scorer():
    return rali_zoo.load_model("photo")


def test_it_is_the_default_small_and_says_what_it_was_trained_on(scorer):
    assert DEFAULT_MODEL == "photo"
    assert sum(p.numel() for p in scorer.network.parameters()) <= 2.5e6
    assert SHIPPED["photo"].stat().st_size < 25e6
    assert "biq2021" in scorer.training_sets
    assert rali_zoo.load_model("photo-small").revision == scorer.revision  # there is no larger one


def test_a_photograph_smaller_than_theirs_is_scored_with_a_warning(scorer):
    from skimage.data import chelsea

    large, small = scorer.score([chelsea(), chelsea()[:200, :200]])  # 300 x 451: BIQ2021's have 512 each way
    assert large.score is not None and small.score is not None
    assert "451x300" in large.warning and "200x200" in small.warning


@pytest.mark.parametrize("kind", ["gaussian_blur", "white_noise", "jpeg", "jpeg2000"])
def test_a_photograph_is_better_than_its_degraded_copies(scorer, kind):
    """One that it never saw, of scikit-image."""
    from skimage.data import chelsea

    image = chelsea().astype(np.float32) / 255
    copies = [np.round(255 * degrade(image, kind, level)).astype(np.uint8) for level in (0, 3, 5)]
    first, middle, last = (s.score for s in scorer.score(copies))
    assert first > middle > last


@pytest.mark.slow
def test_human_scores_of_photographs_not_trained_on(scorer, shared):
    from rali_zoo.data.tables import load_table
    from rali_zoo.metrics import srcc

    frame = load_table("biq2021", shared / "data").split("test")
    scores = [s.score for s in scorer.score(frame["path"].tolist())]
    assert srcc(scores, frame["mos"]) >= 0.84
