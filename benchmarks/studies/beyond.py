"""What goes beyond the paper, measured: uncertainty, routing, fusion of several stages, native crops.

    python benchmarks/studies/beyond.py                         # all parts, about 10 minutes of one core
    python benchmarks/studies/beyond.py --parts routing         # one part; the others stay in the results file

writes ``benchmarks/results/beyond.json``. The parts on photographs need ``../shared/data/biq2021`` and the
MobileNetV2 weights that ``configs/regression/biq2021_mobilenetv2.yaml`` names.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import yaml

from rali_zoo.analysis.routing import route
from rali_zoo.analysis.uncertainty import coverage_report
from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.data.features import CPU_BATCH, cached_features
from rali_zoo.data.tables import load_table
from rali_zoo.metrics import bootstrap_ci, paired_bootstrap, plcc
from rali_zoo.models.scorer import NetworkScorer
from rali_zoo.report import provenance, write_json
from rali_zoo.trainers import DistributionRegression, Regression
from rali_zoo.trainers.base import IQAModule
from rali_zoo.views import View
from rali_zoo.zoo import load_model

TARGET = Path("benchmarks/results/beyond.json")
BIQ = Path("configs/regression/biq2021_mobilenetv2.yaml")
SEEDS = (0, 1, 2)
EPOCHS = 20
TRAIN, TEST = 400, 250  # photographs
LAST_MAPS = 1280  # channels of the last maps of MobileNetV2


def fitted(make: Callable[[], IQAModule], data: IQADataModule, epochs: int, seed: int) -> IQAModule:
    """A module trained with a seed, its last weights; one validation, at the end."""
    L.seed_everything(seed)
    module = make()
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=epochs,
    )
    trainer.fit(module, data)
    return module


def tables(module: IQAModule, data: IQADataModule) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Validation and test rows (id, mos, score, std) of a trained module, each sorted by id."""
    scorer = NetworkScorer(module.network, "trained here")
    parts = []
    for role in ("val", "test"):
        rows = load_table(data.train, data.root).split(role).sort_values("id", ignore_index=True)
        scores = scorer.score(rows["path"].tolist(), batch_size=64)
        numbers = {"score": [s.score for s in scores], "std": [s.std for s in scores]}
        parts.append(rows[["id", "mos"]].assign(**{k: np.array(v, float) for k, v in numbers.items()}))
    return parts[0], parts[1]


def correlations(test: pd.DataFrame) -> dict[str, float]:
    """SRCC with its 95 % interval, and PLCC."""
    x, y = test["score"].to_numpy(), test["mos"].to_numpy()
    found = bootstrap_ci(x, y)
    return {"srcc": found.value, "srcc_low": found.low, "srcc_high": found.high, "plcc": plcc(x, y)}


def compared(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, float]:
    """SRCC of ``a`` minus SRCC of ``b`` on the same images, by the paired bootstrap."""
    if a["id"].tolist() != b["id"].tolist():
        raise SystemExit("the two tables hold different images")
    found = paired_bootstrap(a["score"], b["score"], a["mos"])
    return {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p_value}


def report(val: pd.DataFrame, test: pd.DataFrame) -> dict[str, Any]:
    """Coverage and width of intervals."""
    return coverage_report(*(part[c].to_numpy() for part in (val, test) for c in ("mos", "score", "std")))


def runs_of(
    variants: dict[str, Callable[[], IQAModule]],
    data: Callable[[], IQADataModule],
    epochs: int,
    seeds: tuple[int, ...],
    against: str,
) -> dict[str, Any]:
    """Every variant with every seed: correlations, coverage where it gives a std, and differences."""
    found: dict[str, Any] = {}
    tests: dict[tuple[str, int], pd.DataFrame] = {}
    for name, make in variants.items():
        found[name] = {}
        for seed in seeds:
            module = fitted(make, data(), epochs, seed)
            val, test = tables(module, data())
            tests[name, seed] = test
            row: dict[str, Any] = {"n": len(test), **correlations(test)}
            if test["std"].notna().all():
                row["intervals"] = report(val, test)
            if name != against:
                row[f"minus {against}"] = compared(test, tests[against, seed])
            found[name][f"seed {seed}"] = row
            print(name, seed, {k: round(v, 4) for k, v in row.items() if isinstance(v, float)}, flush=True)
    return {"variants": found, "epochs": epochs, "compared with": against}


# ---- the parts ------------------------------------------------------------------------------


def on_shipped(make: Callable[..., Regression], **settings: Any) -> Regression:
    """A regression on the frozen encoder of the shipped regression-tiny-synthetic."""
    trained: Any = load_model("regression-tiny-synthetic")
    module = make(backbone=trained.network.backbone.uri, encoder_lr=0.0, **settings)
    module.network.backbone.load_state_dict(trained.network.backbone.state_dict())
    return module


def lab_data() -> IQADataModule:
    """The synthetic lab set."""
    return IQADataModule(train="synthetic:lab", batch_size=64)


def distribution() -> dict[str, Any]:
    """Distribution heads against a plain one, on the same frozen features."""
    return {
        "data": "synthetic:lab, 800 test images (SYNTHETIC labels)",
        "encoder": "frozen, of regression-tiny-synthetic",
        **runs_of(
            {
                "Regression": lambda: on_shipped(Regression),
                "DistributionRegression, target mos": lambda: on_shipped(DistributionRegression),
                "DistributionRegression, target ratings": lambda: on_shipped(
                    DistributionRegression, target="opinions"
                ),
            },
            lab_data,
            EPOCHS,
            SEEDS,
            "Regression",
        ),
    }


