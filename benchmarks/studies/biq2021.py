"""RALI against plain regression and against classical regressors, on real photographs with human scores.

    python benchmarks/studies/biq2021.py --seeds 0 1 2

needs ``../shared/data/biq2021`` and the file that the two configs name behind ``checkpoint=``: ImageNet weights of
TensorFlow's MobileNetV2 under timm's names, which no package carries. With another encoder (``backbone:
timm:tf_efficientnet_lite0?weights=package&…`` in both configs) it runs as well, and gives other numbers. It writes
``benchmarks/results/biq2021_mobilenetv2.json``. Everything sees the same frozen network; the classical
regressors see the features they were first measured with (the last maps, pooled).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from rali_zoo.backbones import create_backbone
from rali_zoo.backbones.weights import weights_hash
from rali_zoo.cli.main import main as rali_zoo
from rali_zoo.data.features import cached_features
from rali_zoo.data.tables import load_table
from rali_zoo.metrics import bootstrap_ci, paired_bootstrap, plcc, plcc_mapped, rmse, srcc
from rali_zoo.paths import text_sha256
from rali_zoo.report import provenance, write_json
from rali_zoo.views import View

CONFIGS = {
    "RALI": "configs/rali/biq2021_mobilenetv2.yaml",
    "Regression": "configs/regression/biq2021_mobilenetv2.yaml",
}
TARGET = Path("benchmarks/results/biq2021_mobilenetv2.json")
#: SRCC that the data set's authors report on their whole test split (2,000 images), not measured here.
REPORTED = {"BRISQUE": 0.604, "NASNet-Large": 0.6725}


def trained(name: str, seed: int) -> pd.DataFrame:
    """Test table (id, mos, score on [1, 5]) of a config and seed; a finished run is read, not repeated."""
    run = Path("runs/biq2021") / f"{name.lower()}_{seed}"
    if not (run / "results.json").exists():
        words = [
            f"--seed_everything={seed}",
            f"--trainer.default_root_dir={run}",
            "--trainer.enable_progress_bar=false",
        ]
        if rali_zoo(["fit", "--config", CONFIGS[name], *words]):
            raise SystemExit(f"{name} with seed {seed} failed")
    (path,) = json.loads((run / "results.json").read_text())["datasets"].values()
    table = pd.read_parquet(run / path["predictions"])
    return table.sort_values("id", ignore_index=True)


def pooled(size: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of the data set and the mean and deviation of the network's last maps at ``size`` pixels."""
    config = yaml.safe_load(Path(CONFIGS["Regression"]).read_text())
    uri = (
        config["model"]["init_args"]["backbone"]
        .replace("size=512", f"size={size}")
        .replace("levels=all", "levels=last")
    )
    backbone = create_backbone(uri).eval()
    frame = load_table("biq2021", config["data"]["root"]).frame
    key = f"last-{size}-{weights_hash(backbone)}"
    features = cached_features(
        "biq2021",
        frame,
        lambda x: backbone(x).pooled,
        key,
        View(),
        backbone.preprocess,
        batch_size=16,
        num_workers=0,
    )
    return frame, features.numpy()


