"""Does reinforcement help? A cold start, GRPO from it, and the two controls that matter, over several seeds.

    python benchmarks/studies/rl_study.py --vision ckpt --seeds 0 1 2

A tiny reasoner learns to describe and to rate ``synthetic:lab`` from *noisy* labels: the MOS pulled to the
middle (x 0.6) with noise of 0.6. Then, from the same cold start: GRPO, whose reward sees the *clean* MOS;
supervised training on the same noisy labels; supervised training on the clean labels. The supervised runs get
as many steps as take the CPU time of the reinforcement. All are tested, answers read greedily, on the test
part of ``synthetic:lab`` and, where it is at hand, of BIQ2021 (real photographs, never trained on).
A run that is finished is read, not repeated. Writes ``benchmarks/results/rl_study.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rali_zoo.data.phrases import distortion_in
from rali_zoo.data.tables import load_table
from rali_zoo.metrics import bootstrap_ci, paired_bootstrap, plcc, srcc
from rali_zoo.paths import atomic_path
from rali_zoo.report import provenance, write_json

TARGET = Path("benchmarks/results/rl_study.json")
RUNS = Path("runs/rl_study")
COLD, GRPO = "configs/reasoner/cold_start_tiny.yaml", "configs/reasoner/grpo_tiny.yaml"
SHRINK, NOISE = 0.6, 0.6
ARMS = ("cold start", "GRPO", "supervised, noisy labels", "supervised, clean labels")


def noisy_labels(seed: int) -> Path:
    """The table of ``synthetic:lab`` with noisy MOS in the training and validation rows."""
    path = RUNS / f"noisy_{seed}.csv"
    frame = load_table("synthetic:lab").frame
    frame = frame[frame["split"] != "test"]
    noise = np.random.default_rng(seed).normal(0, NOISE, len(frame))
    mos = (3 + SHRINK * (frame["mos"] - 3) + noise).clip(1, 5)
    columns = {
        "image": frame["path"], "mos": mos, "split": frame["split"], "content": frame["content"],
        "distortion": frame["distortion"], "level": frame["level"],
    }  # fmt: skip
    with atomic_path(path) as temporary:
        pd.DataFrame(columns).to_csv(temporary, index=False)
    return path


def rali_zoo(words: list[str]) -> float:
    """Run a command in a process of its own; its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "rali_zoo", *words], check=True, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def fit(folder: Path, config: str, seed: int, words: list[str]) -> dict[str, float]:
    """Train unless done; CPU seconds of the whole command and the steps it took."""
    done = folder / "cost.json"
    if not done.exists():
        common = [
            f"--seed_everything={seed}", f"--trainer.default_root_dir={folder}",
            "--trainer.enable_progress_bar=false", f"--model.init_args.seed={seed}", "--test_after_fit=false",
        ]  # fmt: skip
        seconds = rali_zoo(["fit", "--config", config, *common, *words])
        done.write_text(json.dumps({"cpu_seconds": seconds}))
    content: dict[str, float] = json.loads(done.read_text())
    return content


def described(checkpoint: Path, data: str, root: str) -> pd.DataFrame:
    """Greedy texts and scores of a data set's test rows, joined with their MOS; unread ones have NaN."""
    texts = checkpoint.parent.parent / f"{data.replace(':', '_')}.parquet"
    if not texts.exists():
        words = [
            "--data",
            data,
            "--split",
            "test",
            "--temperature",
            "0",
            "--batch_size",
            "32",
            "--root",
            root,
        ]
        rali_zoo(["describe", "--model", f"ckpt:{checkpoint}", "--output", str(texts), *words])
    rows = load_table(data, root).split("test").rename(columns={"id": "image_id"})
    return rows.merge(pd.read_parquet(texts)[["image_id", "text", "score"]], on="image_id", how="left")


def measures(table: pd.DataFrame) -> dict[str, Any]:
    """What is reported of one model on one data set."""
    read = table[table["score"].notna()]
    low, high = _interval(read)
    found: dict[str, Any] = {
        "n": len(table),
        "unparseable": int(table["score"].isna().sum()),
        "srcc": srcc(read["score"], read["mos"]),
        "srcc_low": low,
        "srcc_high": high,
        "plcc": plcc(read["score"], read["mos"]),
        "distinct_scores": int(read["score"].nunique()),
        "distinct_texts_share": table["text"].nunique() / len(table),
    }
    if (table["distortion"].fillna("") != "").all():
        named = table["text"].fillna("").map(distortion_in)
        found["distortion_type_accuracy"] = float((named == table["distortion"]).mean())
    return found


