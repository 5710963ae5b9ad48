"""Settings that cannot work are refused by name, before anything is built or fetched."""

from __future__ import annotations

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from blurred_set import quiet_trainer

from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.errors import ConfigError
from rali_zoo.metrics.evaluation import evaluate
from rali_zoo.models.base import Standardise
from rali_zoo.trainers import RALI, DistributionRegression, Regression

NAN, INF = float("nan"), float("inf")
ABSENT = "timm:no_such_network"  # building it is another error
COMMON = [
    ("encoder_lr", -1.0),
    ("encoder_lr", INF),
    ("weight_decay", -0.1),
    ("plcc_weight", NAN),
    ("hidden", 0),
    ("dropout", 1.0),
    ("dropout", -0.1),
    ("dropout", NAN),
]
CASES = {
    Regression: [*COMMON, ("lr", -1.0), ("lr", NAN), ("fidelity_weight", INF)],
    DistributionRegression: [*COMMON, ("lr", -1e-9), ("beta", NAN), ("beta", -1.0)],
    RALI: [
        *COMMON,
        ("align_lr", -1.0),
        ("finetune_lr", NAN),
        ("finetune_projector_lr", -1.0),
        ("finetune_encoder_lr", NAN),
        ("text_lr", -1.0),
        ("fidelity_weight", -1.0),
        ("temperature", NAN),
        ("temperature", 0.0),
        ("temperature", INF),
        ("align_temperature", -0.07),
        ("align_sigma", -0.1),
        ("align_sigma", NAN),
        ("pca_dim", 0),
        ("prototypes", 0),
        ("buckets", 0),
        ("descriptions_kept", 0),
        ("embedding_dim", -4),
        ("align_epochs", -1),
    ],
}


def fit(module, folder, source, epochs=2):
    trainer = quiet_trainer(folder, epochs)
    trainer.fit(module, source)
    return trainer


def data(ref, **options):
    return IQADataModule(train=[ref], **{"batch_size": 16, **options})


@pytest.mark.parametrize(
    ("make", "name", "value"), [(make, *case) for make, cases in CASES.items() for case in cases]
)
def test_impossible_settings_are_refused_by_name(make, name, value):
    with pytest.raises(ConfigError, match=rf"model\.{name}="):
        make(ABSENT, **{name: value})


@pytest.mark.parametrize("make", list(CASES))
def test_settings_at_their_limits_are_not(make):
    rates = {"encoder_lr": 0.0, "weight_decay": 0.0, "plcc_weight": 0.0, "dropout": 0.0, "hidden": 1}
    make("rali:tiny?size=40", **rates, **({"text_encoder": "rali:hash"} if make is RALI else {}))


def test_texts_of_another_width_need_a_projector():
    with pytest.raises(ConfigError, match="projector: none .*set model.projector=linear"):
        RALI("rali:tiny?size=40", text_encoder="rali:hash", projector="none")


def test_more_buckets_than_prototypes_are_merged(blurred, texts, tmp_path):
    module = RALI("rali:tiny?size=40", "rali:hash", align_epochs=1, prototypes=5, buckets=9, pca_dim=4)
    fit(module, tmp_path, data(blurred, descriptions=[texts]))
    assert int(module.network.active.sum()) <= 5


def test_soft_targets_are_another_alignment(blurred, texts, tmp_path):
    found = []
    for sigma in (0.0, 0.5):
        L.seed_everything(0)
        settings = {"align_epochs": 1, "prototypes": 5, "buckets": 5, "pca_dim": 4, "align_sigma": sigma}
        module = RALI("rali:tiny?size=40", "rali:hash", **settings)
        fit(module, tmp_path, data(blurred, descriptions=[texts]))
        found.append(module.network.projector.state_dict())
    assert all(value.isfinite().all() for value in found[1].values())
    assert any(not torch.equal(value, found[1][name]) for name, value in found[0].items())


# ---- batches of one -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 47], ids=["batches of one", "a last batch of one"])
@pytest.mark.parametrize("name", ["regression", "rali"])
def test_a_batch_of_one_image_trains(name, size, blurred, texts, tmp_path):
    L.seed_everything(0)
    settings = {"text_encoder": "rali:hash", "align_epochs": 1, "prototypes": 6, "buckets": 4, "pca_dim": 8}
    module = (
        Regression("rali:tiny?size=40") if name == "regression" else RALI("rali:tiny?size=40", **settings)
    )
    trainer = fit(module, tmp_path, data(blurred, batch_size=size, descriptions=[texts]))
    assert all(torch.isfinite(v).all() for v in module.state_dict().values())
    (found,) = trainer.test(module, data(blurred), verbose=False)
    assert found[f"test/{blurred}/failed"] == 0


def test_single_rows_lead_to_the_statistics_of_their_kind():
    generator = torch.Generator().manual_seed(0)
    layer = Standardise(3).train()
    for _ in range(3000):
        layer(torch.tensor([5.0, -1.0, 0.0]) + 2 * torch.randn(1, 3, generator=generator))
    torch.testing.assert_close(layer.running_mean, torch.tensor([5.0, -1.0, 0.0]), atol=1.2, rtol=0)
    assert ((layer.running_var > 1) & (layer.running_var < 12)).all()
    x = torch.randn(8, 3, generator=generator)
    plain = torch.nn.BatchNorm1d(3, affine=False).train()
    torch.testing.assert_close(Standardise(3).train()(x), plain(x))


# ---- scores that are none -------------------------------------------------------------------------


def test_an_image_without_a_finite_score_has_failed():
    score = np.linspace(1, 5, 100)
    score[::2] = NAN
    frame = pd.DataFrame({"id": range(100), "mos": np.linspace(1, 5, 100), "score": score, "error": ""})
    frame.loc[::2, "error"] = "the model gave no finite score"
    numbers = evaluate(frame)
    assert (numbers["n"], numbers["failed"]) == (50, 50)


class Half(Regression):
    """Has no finite score for images of even ids."""

    def predict_batch(self, batch):
        out = super().predict_batch(batch)
        even = torch.tensor([int(i.split(".")[0]) % 2 == 0 for i in batch["id"]])
        return out._replace(score=torch.where(even, torch.tensor(INF), out.score))


def test_non_finite_scores_are_failures_and_no_epoch_is_chosen_by_the_rest(blurred, tmp_path):
    module = Half("rali:tiny?size=40")
    trainer = fit(module, tmp_path, data(blurred), epochs=1)
    assert np.isnan(float(trainer.callback_metrics["val/srcc"]))
    (found,) = trainer.test(module, data(blurred), verbose=False)
    assert (found[f"test/{blurred}/n"], found[f"test/{blurred}/failed"]) == (8, 8)
    table = module.test_tables[blurred]
    assert (table["error"] != "").sum() == 8
    assert table.loc[table["error"] != "", "score"].isna().all()
