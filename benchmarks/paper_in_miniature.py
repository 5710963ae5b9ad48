"""The paper in miniature: RACT against its rivals, and the paper's claims, from the stages of the recipe.

    rali-zoo pipeline configs/pipelines/paper_in_miniature.yaml
    python benchmarks/paper_in_miniature.py [--folder runs/paper_in_miniature] [--seeds 0 1 2]

writes ``benchmarks/results/paper_in_miniature.json`` and prints its table.
SRCC, each the mean over folds and seeds:

* ``in-domain``: a domain of the mix; ``cold start`` and ``single`` (the same after reinforcement) are tested
  on the domain that they were trained on;
* ``left out``: the domain that the mix leaves out; those two on each domain that they were not trained on;
* ``biq2021``: real photographs that none has seen.

Intervals and p-values come from resampling seeds and, within each test set, photographs (all images made
from one go together): each resample is the same for all rows, so that differences are paired. With three
seeds the part of the interval that is due to training is itself rough.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from claims import claims, costs
from scipy.stats import rankdata

from rali_zoo.cli.report import provenance
from rali_zoo.data.tables import load_table
from rali_zoo.paths import atomic_path
from rali_zoo.pipeline import seconds
from rali_zoo.recipe import read_recipe

RECIPE = Path("configs/pipelines/paper_in_miniature.yaml")
TARGET = Path("benchmarks/results/paper_in_miniature.json")
DOMAINS = ("lab", "wild", "phone")
#: Row of the table to (stage, column of its predictions).
METHODS = {
    "cold start": ("cold", "score"),
    "single": ("single", "score"),
    "naive mix": ("naive", "score"),
    "ranking mix": ("ranking", "score"),
    "RACT": ("ract", "score"),
    "RACT, text alone": ("ract", "text_score"),
    "RALI from RACT": ("rali", "score"),
    "regression, naive mix": ("eyes_mix", "score"),
    "RACT on label texts": ("ract_labels", "score"),
    "RACT, text and score": ("ract_scored", "score"),
    "RALI from the reasoners' own texts": ("rali_own", "score"),
    "RACT, whole model": ("ract_whole", "score"),
    "scores alone, whole model": ("scores_whole", "score"),
}
KINDS = ("in-domain", "left out", "biq2021")
#: Which differences are tested: first minus second.
PAIRS = [
    ("single", "cold start"),
    ("RACT", "single"),
    ("RACT", "naive mix"),
    ("RACT", "ranking mix"),
    ("naive mix", "single"),
    ("ranking mix", "naive mix"),
    ("RALI from RACT", "RACT"),
    ("RALI from RACT", "regression, naive mix"),
    ("RACT on label texts", "RACT"),
    ("RACT, text and score", "RACT"),
    ("RALI from the reasoners' own texts", "RALI from RACT"),
    ("RACT, whole model", "naive mix"),
    ("RACT, whole model", "ranking mix"),
    ("RACT, whole model", "RACT"),
    ("RACT, whole model", "scores alone, whole model"),
    ("RALI from RACT", "RACT, whole model"),
]
#: Which row keeps how much of which: first divided by second.
RATIOS = [("RALI from RACT", "RACT"), ("RALI from RACT", "RACT, whole model")]
_RESAMPLES = 1000


class Runs:
    """Predictions of every run on every test set, aligned by image.

    Args:
        folder: of the pipeline.
        seeds: those of the runs.
        root: folder of the real data set.
    """

    def __init__(self, folder: Path, seeds: list[int], root: str) -> None:
        self.folder, self.seeds = folder, seeds
        #: test set to its column names, (images, columns) predictions, MOS and photograph numbers
        self.columns: dict[str, list[tuple[str, int, str]]] = {}
        self.scores: dict[str, np.ndarray] = {}
        self.mos: dict[str, np.ndarray] = {}
        self.groups: dict[str, np.ndarray] = {}
        self.unreadable: dict[tuple[str, int, str], int] = {}
        for ref in self._refs():
            self._read(ref, root)

    def _refs(self) -> list[str]:
        first = self.folder / str(self.seeds[0]) / "naive" / "lab" / "results.json"
        return list(json.loads(first.read_text())["datasets"])

    def runs(self) -> Iterator[tuple[str, int, str, Path, str]]:
        """(row, seed, domain or domain left out, folder, column) of every run."""
        for name, (stage, column) in METHODS.items():
            for seed in self.seeds:
                for domain in DOMAINS:
                    yield name, seed, domain, self.folder / str(seed) / stage / domain, column

    def _read(self, ref: str, root: str) -> None:
        table = load_table(ref, root).split("test").set_index("id")
        found = {}
        for name, seed, domain, run, column in self.runs():
            listed = json.loads((run / "results.json").read_text())["datasets"]
            frame = pd.read_parquet(run / listed[ref]["predictions"]).set_index("id").loc[table.index]
            values = frame[column].to_numpy(float)
            bad = np.isnan(values)
            key = (name, seed, domain)
            self.unreadable[key] = self.unreadable.get(key, 0) + int(bad.sum())
            # an unreadable answer says nothing of its image: the middle of what the run says
            found[key] = np.where(bad, 3.0 if bad.all() else np.nanmean(values), values)
        self.columns[ref], self.scores[ref] = list(found), np.stack(list(found.values()), axis=1)
        self.mos[ref] = table["mos"].to_numpy(float)
        self.groups[ref] = pd.factorize(table["content"])[0]

    def domain(self, ref: str) -> str:
        """Short name of a test set."""
        return ref.partition("?")[0].removeprefix("synthetic:")

    def kind(self, name: str, domain: str, ref: str) -> str:
        """Which of :data:`KINDS` a run on a test set belongs to."""
        tested = self.domain(ref)
        if tested not in DOMAINS:
            return tested
        own = tested == domain if METHODS[name][0] in ("cold", "single") else tested != domain
        return "in-domain" if own else "left out"


def correlations(runs: Runs, draw: dict[str, np.ndarray]) -> dict[tuple[str, int, str, str], float]:
    """SRCC of every run on every test set, on the rows that are drawn: keys (row, seed, kind, tested)."""
    found: dict[tuple[str, int, str, str], list[float]] = {}
    for ref, rows in draw.items():
        x = rankdata(runs.scores[ref][rows], axis=0)
        y = rankdata(runs.mos[ref][rows])
        x, y = x - x.mean(axis=0), y - y.mean()
        norms = np.sqrt(np.square(x).sum(axis=0) * np.square(y).sum())
        values = np.divide(y @ x, norms, out=np.zeros(x.shape[1]), where=norms > 0)
        for (name, seed, domain), value in zip(runs.columns[ref], values, strict=True):
            key = (name, seed, runs.kind(name, domain, ref), runs.domain(ref))
            found.setdefault(key, []).append(float(value))
    return {key: float(np.mean(values)) for key, values in found.items()}


def summary(found: dict[tuple[str, int, str, str], float], seeds: list[int]) -> dict[tuple[str, str], float]:
    """Mean over test sets, then over seeds (a seed may come several times), by (row, kind)."""
    means = {}
    for name in METHODS:
        for kind in KINDS:
            each = [
                np.mean([v for (n, s, k, _), v in found.items() if (n, s, k) == (name, seed, kind)])
                for seed in seeds
            ]
            means[name, kind] = float(np.mean(each))
    return means


def resample(runs: Runs, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Rows of every test set, whole photographs drawn with replacement."""
    draw = {}
    for ref, groups in runs.groups.items():
        members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
        chosen = rng.integers(len(members), size=len(members))
        draw[ref] = np.concatenate([members[i] for i in chosen])
    return draw