def _interval(read: pd.DataFrame) -> tuple[float, float]:
    result = bootstrap_ci(read["score"], read["mos"], srcc, seed=0, groups=read["content"].tolist())
    return result.low, result.high


def one_seed(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """All four models of a seed, tested."""
    base = RUNS / f"seed_{seed}"
    noisy = noisy_labels(seed)
    vlm = [f"--model.init_args.vlm={options.vlm}&seed={seed}"]
    noisy_data = [f"--data.train=csv:{noisy}?mos_range=1,5", "--data.val=synthetic:lab"]
    clean_data = ["--data.train=synthetic:lab", "--data.val=synthetic:lab"]
    ends = [f"--trainer.max_steps={options.cold_steps}", "--trainer.max_epochs=-1"]
    vision = [f"--model.init_args.vision_from={options.vision}"]
    cold = base / "cold"
    paid = {ARMS[0]: fit(cold, COLD, seed, [*vlm, *vision, *noisy_data, *ends])}
    start = [f"--model.init_args.init_from={cold}/checkpoints/last.ckpt"]
    steps = ["--trainer.max_epochs=-1", "--trainer.limit_train_batches=1.0"]
    reinforced = [*vlm, *start, *clean_data, *steps, f"--trainer.max_steps={options.grpo_steps}"]
    paid[ARMS[1]] = fit(base / "grpo", GRPO, seed, reinforced)
    a_step = paid[ARMS[0]]["cpu_seconds"] / options.cold_steps
    as_many = max(1, round(paid[ARMS[1]]["cpu_seconds"] / a_step))
    further = [
        *vlm, *start, "--model.init_args.vision_from=null", "--trainer.max_epochs=-1",
        f"--trainer.max_steps={as_many}", "--model.init_args.schedule.lr=1e-3",
    ]  # fmt: skip
    paid[ARMS[2]] = fit(base / "noisy", COLD, seed, [*further, *noisy_data])
    paid[ARMS[3]] = fit(base / "clean", COLD, seed, [*further, *clean_data])
    out: dict[str, Any] = {"cost": paid, "supervised_steps": as_many, "measured": {}, "paired": {}}
    for data, root in options.data:
        tables = {
            arm: described(base / name / "checkpoints" / "last.ckpt", data, root)
            for arm, name in zip(ARMS, ("cold", "grpo", "noisy", "clean"), strict=True)
        }
        out["measured"][data] = {arm: measures(table) for arm, table in tables.items()}
        out["paired"][data] = {
            f"GRPO - {arm}": _paired(tables["GRPO"], table) for arm, table in tables.items() if arm != "GRPO"
        }
    return out


def _paired(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, float]:
    both = first["score"].notna() & second["score"].notna()
    a, b = first[both], second[both]
    groups = a["content"].tolist()
    result = paired_bootstrap(a["score"], b["score"], a["mos"], srcc, seed=0, groups=groups)
    return {"difference": result.difference, "low": result.low, "high": result.high, "p": result.p_value}


def summary(seeds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds of every number."""
    out: dict[str, Any] = {}
    one = next(iter(seeds.values()))["measured"]
    for data, arms in one.items():
        for arm, numbers in arms.items():
            values = {k: [s["measured"][data][arm][k] for s in seeds.values()] for k in numbers}
            out.setdefault(data, {})[arm] = {
                k: {"mean": float(np.mean(v)), "sd": float(np.std(v, ddof=1)) if len(v) > 1 else None}
                for k, v in values.items()
            }
    return out


def main() -> None:
    """Run what is missing and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--vision", required=True, help="checkpoint of a regression on the vision net of --vlm"
    )
    parser.add_argument("--vlm", default="rali:vlm-tiny?vision=small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cold_steps", type=int, default=300)
    parser.add_argument("--grpo_steps", type=int, default=150)
    parser.add_argument("--biq2021", default="../shared/data", help="folder that holds biq2021/")
    options = parser.parse_args()
    options.data = [("synthetic:lab", "data")]
    if (Path(options.biq2021) / "biq2021").is_dir():
        options.data.append(("biq2021", options.biq2021))
    RUNS.mkdir(parents=True, exist_ok=True)
    seeds = {str(seed): one_seed(seed, options) for seed in options.seeds}
    settings = {k: getattr(options, k) for k in ("vlm", "seeds", "cold_steps", "grpo_steps")}
    settings |= {"label_shrink": SHRINK, "label_noise": NOISE}
    content = {"settings": settings, **provenance(settings), "mean": summary(seeds), "by_seed": seeds}
    write_json(TARGET, content)
    print(json.dumps(content["mean"], indent=1))


if __name__ == "__main__":
    main()
