"""How many ratings of one's own ``photo`` needs: 50 to all of PCUID's training rows, against training from ImageNet.

    python benchmarks/studies/photo_ratings.py [--ratings 25 50 98] [--seeds 0 1 2]

fits configs/photo/finetune.yaml on that many underwater photographs of PCUID (of the rows at hand), from ``photo`` and,
with ``init_from`` empty, from ImageNet weights; both are tested on its test rows. Writes
``benchmarks/results/photo_ratings.json``; finished runs are read, not repeated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from rali_zoo import load_model
from rali_zoo.cli.main import main as rali_zoo
from rali_zoo.data.tables import load_table
from rali_zoo.metrics import bootstrap_ci, paired_bootstrap, srcc
from rali_zoo.report import provenance, write_json

CONFIG = Path("configs/photo/finetune.yaml")
RUNS = Path("runs/photo_ratings")
TARGET = Path("benchmarks/results/photo_ratings.json")
ROOT = "../shared/data"
TABLE = f"csv:{ROOT}/pcuid/scores.csv?mos_range=0,100&val_fraction=0"
IMAGENET = "rali:efficientnet-lite0?weights=package&size=384&resize=squash&pool=avg_std&stages=0,1,2,3,4,5"
STARTS = {
    "photo": [],
    "ImageNet": ["--model.init_args.init_from=null", f"--model.init_args.backbone={IMAGENET}"],
}


def drawn(ratings: int, seed: int) -> str:
    """Reference of a table of that many training rows."""
    rows = load_table(TABLE, ROOT).split("train").sample(ratings, random_state=seed)
    path = RUNS / f"ratings_{ratings}_{seed}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [str(Path(p).resolve()) for p in rows["path"]]
    pd.DataFrame({"image": images, "mos": rows["mos_native"], "split": "train"}).to_csv(path, index=False)
    return f"csv:{path}?mos_range=0,100&val_fraction=0"


def test_scores(start: str, ratings: int, seed: int) -> pd.DataFrame:
    """Test table (id, mos, score) of a run, trained first if it is not there."""
    run = RUNS / f"{start.lower()}_{ratings}_{seed}"
    if not (run / "results.json").exists():
        words = ["--data.train", drawn(ratings, seed), "--data.test", TABLE, *STARTS[start]]
        words += [f"--seed_everything={seed}", f"--data.seed={seed}", f"--trainer.default_root_dir={run}"]
        words += ["--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=0"]
        if rali_zoo(["fit", "--config", str(CONFIG), *words]):
            raise SystemExit(f"{run.name} failed")
    (found,) = json.loads((run / "results.json").read_text())["datasets"].values()
    return pd.read_parquet(run / found["predictions"]).sort_values("id", ignore_index=True)


def main() -> None:
    """Fit, test, write the results file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ratings", type=int, nargs="+", default=[25, 50, 98])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    frame = load_table(TABLE, ROOT).split("test").sort_values("id", ignore_index=True)
    zero = np.array([s.score for s in load_model("photo").score(frame["path"].tolist())], dtype=float)
    interval = bootstrap_ci(zero, frame["mos"])
    rows: list[dict[str, object]] = [
        {"start": "photo", "ratings": 0, "srcc": srcc(zero, frame["mos"]), "low": interval.low, "high": interval.high}
    ]  # fmt: skip
    for ratings in args.ratings:
        tables = {s: [test_scores(s, ratings, seed) for seed in args.seeds] for s in STARTS}
        for start, found in tables.items():
            values = [srcc(t["score"], t["mos"]) for t in found]
            ends = [bootstrap_ci(t["score"], t["mos"]) for t in found]
            rows.append(
                {
                    "start": start,
                    "ratings": ratings,
                    "srcc": np.mean(values),
                    "by_seed": values,
                    "low": np.mean([e.low for e in ends]),
                    "high": np.mean([e.high for e in ends]),
                }
            )
        pairs = [
            paired_bootstrap(a["score"], b["score"], a["mos"])
            for a, b in zip(tables["photo"], tables["ImageNet"], strict=True)
        ]
        rows[-2]["minus_imagenet"] = [
            {"difference": p.difference, "low": p.low, "high": p.high, "p": p.p_value} for p in pairs
        ]
    write_json(
        TARGET,
        {
            "data": "PCUID's rows at hand, split 98 train / 50 test; ratings: that many training rows, drawn by seed",
            "n_test": len(frame),
            "rows": rows,
            "seeds": args.seeds,
            **provenance(yaml.safe_load(CONFIG.read_text())),
        },
    )
    print(json.dumps(rows, indent=2, default=str))


if __name__ == "__main__":
    main()
