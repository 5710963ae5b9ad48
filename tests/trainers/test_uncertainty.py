"""A regression of distributions: its loss, what it learns of known noise, and its calibration."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.errors import ConfigError
from rali_zoo.models.files import build, load_checkpoint, read_scorer, save_scorer
from rali_zoo.models.regression import LEVELS, DistributionNetwork
from rali_zoo.models.scorer import NetworkScorer
from rali_zoo.trainers import DistributionRegression
from rali_zoo.trainers.regression import distribution_loss
from rali_zoo.types import Batch


def normal(mean, std):
    return torch.distributions.Normal(torch.tensor(mean), torch.tensor(std))


def test_the_loss_is_the_likelihood_and_the_divergence_up_to_constants():
    score, std, mos, opinions = 3.2, 0.7, 2.9, 0.4
    args = [torch.tensor([v]) for v in (score, std, mos)]
    nll = -normal(score, std).log_prob(torch.tensor(mos))
    constant = 0.5 * np.log(2 * np.pi)
    assert distribution_loss(*args, beta=0.0).item() == pytest.approx(nll.item() - constant, abs=1e-6)
    kl = torch.distributions.kl_divergence(normal(mos, opinions), normal(score, std)).item()
    found = distribution_loss(*args, torch.tensor([opinions]), beta=0.0).item()
    assert found == pytest.approx(kl + 0.5 + np.log(opinions), abs=1e-6)


def test_the_weight_of_hard_images_carries_no_gradient():
    score = torch.tensor([3.0], requires_grad=True)
    std = torch.tensor([0.5], requires_grad=True)
    distribution_loss(score, std, torch.tensor([4.0]), beta=1.0).backward()
    assert score.grad.item() == pytest.approx(-1.0)  # that of half a square, whatever std is
    assert std.grad.item() == pytest.approx(0.25 * (1 / 0.5 - 1 / 0.5**3))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory) -> str:
    """Flat images: brightness tells the quality, and colour how far raters stray from it (0.1 or 0.8)."""
    folder: Path = tmp_path_factory.mktemp("noisy")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(700):
        hard, quality = bool(i % 2), rng.uniform(2, 4)
        colour = np.array([1.0, 0.4, 0.4] if hard else [0.4, 0.4, 1.0]) * 60 * quality
        pixels = np.clip(colour + rng.normal(0, 4, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        sd = 0.8 if hard else 0.1
        split = "train" if i < 400 else "val" if i < 550 else "test"
        mos = float(np.clip(rng.normal(quality, sd), 1, 5))
        rows.append({"image": f"{i}.png", "mos": mos, "std": sd, "split": split, "hard": int(hard)})
    pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)
    return f"csv:{folder / 'scores.csv'}?mos_range=1,5"


def fitted(ref: str, folder: Path, target: str, epochs: int = 25):
    torch.manual_seed(0)
    module = DistributionRegression(hidden=32, lr=1e-2, encoder_lr=0.0, target=target)
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        check_val_every_n_epoch=epochs,
    )  # fmt: skip
    data = IQADataModule(train=ref, batch_size=64)
    trainer.fit(module, data)
    trainer.save_checkpoint(folder / f"{target}.ckpt")
    trainer.test(module, data, verbose=False)
    return module, trainer


@pytest.fixture(scope="module")
def trained(noisy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return (*fitted(noisy, folder, "mos"), folder / "mos.ckpt", noisy)


def test_known_noise_is_found_and_covered_as_often_as_promised(trained):
    module, trainer, _, ref = trained
    table = module.test_tables[ref]
    hard = np.array([int(Path(i).stem) % 2 == 1 for i in table["id"]])
    # What is known: errors of standard deviation 0.1 or 0.8; the calibrated std tells one from the other.
    assert 0.05 < table["std"][~hard].median() < 0.35 and 0.5 < table["std"][hard].median() < 1.3
    assert int(module.network.calibrated_on) == 150
    for level in (0.5, 0.8, 0.95):
        coverage = float(trainer.callback_metrics[f"test/{ref}/coverage_{100 * level:.0f}"])
        error = 3 * np.sqrt(level * (1 - level) * (1 / 150 + 1 / 150))  # of calibration and of test
        assert abs(coverage - level) < error
    # One width for all would have to be far wider for the easy half.
    width = float(trainer.callback_metrics[f"test/{ref}/width_95"])
    error = (table["mos"] - table["score"]).abs()
    assert width < 0.9 * 2 * np.quantile(error, 0.95)


def test_intervals_of_a_checkpoint_a_scorer_file_and_the_module_agree(trained, tmp_path):
    module, _, checkpoint, _ = trained
    again = load_checkpoint(str(checkpoint))
    assert isinstance(again, DistributionNetwork) and set(again.settings) == {
        "backbone",
        "head",
        "hidden",
        "dropout",
    }
    file = save_scorer(again, tmp_path / "model.safetensors")
    image = torch.rand(3, 3, 32, 32)
    expected = module.eval().predict_batch(Batch(image=image))
    for other in (again, build(*read_scorer(file), "file")):
        found = other.predict_batch(Batch(image=image))
        assert torch.allclose(found.score, expected.score) and torch.allclose(found.std, expected.std)
    low, high = again.interval(expected.score, expected.std, 0.8)
    wide_low, wide_high = again.interval(expected.score, expected.std, 0.95)
    assert (wide_low <= low).all() and (high <= wide_high).all() and (low >= 1).all() and (high <= 5).all()
    (score,) = NetworkScorer(again, "it").score([(image[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)])
    assert score.std is not None and score.std > 0
    with pytest.raises(ConfigError, match="0.01 to 0.99"):
        again.interval(expected.score, expected.std, 0.999)


def test_the_std_of_ratings_is_learned_where_it_is_stated(noisy, tmp_path):
    module, _ = fitted(noisy, tmp_path, "opinions")
    table = module.test_tables[noisy]
    hard = np.array([int(Path(i).stem) % 2 == 1 for i in table["id"]])
    assert table["std"][hard].median() > 2 * table["std"][~hard].median()


def test_opinions_that_are_not_told_are_refused(blurred):
    module = DistributionRegression(encoder_lr=0.0, target="opinions")
    trainer = L.Trainer(fast_dev_run=1, accelerator="cpu", logger=False, enable_progress_bar=False)
    with pytest.raises(ConfigError, match="target=mos.*teacher-scores"):
        trainer.fit(module, IQADataModule(train=blurred, batch_size=8))


def test_calibration_scales_whatever_the_head_says():
    module = DistributionRegression(encoder_lr=0.0)
    error = torch.arange(1, 1000) / 1000.0
    for told in (0.01, 1.0, 20.0):
        module.calibrate(error, torch.full((999,), told))
        assert float(module.network.scale) * told == pytest.approx(0.683, abs=2e-3)
        assert float(
            module.network.quantiles[LEVELS.index(0.5)] * module.network.scale
        ) * told == pytest.approx(0.5, abs=2e-3)
    with pytest.raises(ConfigError, match="2 validation images"):
        module.calibrate(error[:1], torch.ones(1))
