"""A backbone whose first stages are frozen and cached, and training that starts from a scorer."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from PIL import Image
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.errors import ConfigError
from rali_zoo.models.base import Standardise
from rali_zoo.models.files import save_scorer
from rali_zoo.trainers import Regression
from rali_zoo.trainers.averaging import AverageWeights
from rali_zoo.views import View

LITE = "rali:efficientnet-lite0?size=64&pool=avg_std&stages=0,2,3,5"
PLAIN = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False,
         "enable_progress_bar": False, "enable_model_summary": False}  # fmt: skip


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A DataModule of 12 small rated images."""
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))
    rng, lines = np.random.default_rng(0), ["image,mos,split"]
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{1 + i % 5},{'val' if i > 7 else 'train'}")
    (tmp_path / "scores.csv").write_text("\n".join(lines))
    ref = f"csv:{tmp_path}/scores.csv?mos_range=1,5"
    view = View("whole", 64)
    return lambda **more: IQADataModule(
        train=ref, val=ref, test=ref, batch_size=4, train_view=view, eval_view=view, **more
    )


def test_first_and_rest_are_the_whole():
    backbone = Regression(LITE, encoder_lr=1e-3, frozen_stages=4).backbone.eval()
    image = torch.rand(2, 3, 64, 64)
    for stages in (1, 3, 4, 5):
        torch.testing.assert_close(
            backbone.rest(backbone.first(image, stages), stages), backbone(image).pooled
        )


def test_cached_and_uncached_training_agree(source):
    """What the frozen stages make is the same from the cache; the others, and they alone, are trained."""
    trained = []
    for cached in (True, False):
        seed_everything(0)
        module = Regression(LITE, hidden=8, dropout=0.0, lr=1e-3, encoder_lr=1e-3, frozen_stages=4)
        before = {k: v.clone() for k, v in module.network.state_dict().items()}
        Trainer(max_epochs=2, **PLAIN).fit(module, source(cache_features=cached))
        after = module.network.state_dict()
        moved = {k for k in before if not torch.equal(before[k], after[k])}
        still = {k for k in before if k not in moved and k.startswith("backbone")}
        assert all(f"backbone.net.blocks.{i}." not in " ".join(moved) for i in range(4))
        assert any(k.startswith("backbone.net.blocks.4") for k in moved)
        assert any(k.startswith("backbone.net.blocks.5") for k in moved)
        assert {k for k in before if "running" in k and k.startswith("backbone")} <= still
        trained.append(after)
    for name, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][name], rtol=1e-3, atol=1e-4)


def test_a_window_is_an_augmentation_of_training_alone(source):
    module = Regression(LITE, encoder_lr=1e-3, frozen_stages=4, window=0.5)
    network, first = module.network, module.encode_frozen(torch.rand(2, 3, 64, 64))
    module.train()
    draws = {tuple(network.features({"features": first})[0, 0].tolist()) for _ in range(8)}
    module.eval()
    whole = {tuple(network.features({"features": first})[0, 0].tolist()) for _ in range(8)}
    assert len(draws) > 1 and len(whole) == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"frozen_stages": 6}, "1 to 5"),
        ({"frozen_stages": 4, "window": 0.0}, "window=0.0"),
        ({"frozen_stages": 2, "backbone": "rali:tiny"}, "not known"),
    ],
)
def test_impossible_parts(settings, says):
    with pytest.raises(ConfigError, match=says):
        Regression(**{"backbone": LITE, "encoder_lr": 1e-3, **settings})


def test_training_starts_from_a_scorer_and_keeps_its_statistics(source, tmp_path):
    first = Regression(LITE, hidden=8, encoder_lr=0.0)
    Trainer(max_epochs=1, **PLAIN).fit(first, source())
    save_scorer(first.network, tmp_path / "first.safetensors")
    again = Regression(LITE, hidden=8, encoder_lr=0.0, lr=1e-2, init_from=str(tmp_path / "first.safetensors"))
    for name, value in first.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], value)
    Trainer(max_epochs=1, **PLAIN).fit(again, source())
    layers = [next(m for m in t.modules() if isinstance(m, Standardise)) for t in (first, again)]
    torch.testing.assert_close(layers[0].running_mean, layers[1].running_mean)
    assert not torch.equal(first.network.head.layers[2].weight, again.network.head.layers[2].weight)
    with pytest.raises(ConfigError, match=r"init_from=.*hidden"):
        Regression(LITE, hidden=9, init_from=str(tmp_path / "first.safetensors"))


def test_averaged_weights_are_what_is_kept(source):
    """And the average of a frozen encoder is that encoder, to the bit."""
    module = Regression(LITE, hidden=8, encoder_lr=0.0, lr=1e-1)
    before = module.encoder_key
    average = AverageWeights(decay=0.5)
    Trainer(max_epochs=2, callbacks=[average], **PLAIN).fit(module, source())
    kept = average._average_model.module.network.state_dict()
    for name, value in module.network.state_dict().items():
        torch.testing.assert_close(value, kept[name])
    assert module.encoder_key == before


def test_a_fit_that_fills_the_cache_is_the_one_that_finds_it_full(source):
    found = []
    for _ in range(2):
        seed_everything(0)
        module = Regression(LITE, hidden=8, dropout=0.5, encoder_lr=0.0, lr=1e-1)
        Trainer(max_epochs=1, **PLAIN).fit(module, source())
        found.append(module.network.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


class _FreezeLater(Callback):
    """From the second epoch on a bias of the head stays as it is, whose average has not come to it yet."""

    def on_train_epoch_start(self, trainer, pl_module):
        pl_module.network.head.layers[2].bias.requires_grad_(trainer.current_epoch == 0)


def test_what_never_moved_costs_nothing_and_the_rest_is_the_plain_average(source):
    own = AverageWeights(decay=0.9)
    counts, average = [], own._of_moving
    own._of_moving = lambda some, *rest: (counts.append(len(some)), average(some, *rest))
    found = []
    for averaging in (own, WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(0.9))):
        seed_everything(0)
        module = Regression(LITE, hidden=8, encoder_lr=0.0, lr=1e-1)
        Trainer(max_epochs=3, callbacks=[_FreezeLater(), averaging], **PLAIN).fit(module, source())
        found.append(module.network.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name])
    assert max(counts) < len(found[0]) / 2


def test_a_test_after_training_is_one_of_the_average(source, tmp_path):
    """Lightning's own callback loads the weights of the last step there."""
    module = Regression(LITE, hidden=8, encoder_lr=0.0, lr=1e-1)
    save = ModelCheckpoint(tmp_path, "a", save_on_train_epoch_end=True)
    plain = {**PLAIN, "enable_checkpointing": True}
    trainer = Trainer(max_epochs=2, callbacks=[AverageWeights(decay=0.9), save], **plain)
    trainer.fit(module, source())
    kept = {k: v.clone() for k, v in module.network.state_dict().items()}
    trainer.validate(module, datamodule=source(), ckpt_path=save.best_model_path, verbose=False)
    for name, value in module.network.state_dict().items():
        torch.testing.assert_close(value, kept[name])


def test_impossible_decay():
    with pytest.raises(ConfigError, match="below 1"):
        AverageWeights(decay=1.0)


def test_features_far_away_are_cut():
    layer = Standardise(3, limit=2.0).eval()
    torch.testing.assert_close(
        layer(torch.tensor([[100.0, -100.0, 1.0]])), torch.tensor([[2.0, -2.0, 1.0]]), rtol=1e-4, atol=1e-4
    )