def classical() -> dict[str, pd.DataFrame]:
    """RidgeCV on the mean at 384 pixels, and an RBF SVR on mean and deviation at 384 and 224."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    frame, large = pooled(384)
    _, small = pooled(224)
    half = large.shape[1] // 2
    models = {
        "RidgeCV, mean at 384": (
            make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 6, 25))),
            large[:, :half],
        ),
        "RBF SVR, mean and deviation at 384 and 224": (
            make_pipeline(StandardScaler(), SVR(C=3.0, epsilon=0.2, gamma="scale")),
            np.hstack([large, small]),
        ),
    }
    train, test = (frame["split"] != "test").to_numpy(), (frame["split"] == "test").to_numpy()
    found = {}
    rows, levels = every_level()
    aligned = pd.Series(range(len(rows)), rows["id"]).loc[frame["id"]].to_numpy()
    models["RBF SVR, every stage at 512 (what RALI and Regression see)"] = (
        make_pipeline(StandardScaler(), SVR(C=3.0, epsilon=0.2, gamma="scale")),
        levels[aligned],
    )
    for name, (model, x) in models.items():
        score = model.fit(x[train], frame["mos"][train]).predict(x[test])
        table = pd.DataFrame({"id": frame["id"][test], "mos": frame["mos"][test], "score": score})
        found[name] = table.sort_values("id", ignore_index=True)
    return found


def every_level() -> tuple[pd.DataFrame, np.ndarray]:
    """Rows, and the features that RALI and regression see; they are in the cache after a run of either."""
    from rali_zoo.data.features import CPU_BATCH
    from rali_zoo.trainers import Regression

    config = yaml.safe_load(Path(CONFIGS["Regression"]).read_text())
    module = Regression(**config["model"]["init_args"]).eval()
    table = load_table("biq2021", config["data"]["root"])
    frames = [table.split(role) for role in ("train", "val", "test")]
    parts = [
        cached_features(
            "biq2021", f, module.encode_frozen, module.encoder_key, View(), module.preprocess, CPU_BATCH, 0
        ).numpy()
        for f in frames
    ]
    return pd.concat(frames, ignore_index=True), np.vstack(parts)


def rows() -> dict[str, dict[str, Any]]:
    """By role, how many rows there are, and a hash of their names and MOS: other rows give other numbers."""
    table = load_table("biq2021", yaml.safe_load(Path(CONFIGS["Regression"]).read_text())["data"]["root"])
    found = {}
    for role in ("train", "val", "test"):
        part = table.split(role).sort_values("id")
        text = part[["id", "mos"]].to_csv(index=False, float_format="%.6g")
        found[role] = {"n": len(part), "sha256": text_sha256(text)}
    return found


def numbers(table: pd.DataFrame) -> dict[str, Any]:
    """Correlations of a test table, with the 95 % bootstrap interval of SRCC."""
    x, y = table["score"].to_numpy(), table["mos"].to_numpy()
    interval = bootstrap_ci(x, y)
    return {
        "n": len(table),
        "srcc": srcc(x, y),
        "srcc_low": interval.low,
        "srcc_high": interval.high,
        "plcc": plcc(x, y),
        "plcc_mapped": plcc_mapped(x, y),
        "rmse": rmse(x, y),
    }


def difference(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, float]:
    """SRCC of a minus SRCC of b, with the 95 % interval and p of the paired bootstrap."""
    if a["id"].tolist() != b["id"].tolist():
        raise SystemExit("the two tables hold different images")
    paired = paired_bootstrap(a["score"], b["score"], a["mos"])
    return {"srcc_difference": paired.difference, "low": paired.low, "high": paired.high, "p": paired.p_value}


def main() -> None:
    """Train, compare, write the results file, print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    runs = {name: {seed: trained(name, seed) for seed in seeds} for name in CONFIGS}
    fixed = classical()
    svr = fixed["RBF SVR, mean and deviation at 384 and 224"]
    content = {
        "data": "the part of BIQ2021 that is at hand; by role, how many rows there are and their hash",
        "rows": rows(),
        "measured": {
            **{
                f"{name}, seed {seed}": numbers(t)
                for name, tables in runs.items()
                for seed, t in tables.items()
            },
            **{f"{name}, mean of seeds": _mean(tables) for name, tables in runs.items()},
            **{name: numbers(table) for name, table in fixed.items()},
        },
        "paired": {
            **{
                f"RALI - Regression, seed {s}": difference(runs["RALI"][s], runs["Regression"][s])
                for s in seeds
            },
            **{f"{name} - SVR, seed {s}": difference(runs[name][s], svr) for name in CONFIGS for s in seeds},
        },
        "reported_by_authors_on_their_whole_test_split": REPORTED,
        "seeds": seeds,
        **provenance({name: yaml.safe_load(Path(path).read_text()) for name, path in CONFIGS.items()}),
    }
    write_json(TARGET, content)
    print(json.dumps({k: content[k] for k in ("measured", "paired")}, indent=2))


def _mean(tables: dict[int, pd.DataFrame]) -> dict[str, float]:
    rows = pd.DataFrame([numbers(t) for t in tables.values()])
    return {
        "srcc": rows["srcc"].mean(),
        "srcc_sd": rows["srcc"].std(),
        "plcc": rows["plcc"].mean(),
        "runs": len(rows),
    }


if __name__ == "__main__":
    main()