def routing() -> dict[str, Any]:
    """Curves from three cheap scorers to the tiny reasoner on the synthetic lab set."""
    table = load_table("synthetic:lab")
    val, test = table.split("val"), table.split("test")
    reasoner: Any = load_model("reasoner-tiny-synthetic")
    rali: Any = load_model("rali-tiny-synthetic")
    regression: Any = load_model("regression-tiny-synthetic")
    remembered = Remembered(reasoner)
    found: dict[str, Any] = {
        "rali-tiny-synthetic, by its std": route(rali, remembered, val, test),
        "regression-tiny-synthetic, by disagreement with rali-tiny-synthetic": route(
            regression, remembered, val, test, second=rali
        ),
    }
    own: Any = NetworkScorer(
        fitted(lambda: on_shipped(DistributionRegression), lab_data(), EPOCHS, 0),
        "DistributionRegression on the encoder of regression-tiny-synthetic",
    )
    found["DistributionRegression, by its std"] = route(own, remembered, val, test)
    for curve in found.values():  # the answers are remembered: their time is that of the first curve
        curve["seconds"]["expensive"] = found["rali-tiny-synthetic, by its std"]["seconds"]["expensive"]
    return {
        "data": "synthetic:lab, 800 test images (SYNTHETIC labels)",
        "expensive": reasoner.name,
        **found,
    }


class Remembered:
    """A scorer that answers the same images once."""

    def __init__(self, scorer: Any) -> None:
        self.scorer = scorer
        self.known: dict[str, Any] = {}
        self.name, self.revision, self.training_sets = scorer.name, scorer.revision, scorer.training_sets

    def score(self, images: Any, batch_size: int = 16, progress: Any = None) -> list[Any]:
        """As the scorer does."""
        new = [path for path in images if path not in self.known]
        if new:
            self.known |= dict(zip(new, self.scorer.score(new, batch_size=batch_size), strict=True))
        return [self.known[path] for path in images]


def features_of(frame: pd.DataFrame, size: int, view: View) -> np.ndarray:
    """(N, V, D) features of MobileNetV2 at ``size`` pixels: mean and deviation of the maps of every stage."""
    uri = yaml.safe_load(BIQ.read_text())["model"]["init_args"]["backbone"].replace(
        "size=512", f"size={size}"
    )
    module = Regression(backbone=uri, encoder_lr=0.0).eval()
    found = cached_features(
        "biq2021", frame, module.encode_frozen, module.encoder_key, view, module.preprocess, CPU_BATCH, 0
    ).numpy()
    return found if found.ndim == 3 else found[:, None]


def ridges(spaces: dict[str, np.ndarray], frame: pd.DataFrame, against: str) -> dict[str, Any]:
    """A ridge regression on each space of features, its weight chosen inside the training rows.

    Every view of a training image is a row; the scores of the views of a test image are averaged.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    test = (frame["split"] == "test").to_numpy()
    mos, tables = frame["mos"].to_numpy(), {}
    for name, x in spaces.items():
        model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(1, 6, 11)))
        model.fit(x[~test].reshape(-1, x.shape[-1]), np.repeat(mos[~test], x.shape[1]))
        score = model.predict(x[test].reshape(-1, x.shape[-1])).reshape(-1, x.shape[1]).mean(axis=1)
        tables[name] = pd.DataFrame({"id": frame["id"][test].tolist(), "mos": mos[test], "score": score})
    rows: dict[str, Any] = {}
    for name, table in tables.items():
        rows[name] = {"n": len(table), "dimensions": spaces[name].shape[-1], **correlations(table)}
        if name != against:
            rows[name][f"minus {against}"] = compared(table, tables[against])
        print(name, rows[name], flush=True)
    return {"variants": rows, "trained on": int((~test).sum()), "head": "RidgeCV"}


def photographs() -> pd.DataFrame:
    """A part of BIQ2021: the first images, in a random order, of training and of test rows."""
    table = load_table("biq2021", "../shared/data")
    train, test = (
        table.split(role).sample(n, random_state=0) for role, n in (("train", TRAIN), ("test", TEST))
    )
    return pd.concat([train, test], ignore_index=True)


def fusion() -> dict[str, Any]:
    """Mean and deviation of every stage's maps against those of the last, and the mean of the last alone."""
    frame = photographs()
    every = features_of(frame, 512, View())
    width = LAST_MAPS
    spaces = {
        "last stage, mean": every[..., -2 * width : -width],
        "last stage, mean and deviation": every[..., -2 * width :],
        "every stage, mean and deviation": every,
    }
    return {"data": "part of BIQ2021, at 512 pixels", **ridges(spaces, frame, "last stage, mean")}


def crops() -> dict[str, Any]:
    """The whole image at 224 pixels against four native crops of 224, and against the whole at 512."""
    frame = photographs()
    spaces = {
        "whole at 224": features_of(frame, 224, View()),
        "4 native crops of 224": features_of(frame, 224, View("grid", crops=4)),
        "whole at 512 (native)": features_of(frame, 512, View()),
    }
    return {"data": "part of BIQ2021; images have 512 pixels", **ridges(spaces, frame, "whole at 224")}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "distribution": distribution,
    "routing": routing,
    "fusion": fusion,
    "crops": crops,
}


def main() -> None:
    """Run the parts and put each into the results file as it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    for name in parser.parse_args().parts:
        found = PARTS[name]()
        content = json.loads(TARGET.read_text()) if TARGET.exists() else {}
        content[name] = {**found, **provenance({"part": name, "seed_everything": 0})}
        write_json(TARGET, content)
        print(
            f"{name} written to {TARGET}; python benchmarks/studies/tables.py shows it in the docs",
            flush=True,
        )


if __name__ == "__main__":
    main()
