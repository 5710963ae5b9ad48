"""Regression and RALI trained for real, on images of graded blur."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from blurred_set import quiet_trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from scipy.stats import spearmanr

import rali_zoo
from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.errors import CheckpointError, ConfigError
from rali_zoo.trainers import RALI, Regression
from rali_zoo.views import View

BACKBONE = "rali:tiny?size=40"


def trainer(folder: Path, epochs: int, **options) -> L.Trainer:
    keep = ModelCheckpoint(folder, filename="best", monitor="val/srcc", mode="max", save_last=True)
    kept = {"enable_checkpointing": True, "num_sanity_val_steps": 0, "callbacks": [keep]}
    return quiet_trainer(folder, epochs, **kept, **options)


def data(blurred: str, **options) -> IQADataModule:
    return IQADataModule(train=[blurred], batch_size=16, **options)


def rali(**options) -> RALI:
    settings = {"text_encoder": "rali:hash", "align_epochs": 4, "prototypes": 12, "buckets": 8, "pca_dim": 16}
    return RALI(BACKBONE, **{**settings, **options})


@pytest.fixture(scope="module")
def trained(blurred, texts, tmp_path_factory) -> tuple[Path, float, dict]:
    """Folder of a RALI run, its test SRCC, and its test table."""
    folder = tmp_path_factory.mktemp("rali")
    L.seed_everything(0)
    run = trainer(folder, 12)
    module = rali()
    run.fit(module, data(blurred, descriptions=[texts]))
    (metrics,) = run.test(module, data(blurred), ckpt_path="best", verbose=False)
    return folder, metrics[f"test/{blurred}/srcc"], module.test_tables[blurred]


def test_regression_learns(blurred, tmp_path):
    L.seed_everything(0)
    run, module = trainer(tmp_path, 12), Regression(BACKBONE)
    run.fit(module, data(blurred))
    (metrics,) = run.test(module, data(blurred), ckpt_path="best", verbose=False)
    assert metrics[f"test/{blurred}/srcc"] > 0.8
    assert metrics[f"test/{blurred}/n"] == 16


def test_rali_learns_through_its_three_stages(trained):
    assert trained[1] > 0.8


def test_logged_numbers_are_those_of_the_table(trained):
    _, logged, table = trained
    assert list(table.columns) == ["id", "mos", "score", "std", "error"]
    assert logged == pytest.approx(spearmanr(table["score"], table["mos"])[0], abs=1e-6)
    assert table["score"].between(1, 5).all() and table["mos"].between(1, 5).all()


@pytest.mark.parametrize("form", ["ckpt", "local-dir"])
def test_a_saved_scorer_gives_the_scores_of_the_test(trained, blurred, tmp_path, form):
    folder, _, table = trained
    images = Path(blurred.removeprefix("csv:").split("?")[0]).parent
    scorer = rali_zoo.load_model(f"ckpt:{folder / 'best.ckpt'}")
    if form == "local-dir":
        rali_zoo.save_scorer(scorer.network, tmp_path / "model.safetensors")
        scorer = rali_zoo.load_model(f"local-dir:{tmp_path}")
    scores = scorer.score([images / i for i in table["id"]], batch_size=5)
    np.testing.assert_allclose([s.score for s in scores], table["score"], atol=1e-5)
    assert scorer.training_sets == (blurred,)
    names = set(scorer.network.state_dict())
    assert not any(name.startswith(("text_", "align_")) for name in names), (
        "what only training needs stays out"
    )


def test_descriptions_follow_the_prototypes_through_fine_tuning(trained):
    module = rali_zoo.load_model(f"ckpt:{trained[0] / 'last.ckpt'}").network
    k = int(module.active.sum())
    blur = [int(texts[0].rstrip(".")[-1]) for texts in module.prototype_texts]
    assert len(blur) == k
    assert spearmanr(blur, module.scores[:k].detach())[0] < -0.9


def test_scores_explain_themselves(trained, photo):
    scorer = rali_zoo.load_model(f"ckpt:{trained[0] / 'best.ckpt'}")
    (score,) = scorer.score(photo())
    assert score.path == "[0]" and 1 <= score.score <= 5 and score.std >= 0
    assert len(score.explanation) == 3
    assert score.explanation[0][0] >= score.explanation[1][0] > 0
    assert "blur of strength" in score.explain()


def test_bad_images_are_rows_not_crashes(trained, photo_folder, tmp_path):
    scorer = rali_zoo.load_model(f"ckpt:{trained[0] / 'best.ckpt'}")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    good = photo_folder(3)
    scores = scorer.score([good[0], broken, *good[1:], tmp_path / "absent.png"], batch_size=2)
    assert [s.error is None for s in scores] == [True, False, True, True, False]
    assert [s.path for s in scores][1] == str(broken)
    assert [s.score for s in scores] == pytest.approx(
        [scorer.score(p)[0].score if p in good else None for p in [good[0], broken, *good[1:], None]],
        abs=1e-5,
    )


def test_resume_ends_where_an_undisturbed_run_ends(blurred, texts, tmp_path):
    def run(folder: Path, epochs: int, resume: Path | None = None) -> RALI:
        L.seed_everything(1)
        module = rali(align_epochs=2, dropout=0.0)
        loop = trainer(folder, epochs)
        loop.fit(module, data(blurred, descriptions=[texts]), ckpt_path=resume)
        return module

    whole = run(tmp_path / "whole", 4)

    class Stop(L.Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 3:
                raise KeyboardInterrupt

    L.seed_everything(1)
    interrupted = trainer(tmp_path / "part", 4)
    interrupted.callbacks.append(Stop())
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        interrupted.fit(rali(align_epochs=2, dropout=0.0), data(blurred, descriptions=[texts]))
    resumed = run(tmp_path / "part", 4, tmp_path / "part" / "last.ckpt")
    assert bool(resumed.network.ready)
    torch.testing.assert_close(resumed.network.vectors, whole.network.vectors, atol=1e-5, rtol=1e-4)
    assert resumed.network.prototype_texts == whole.network.prototype_texts


def test_stages_one_by_one(blurred, texts, tmp_path):
    first, second, third = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    L.seed_everything(0)
    trainer(first, 4).fit(rali(stages=["align"]), data(blurred, descriptions=[texts]))
    with pytest.raises(CheckpointError, match="prototypes"):
        rali_zoo.load_model(f"ckpt:{first / 'last.ckpt'}")
    start = {"init_from": str(first / "last.ckpt"), "stages": ["prototypes"]}
    trainer(second, 1).fit(rali(**start), data(blurred, descriptions=[texts]))
    made = rali_zoo.load_model(f"ckpt:{second / 'last.ckpt'}").network
    aligned = torch.load(first / "last.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(made.state_dict()["backbone.mean"], aligned["network.backbone.mean"])
    for name, value in made.projector.state_dict().items():
        torch.testing.assert_close(value, aligned[f"network.projector.{name}"])
    start = {"init_from": str(second / "last.ckpt"), "stages": ["finetune"]}
    trainer(third, 3).fit(rali(**start), data(blurred))
    tuned = rali_zoo.load_model(f"ckpt:{third / 'last.ckpt'}").network
    assert not torch.equal(tuned.vectors, made.vectors)
    for name, value in made.state_dict().items():  # statistics of frozen parts too
        if name.startswith(("backbone.", "projector.", "components", "projection_")):
            torch.testing.assert_close(tuned.state_dict()[name], value, rtol=0, atol=0)
    assert tuned.prototype_texts == made.prototype_texts


def test_frozen_backbone_stays_and_its_features_are_cached(blurred, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))
    L.seed_everything(0)
    frozen = rali(encoder_lr=0.0, projector="mlp", hidden=32)
    before = {k: v.clone() for k, v in frozen.backbone.state_dict().items()}
    run = trainer(tmp_path, 6)
    module = data(blurred, descriptions=[texts])
    run.fit(frozen, module)
    for name, value in frozen.backbone.state_dict().items():
        torch.testing.assert_close(value, before[name])
    files = list((tmp_path / "cache" / "features").glob("*/*"))
    assert len(files) == 2  # training and validation
    assert "features" in module._sets["train"][0][0] and "image" not in module._sets["train"][0][0]
    stamp = files[0].stat().st_mtime_ns
    (metrics,) = run.test(frozen, data(blurred), verbose=False)
    uncached = trainer(tmp_path / "b", 1).test(frozen, data(blurred, cache_features=False), verbose=False)
    assert metrics[f"test/{blurred}/srcc"] == pytest.approx(uncached[0][f"test/{blurred}/srcc"], abs=1e-6)
    assert files[0].stat().st_mtime_ns == stamp


def test_random_views_cannot_be_cached(blurred, texts, tmp_path):
    module = data(blurred, descriptions=[texts], train_view=View("random_crop", size=32))
    with pytest.raises(ConfigError, match="cache_features=false"):
        trainer(tmp_path, 1).fit(rali(encoder_lr=0.0), module)


@pytest.mark.parametrize("source", ["text", "both"])
def test_prototypes_of_texts(blurred, texts, tmp_path, source):
    L.seed_everything(0)
    module = rali(prototype_source=source, align_epochs=2)
    trainer(tmp_path, 3).fit(module, data(blurred, descriptions=[texts]))
    assert bool(module.network.ready) and torch.isfinite(module.network.vectors).all()
    # Eight distinct texts: a bucket has no more prototypes of texts than it has different ones.
    assert 1 <= int(module.network.active.sum()) <= 12


def test_several_views_are_averaged(blurred, tmp_path):
    L.seed_everything(0)
    module = Regression(BACKBONE).eval()
    views = torch.rand(2, 3, 3, 40, 40)
    whole = module.predict_batch({"image": views}).score
    apart = torch.stack([module(views[:, i]) for i in range(3)]).mean(0)
    torch.testing.assert_close(whole, apart)


def test_gradients_reach_the_image():
    image = torch.rand(1, 3, 40, 40, requires_grad=True)
    Regression(BACKBONE).eval()(image).sum().backward()
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "data_options", "epochs", "says"),
    [
        ({}, {}, 8, "data.descriptions"),
        ({"align_epochs": 4}, {"descriptions": True}, 4, "raise it"),
        ({"stages": ["finetune"]}, {}, 2, "model.init_from"),
    ],
)
def test_settings_that_cannot_work_are_said(blurred, texts, tmp_path, options, data_options, epochs, says):
    chosen = {"descriptions": [texts]} if data_options else {}
    with pytest.raises(ConfigError, match=says):
        trainer(tmp_path, epochs).fit(rali(**options), data(blurred, **chosen))


@pytest.mark.parametrize(("make", "says"), [(Regression, "max_steps"), (rali, "at hand")])
def test_streams_without_a_plan_are_refused(make, says, blurred, tmp_path):
    """Their length is unknown: no schedule, and no end of an epoch at which prototypes could be made."""
    pytest.importorskip("braceexpand", reason="needs the extra stream")
    source = IQADataModule(train="webdataset:shards/{0..9}.tar", val=blurred, test=blurred)
    with pytest.raises(ConfigError, match=says):
        trainer(tmp_path, 2).fit(make(), source)


def test_untrained_scorer_is_refused(blurred, texts, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        rali_zoo.load_model(f"ckpt:{tmp_path / 'none.ckpt'}")
    evil = tmp_path / "evil.ckpt"
    import pickle

    evil.write_bytes(pickle.dumps({"state_dict": {}, "rali_zoo": print}))
    with pytest.raises(CheckpointError, match="safely|not written"):
        rali_zoo.load_model(f"ckpt:{evil}")


def test_unreadable_images_are_left_out_and_counted(blurred, tmp_path):
    import shutil

    source = Path(blurred.removeprefix("csv:").split("?")[0]).parent
    shutil.copytree(source, tmp_path / "copy")
    (tmp_path / "copy" / "064.png").write_bytes(b"\x89PNG broken")  # a test image
    ref = f"csv:{tmp_path / 'copy' / 'scores.csv'}?mos_range=0,100"
    module = Regression(BACKBONE)
    with pytest.raises(ConfigError, match="max_undecodable"):
        trainer(tmp_path, 1).test(module, data(ref), verbose=False)
    (metrics,) = trainer(tmp_path, 1).test(module, data(ref, max_undecodable=0.1), verbose=False)
    assert (metrics[f"test/{ref}/n"], metrics[f"test/{ref}/failed"]) == (15, 1)
    table = module.test_tables[ref]
    assert table.loc[table["id"] == "064.png", "error"].item() != ""


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_logged_is_what_lightning_logs(blurred, accumulate, tmp_path, monkeypatch):
    """Numbers that nothing reads are not handed over; the logger's rows are those of handing over all."""
    rows, handed = [], []
    for everything in (False, True):
        with monkeypatch.context() as patch:
            if everything:
                patch.setattr(Regression, "_is_read", lambda *given: True)
            counted = []
            log = Regression.log
            patch.setattr(Regression, "log", lambda s, n, *a, **o: (counted.append(n), log(s, n, *a, **o)))  # noqa: B023
            L.seed_everything(0)
            logger = CSVLogger(tmp_path / str(everything))
            options = {"logger": logger, "log_every_n_steps": 2, "accumulate_grad_batches": accumulate}
            quiet_trainer(tmp_path, 2, **options, limit_val_batches=0).fit(
                Regression(BACKBONE), IQADataModule(train=[blurred], batch_size=6)
            )
        rows.append(Path(logger.log_dir, "metrics.csv").read_text())
        handed.append(counted.count("train/loss"))
    assert rows[0] == rows[1] and rows[0].count("\n") > 4
    assert handed[0] < handed[1]


def test_a_callback_of_somebody_else_finds_every_step(blurred, tmp_path):
    """It may read ``callback_metrics``, which nobody can know."""

    class Reader(L.Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, trainer, *args):
            self.seen.append(float(trainer.callback_metrics["train/loss"]))

    reader = Reader()
    run = quiet_trainer(tmp_path, 1, callbacks=[reader], limit_val_batches=0)
    run.fit(Regression(BACKBONE), IQADataModule(train=[blurred], batch_size=6))
    assert len(set(reader.seen)) == len(reader.seen) == run.global_step > 4


def test_a_loss_that_is_watched_is_logged_at_every_step(blurred, tmp_path):
    kept = ModelCheckpoint(
        tmp_path, "{step}-{train/loss}", monitor="train/loss", every_n_train_steps=1, save_top_k=-1
    )
    run = quiet_trainer(tmp_path, 1, enable_checkpointing=True, callbacks=[kept], limit_val_batches=0)
    run.fit(Regression(BACKBONE), IQADataModule(train=[blurred], batch_size=6))
    values = {float(value) for value in kept.best_k_models.values()}
    assert len(values) == len(kept.best_k_models) == run.global_step > 4