def study(runs: Runs, resamples: int) -> dict[str, Any]:
    """The table: means, intervals, seeds apart, and paired differences."""
    whole = {ref: np.arange(len(mos)) for ref, mos in runs.mos.items()}
    exact = correlations(runs, whole)
    value = summary(exact, runs.seeds)
    rng = np.random.default_rng(0)
    draws: dict[tuple[str, str], list[float]] = {key: [] for key in value}
    for _ in range(resamples):
        seeds = [runs.seeds[i] for i in rng.integers(len(runs.seeds), size=len(runs.seeds))]
        for key, drawn in summary(correlations(runs, resample(runs, rng)), seeds).items():
            draws[key].append(drawn)
    table = {
        name: {
            kind: {
                "srcc": value[name, kind],
                "low": float(np.quantile(draws[name, kind], 0.025)),
                "high": float(np.quantile(draws[name, kind], 0.975)),
                "seeds": [summary(exact, [seed])[name, kind] for seed in runs.seeds],
                "tests": by_test(exact, name, kind),
            }
            for kind in KINDS
        }
        for name in METHODS
    }
    paired = {f"{a} - {b}": {kind: difference(value, draws, a, b, kind) for kind in KINDS} for a, b in PAIRS}
    kept = {f"{a} / {b}": {kind: ratio(value, draws, a, b, kind) for kind in KINDS} for a, b in RATIOS}
    return {"measured": table, "paired": paired, "kept": kept}


def by_test(found: dict[tuple[str, int, str, str], float], name: str, kind: str) -> dict[str, float]:
    """Mean over seeds of one cell of the table, by test set."""
    values: dict[str, list[float]] = {}
    for (row, _, of, tested), value in found.items():
        if (row, of) == (name, kind):
            values.setdefault(tested, []).append(value)
    return {tested: float(np.mean(each)) for tested, each in sorted(values.items())}


