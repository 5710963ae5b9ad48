"""Learning from images whose order alone is known."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from PIL import Image
from torch.nn import functional as F

from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.data.synthetic.degraded import degrade
from rali_zoo.errors import ConfigError
from rali_zoo.models.base import Standardise
from rali_zoo.trainers import RALI, DistributionRegression, Regression
from rali_zoo.trainers.base import split_chains
from rali_zoo.trainers.losses import rank_loss
from rali_zoo.views import View

PLAIN = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False,
         "enable_progress_bar": False, "enable_model_summary": False}  # fmt: skip


def test_loss_is_that_of_all_pairs_of_each_chain():
    torch.manual_seed(0)
    score, chain = torch.rand(7) * 4 + 1, torch.tensor([0, 0, 0, 1, 1, 2, 2])
    pairs = [(0, 1), (0, 2), (1, 2), (3, 4), (5, 6)]
    expected = sum((j - i) * F.softplus((0.08 * (j - i) - (score[i] - score[j])) / 0.2) for i, j in pairs)
    torch.testing.assert_close(rank_loss(score, chain), expected / sum(j - i for i, j in pairs))
    assert rank_loss(score[:2], torch.tensor([0, 1])) == 0


def test_loss_falls_as_the_order_rights_itself():
    chain = torch.zeros(6, dtype=torch.long)
    good = torch.linspace(4.5, 1.5, 6)
    assert rank_loss(good, chain) < 0.15 < 1 < rank_loss(good.flip(0), chain)


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """References of rated photographs (their MOS says nothing) and of degraded ones."""
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))
    rng, folder = np.random.default_rng(0), tmp_path / "photographs"
    folder.mkdir()
    lines = ["image,mos,split"]
    for i in range(16):
        small = rng.integers(0, 255, (10, 10, 3)).astype(np.uint8)
        Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{rng.uniform(1, 5):.2f},{'val' if i > 11 else 'train'}")
    (folder / "scores.csv").write_text("\n".join(lines))
    return (
        f"csv:{folder}/scores.csv?mos_range=1,5",
        f"degraded:{folder}?types=gaussian_blur,jpeg&val_fraction=0",
    )


def data(sets, **more):
    rated, degraded = sets
    return IQADataModule(
        train=rated, val=rated, test=rated, ranks=degraded, chains=2, batch_size=6, eval_view=View("whole", 32),
        train_view=View("whole", 32), **more,
    )  # fmt: skip


def test_chains_follow_each_batch_best_image_first(sets):
    module, source = Regression("rali:tiny?size=32"), data(sets)
    seen = []

    class Look(Regression):
        def training_step(self, batch, batch_idx):
            seen.append(batch)
            return super().training_step(batch, batch_idx)

    module = Look("rali:tiny?size=32", encoder_lr=0)
    Trainer(max_epochs=2, **PLAIN).fit(module, source)
    assert len(seen) == 4
    for batch in seen:
        assert batch["chain"].tolist() == [-1] * 6 + [0] * 6 + [1] * 6
        assert batch["level"][6:] == ["0", "1", "2", "3", "4", "5"] * 2
        rated, ranked = split_chains(batch)
        assert bool(rated["mos"].isfinite().all()) and bool(ranked["mos"].isnan().all())
        assert len({i.split("-")[0] for i in ranked["id"][:6]}) == 1
    assert seen[0]["id"] != seen[2]["id"]
    assert module.network.training_sets == (*source.train_refs, *source.rank_refs)


@pytest.mark.parametrize("make", [Regression, DistributionRegression])
def test_the_order_is_learned(make, sets):
    seed_everything(0)
    module = make("rali:tiny?size=32", hidden=32, dropout=0.0, lr=3e-3, encoder_lr=3e-3, rank_weight=2.0)
    source = data(sets, seed=1)
    Trainer(max_epochs=30, check_val_every_n_epoch=30, **PLAIN).fit(module, source)
    image = np.asarray(Image.open(sets[0].split(":")[1].split("scores")[0] + "15.png"), np.float32) / 255
    levels = np.stack([degrade(image, "gaussian_blur", level) for level in (0, 3, 5)])
    small = F.interpolate(torch.from_numpy(levels).permute(0, 3, 1, 2), (32, 32), mode="area")
    first, middle, last = module.eval()(small).tolist()
    assert first > middle > last


def test_degraded_images_do_not_move_the_statistics(sets):
    """Those of the features are those of the rated images, whatever the chains hold."""
    states = []
    for weight in (0.0, 1.0):
        seed_everything(0)
        module = Regression("rali:tiny?size=32", encoder_lr=0, lr=0.0, rank_weight=weight)
        Trainer(max_epochs=1, **PLAIN).fit(module, data(sets))
        states.append(next(m for m in module.modules() if isinstance(m, Standardise)).running_mean)
    torch.testing.assert_close(*states)


def test_rali_learns_ranks_in_its_last_stage(sets):
    module = RALI(
        "rali:tiny?size=32", "rali:hash", align_epochs=1, encoder_lr=0, buckets=3, prototypes=4, pca_dim=None,
    )  # fmt: skip
    trainer = Trainer(max_epochs=2, **PLAIN)
    trainer.fit(module, data(sets, descriptions="attributes"))
    assert torch.isfinite(trainer.callback_metrics["train/rank_loss"])


def test_ranks_that_cannot_be_used_are_refused(sets):
    class Deaf(Regression):
        learns_ranks = False

    with pytest.raises(ConfigError, match="Deaf learns nothing"):
        Trainer(max_epochs=1, **PLAIN).fit(Deaf("rali:tiny?size=32"), data(sets))
    with pytest.raises(ConfigError, match="no training rows of one content"):
        Trainer(max_epochs=1, **PLAIN).fit(Regression("rali:tiny?size=32"), data((sets[0], sets[0])))
    with pytest.raises(ConfigError, match="chains=0"):
        IQADataModule(train=sets[0], ranks=sets[1], chains=0)