def difference(
    value: dict[tuple[str, str], float], draws: dict[tuple[str, str], list[float]], a: str, b: str, kind: str
) -> dict[str, float]:
    """Row a minus row b with its interval and a two-sided p from the same resamples."""
    gaps = np.array(draws[a, kind]) - np.array(draws[b, kind])
    # one is added to both counts: a p of 0 would claim more than the resamples can show
    tail = min(int((gaps <= 0).sum()), int((gaps >= 0).sum())) + 1
    return {
        "srcc_difference": value[a, kind] - value[b, kind],
        "low": float(np.quantile(gaps, 0.025)),
        "high": float(np.quantile(gaps, 0.975)),
        "p": min(1.0, 2 * tail / (len(gaps) + 1)),
    }


def ratio(
    value: dict[tuple[str, str], float], draws: dict[tuple[str, str], list[float]], a: str, b: str, kind: str
) -> dict[str, float]:
    """SRCC of row a in parts of row b's, with its interval from the same resamples."""
    parts = np.array(draws[a, kind]) / np.array(draws[b, kind])
    low, high = np.quantile(parts, [0.025, 0.975])
    return {"ratio": value[a, kind] / value[b, kind], "low": float(low), "high": float(high)}


def _mean(values: list[float | None]) -> float:
    """Mean of the values that are defined; NaN without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def gaps(folder: Path, seeds: list[int]) -> dict[str, Any]:
    """The gap between the domains before and after: means over folds and pairs, and by seed; pooled SRCC."""
    rows, pooled = [], []
    for seed, part, domain in itertools.product(seeds, ("gap", "gap_text"), DOMAINS):
        content = json.loads((folder / str(seed) / part / f"{domain}.json").read_text())
        for space in content["spaces"]:
            means = {k: _mean([pair[k] for pair in space["pairs"]]) for k in ("cka", "mmd2", "classifier")}
            name = f"{space['space']}, {space['name']}"
            everyone = {"everyone": space["classifier"], "chance": space["chance"]}
            rows.append({"space": name, "seed": seed, **means, **everyone})
        for name, row in (content.get("scores") or {}).items():
            pooled.append({"method": name, "mean": row["mean"], "pooled": row["pooled"]})
    frame = pd.DataFrame(rows)
    spaces = frame.drop(columns="seed").groupby("space").mean().to_dict("index")
    for name, part in frame.groupby("space"):
        spaces[name]["by_seed"] = part.groupby("seed")["everyone"].mean().tolist()
    return {"spaces": spaces, "pooled_srcc": pd.DataFrame(pooled).groupby("method").mean().to_dict("index")}


def show(content: dict[str, Any]) -> None:
    """Print the table and the differences."""
    print(f"{'':24}" + "".join(f"{kind:>26}" for kind in KINDS))
    for name, row in content["measured"].items():
        cells = [f"{row[k]['srcc']:.3f} [{row[k]['low']:.3f}, {row[k]['high']:.3f}]" for k in KINDS]
        print(f"{name:24}" + "".join(f"{cell:>26}" for cell in cells))
    for name, row in content["paired"].items():
        print(
            f"{name}: "
            + "; ".join(f"{k} {row[k]['srcc_difference']:+.3f} (p {row[k]['p']:.3f})" for k in KINDS)
        )
    for row in content["claims"]:
        span = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        print(f"{row['claim']}: {row['measured']}: {span}: {row['verdict']}")


def main() -> None:
    """Gather, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/paper_in_miniature"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--root", default="../shared/data")
    parser.add_argument("--resamples", type=int, default=_RESAMPLES)
    parser.add_argument("--output", type=Path, default=TARGET)
    given = parser.parse_args()
    runs = Runs(given.folder, given.seeds, given.root)
    took = seconds(given.folder)
    content = {
        "recipe": {"file": str(RECIPE), "stages": len(read_recipe(RECIPE).stages)},
        "n": {runs.domain(ref): len(mos) for ref, mos in runs.mos.items()},
        "synthetic_labels": [runs.domain(ref) for ref in runs.mos if ref.startswith("synthetic:")],
        "seeds": given.seeds,
        "resamples": given.resamples,
        **study(runs, given.resamples),
        "unreadable_answers": {
            name: sum(n for (row, _, _), n in runs.unreadable.items() if row == name) for name in METHODS
        },
        "gaps": gaps(given.folder, given.seeds),
        "minutes": {str(s): sum(v for k, v in took.items() if f"-{s}-" in k) / 60 for s in given.seeds},
        **provenance(yaml.safe_load(RECIPE.read_text())),
    }
    content["cost"] = costs(given.folder)
    content["claims"] = claims(content, content["cost"])
    with atomic_path(given.output) as path:
        path.write_text(json.dumps(content, indent=2) + "\n")
    show(content)


if __name__ == "__main__":
    main()
