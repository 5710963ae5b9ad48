"""The paper on human scores: RACT against other ways to train, and the paper's claims, from the stages of the recipe.

    rali-zoo pipeline configs/pipelines/paper_on_photographs.yaml --vars.root=FOLDER --vars.pristine=FOLDER
    python benchmarks/studies/paper_on_photographs.py [--folder runs/paper_on_photographs] [--seeds 0 1 2]

writes ``benchmarks/results/paper_on_photographs.json`` and prints its table.
SRCC, each the mean over folds and seeds:

* ``in-domain``: a domain of the mix; the rows of one domain's reasoner are tested on the domain that they were
  trained on;
* ``left out``: the domain that the mix leaves out; the rows of one domain's reasoner on each other domain.

Intervals and p-values come from resampling seeds and, within each test set, photographs (all images made
from one go together): each resample is the same for all rows, so that differences are paired. With three
seeds the part of the interval that is due to training is itself rough.
"""

from __future__ import annotations

import argparse
import itertools
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from rali_zoo.analysis import ablations
from rali_zoo.data.tables import load_table
from rali_zoo.metrics import srcc
from rali_zoo.metrics.bootstrap import Resamples, p_of_no_difference
from rali_zoo.pipeline import seconds
from rali_zoo.recipe import read_recipe
from rali_zoo.report import provenance, write_json
from rali_zoo.trainers.reasoner import text_metrics

RECIPE = Path("configs/pipelines/paper_on_photographs.yaml")
TARGET = Path("benchmarks/results/paper_on_photographs.json")
DOMAINS = ("gallery", "faults", "web", "pcuid", "synthetic")
#: Parts of BIQ2021 by what its files are called.
SUBSETS = {"ss01": "gallery", "ss02": "faults", "ss03": "web"}
#: Row of the table to (stage, column of its predictions).
METHODS = {
    "cold start": ("cold", "score"),
    "single": ("single", "score"),
    "more captions": ("more_captions", "score"),
    "more captions with MOS": ("more_scores", "score"),
    "naive mix": ("naive", "score"),
    "ranking mix": ("ranking", "score"),
    "calibrated mix": ("calibrated", "score"),
    "RACT": ("ract", "score"),
    "RACT, text alone": ("ract", "text_score"),
    "RACT on captions that know the MOS": ("ract_labels", "score"),
    "RACT, whole model": ("ract_whole", "score"),
    "scores alone, whole model": ("scores_whole", "score"),
    "RALI from RACT": ("rali", "score"),
    "RALI from the reasoners' own texts": ("rali_own", "score"),
    "RALI from own texts, soft targets": ("rali_soft", "score"),
    "RALI on captions that know the MOS": ("rali_labels", "score"),
    "regression, naive mix": ("regression", "score"),
}
#: Stages that train on one domain.
ALONE = ("cold", "single", "more_captions", "more_scores")
KINDS = ("in-domain", "left out")
#: Which differences are tested: first minus second.
PAIRS = [
    ("single", "cold start"),
    ("single", "more captions"),
    ("single", "more captions with MOS"),
    ("RACT", "single"),
    ("RACT", "naive mix"),
    ("RACT", "ranking mix"),
    ("RACT", "calibrated mix"),
    ("naive mix", "single"),
    ("ranking mix", "naive mix"),
    ("calibrated mix", "naive mix"),
    ("RACT on captions that know the MOS", "RACT"),
    ("RACT, whole model", "RACT"),
    ("RACT, whole model", "single"),
    ("RACT, whole model", "naive mix"),
    ("RACT, whole model", "scores alone, whole model"),
    ("RALI from RACT", "RACT"),
    ("RALI from RACT", "RACT, whole model"),
    ("RALI from RACT", "regression, naive mix"),
    ("RALI from the reasoners' own texts", "RALI from RACT"),
    ("RALI from the reasoners' own texts", "regression, naive mix"),
    ("RALI from own texts, soft targets", "RALI from the reasoners' own texts"),
    ("RALI on captions that know the MOS", "RALI from RACT"),
]
#: Which row keeps how much of which: first divided by second.
RATIOS = [
    ("RALI from RACT", "RACT"),
    ("RALI from RACT", "RACT, whole model"),
    ("RALI from the reasoners' own texts", "single"),
]
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
        #: test set to its column names, (images, columns) predictions, MOS and photographs
        self.columns: dict[str, list[tuple[str, int, str]]] = {}
        self.scores: dict[str, np.ndarray] = {}
        self.mos: dict[str, np.ndarray] = {}
        self.content: dict[str, list[str]] = {}
        self.unparseable: dict[tuple[str, int, str], int] = {}
        for ref in self._refs():
            self._read(ref, root)

    def _refs(self) -> list[str]:
        first = self.folder / str(self.seeds[0]) / "naive" / DOMAINS[0] / "results.json"
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
            self.unparseable[key] = self.unparseable.get(key, 0) + int(bad.sum())
            # an unparseable answer says nothing of its image: it gets the mean of the run
            found[key] = np.where(bad, 3.0 if bad.all() else np.nanmean(values), values)
        self.columns[ref], self.scores[ref] = list(found), np.stack(list(found.values()), axis=1)
        self.mos[ref] = table["mos"].to_numpy(float)
        self.content[ref] = table["content"].astype(str).tolist()

    def frame(self, seed: int, stage: str, domain: str) -> pd.DataFrame:
        """What a run that is named after a domain wrote about that domain's test images."""
        run = self.folder / str(seed) / stage / domain
        listed = json.loads((run / "results.json").read_text())["datasets"]
        (own,) = (row["predictions"] for ref, row in listed.items() if self.domain(ref) == domain)
        return pd.read_parquet(run / own)

    def domain(self, ref: str) -> str:
        """Short name of a test set."""
        name, _, options = ref.partition("?")
        part = [word.rpartition(":")[2] for word in options.split("&") if word.startswith("where=")]
        return SUBSETS[part[0]] if part else name.partition(":")[0]

    def cell(self, key: tuple[str, int, str], ref: str) -> tuple[int, int, int]:
        """Position of a run on a test set among :data:`METHODS`, :data:`KINDS` and the seeds."""
        name, seed, domain = key
        same = self.domain(ref) == domain
        kind = "in-domain" if same == (METHODS[name][0] in ALONE) else "left out"
        return list(METHODS).index(name), KINDS.index(kind), self.seeds.index(seed)


def study(runs: Runs, resamples: int) -> dict[str, Any]:
    """The table: means, intervals, seeds apart, and paired differences.

    Each resample draws seeds, and in each test set whole photographs, the same for all rows of the table.
    """
    shape = (len(METHODS), len(KINDS), len(runs.seeds))
    exact: dict[str, np.ndarray] = {}
    drawn: list[np.ndarray] = []
    for ref, mos in runs.mos.items():
        scores = list(runs.scores[ref].T)
        each = np.array([srcc(x, mos) for x in scores])
        boot = Resamples(len(mos), resamples, 0, runs.content[ref]).srcc(scores, mos)
        # (method, kind, seed) cells are means over the folds whose run belongs there, then over test sets
        of = np.array([runs.cell(key, ref) for key in runs.columns[ref]])
        cells = np.full((*shape, resamples + 1), np.nan)
        for place in np.unique(of, axis=0):
            rows = (of == place).all(axis=1)
            cells[tuple(place)] = np.nan_to_num(np.column_stack([each[rows], boot[rows]])).mean(axis=0)
        exact[runs.domain(ref)] = cells[..., 0]
        drawn.append(cells[..., 1:])
    with warnings.catch_warnings():  # a test set has no cell of some kind
        warnings.simplefilter("ignore", RuntimeWarning)
        means = np.nanmean(np.stack(drawn), axis=0)
        value = np.nanmean(np.stack(list(exact.values())), axis=0)
    seeds = np.random.default_rng(0).integers(len(runs.seeds), size=(resamples, len(runs.seeds)))
    names, measured = list(METHODS), {name: dict[str, Any]() for name in METHODS}
    paired: dict[str, Any] = {f"{a} - {b}": {} for a, b in PAIRS}
    kept: dict[str, Any] = {f"{a} / {b}": {} for a, b in RATIOS}
    for k, kind in enumerate(KINDS):
        boot = dict(zip(names, ablations.over_seeds(means[:, k], seeds), strict=True))
        of_seed = dict(zip(names, value[:, k], strict=True))
        for i, name in enumerate(names):
            tests = {d: float(x[i, k].mean()) for d, x in sorted(exact.items()) if np.isfinite(x[i, k]).all()}
            row = ablations.estimate(of_seed[name].mean(), boot[name])
            span = {"srcc": row["value"], "low": row["low"], "high": row["high"]}
            measured[name][kind] = {**span, "seeds": of_seed[name].tolist(), "tests": tests}
        for a, b in PAIRS:
            gap = boot[a] - boot[b]
            row = ablations.estimate(of_seed[a].mean() - of_seed[b].mean(), gap)
            span = {"srcc_difference": row["value"], "low": row["low"], "high": row["high"]}
            paired[f"{a} - {b}"][kind] = {**span, "p": p_of_no_difference(gap)}
        for a, b in RATIOS:
            row = ablations.estimate(of_seed[a].mean() / of_seed[b].mean(), boot[a] / boot[b])
            kept[f"{a} / {b}"][kind] = {"ratio": row["value"], "low": row["low"], "high": row["high"]}
    return {"measured": measured, "paired": paired, "kept": kept}


def scales(runs: Runs) -> dict[str, Any]:
    """How far the domains' scales disagree: MOS in [1, 5] of the test images of each, before anything is trained."""
    spans = {runs.domain(ref): mos for ref, mos in runs.mos.items()}
    return {name: {"mean": float(mos.mean()), "std": float(mos.std())} for name, mos in spans.items()}


def _mean(values: list[float | None]) -> float:
    """Mean of the values that are defined; NaN without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def gaps(folder: Path, seeds: list[int]) -> dict[str, Any]:
    """The gap between the domains before and after: means over folds and pairs, and by seed; pooled SRCC."""
    rows, pooled = [], []
    for seed, part, domain in itertools.product(seeds, ("gap", "gap_text"), DOMAINS):
        path = folder / str(seed) / part / domain / "domains.json"
        content = json.loads(path.read_text())["results"]
        for name, space in content["spaces"].items():
            keys = ("cka", "mmd2", "classifier")
            means = {k: _mean([pair[k]["value"] for pair in space["pairs"]]) for k in keys}
            everyone = {"everyone": space["classifier"]["value"], "chance": space["classifier"]["chance"]}
            rows.append({"space": name, "seed": seed, **means, **everyone})
        for name, row in content["scores"].items():
            pooled.append({"method": name, "mean": row["mean"], "pooled": row["pooled"]})
    frame = pd.DataFrame(rows)
    spaces = frame.drop(columns="seed").groupby("space").mean().to_dict("index")
    for name, part in frame.groupby("space"):
        spaces[name]["by_seed"] = part.groupby("seed")["everyone"].mean().tolist()
    return {"spaces": spaces, "pooled_srcc": pd.DataFrame(pooled).groupby("method").mean().to_dict("index")}


def texts(runs: Runs) -> dict[str, Any]:
    """What reasoners write about the test images of one domain: that of their own, or the one that was left out.

    Means over domains and seeds of the share of distinct texts, and of the SRCC of what a ridge reads from the texts
    alone (folds over the images); each with the values of the seeds.
    """
    found: dict[str, Any] = {}
    for name in ("cold start", "single", "more captions", "more captions with MOS", "RACT"):
        stage, _ = METHODS[name]
        seeds: dict[str, list[float]] = {"distinct_texts": [], "text_only_srcc": [], "failed": []}
        for seed in runs.seeds:
            rows = [text_metrics(runs.frame(seed, stage, domain)) for domain in DOMAINS]
            for key, values in seeds.items():
                values.append(_mean([row[key] for row in rows]))
        found[name] = {key: {"value": _mean(list(v)), "seeds": v} for key, v in seeds.items()}
    return found


def attention(folder: Path, seeds: list[int]) -> dict[str, Any]:
    """Share of attention at the token of the score, in all layers: on the image, the question, the text, the answer.

    Of the reasoners of one domain on images of it; means over domains and seeds, with the values of the seeds. ``even``
    is the share that each part would have if attention were spread evenly.
    """
    found: dict[str, list[dict[str, float]]] = {"score": [], "even": []}
    for seed in seeds:
        rows = []
        for domain in DOMAINS:
            content = json.loads((folder / str(seed) / "attention" / domain / "attention.json").read_text())
            (row,) = content["results"].values()
            rows.append({"score": row["score"]["all"], "even": row["even"]})
        for kind, values in found.items():
            values.append({p: _mean([row[kind][p]["value"] for row in rows]) for p in rows[0][kind]})
    return {
        kind: {
            p: {"value": _mean([v[p] for v in values]), "seeds": [v[p] for v in values]} for p in values[0]
        }
        for kind, values in found.items()
    }


# ---- the paper's claims ----
#
# A claim *holds* where the whole 95 % interval lies on its side of the threshold, *does not hold* where the
# whole interval lies on the other side, and is *open* where the threshold is inside.

#: Names in the suite of the recipe.
TEACHER, STUDENT = "RACT", "RALI from RACT"


def outcome(low: float, high: float, threshold: float, more: bool = True) -> str:
    """What an interval says of a claim that something is above (or below) a threshold."""
    if not more:
        low, high, threshold = -high, -low, -threshold
    if low > threshold:
        return "holds"
    return "does not hold" if high <= threshold else "open"


def _t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % t interval of one value a seed; with one seed the interval is the whole line."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("-inf"), float("inf")
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def _row(
    claim: str, measured: str, value: tuple[float, float, float], threshold: float, more: bool = True
) -> dict[str, Any]:
    mean, low, high = value
    return {
        "claim": claim,
        "measured": measured,
        "value": mean,
        "low": low,
        "high": high,
        "threshold": threshold,
        "outcome": outcome(low, high, threshold, more),
    }


def _difference(content: dict[str, Any], pair: str, kind: str) -> tuple[float, float, float]:
    row = content["paired"][pair][kind]
    return row["srcc_difference"], row["low"], row["high"]


def costs(folder: Path) -> dict[str, Any]:
    """Parameters that took part, and seconds an image, of teacher and student, by the leaderboard's cells.

    Raises:
        FileNotFoundError: the recipe's last stages were not run.
    """
    found: dict[str, Any] = {}
    for path in sorted((folder / "leaderboard" / "results").rglob("*.cost.json")):
        cell = json.loads(path.with_name(path.name.removesuffix(".cost.json") + ".json").read_text())
        name = cell["model"]["name"]
        if name in (TEACHER, STUDENT) and name not in found:
            cost = json.loads(path.read_text())["cost"]
            found[name] = {k: cost[k] for k in ("parameters", "flops", "latency", "ratio", "throughput")}
    if set(found) != {TEACHER, STUDENT}:
        raise FileNotFoundError(
            f"no costs of {TEACHER} and {STUDENT} below {folder}/leaderboard/results; "
            "run the recipe's last stages"
        )
    return found


def claims(content: dict[str, Any], cost: dict[str, Any]) -> list[dict[str, Any]]:
    """Every claim with what was measured, its interval and the outcome.

    Args:
        content: of the results file, with ``paired``, ``kept`` and ``gaps``.
        cost: of :func:`costs`.
    """
    spaces = content["gaps"]["spaces"]

    def apart(first: str, second: str) -> tuple[float, float, float]:
        gaps = np.array(spaces[first]["by_seed"]) - np.array(spaces[second]["by_seed"])
        return _t_interval(list(gaps))

    rows = []
    for rival in ("cold start", "more captions", "more captions with MOS"):
        for kind, where in (("in-domain", "in-domain"), ("left out", "on other domains")):
            text = f"SRCC after GRPO minus {rival}, {where}"
            rows.append(_row("RL improves", text, _difference(content, f"single - {rival}", kind), 0))
    claim = "text aligns domains"
    accuracy = "accuracy of a domain classifier, {}"
    text = accuracy.format("texts minus images' features, reasoners of their own")
    rows.append(_row(claim, text, apart("text, before", "vision, before"), 0, more=False))
    text = accuracy.format("texts of one RACT model minus images' features")
    rows.append(_row(claim, text, apart("text, after", "vision, before"), 0, more=False))
    text = accuracy.format("images' features after RACT minus before")
    rows.append(_row(claim, text, apart("vision, after", "vision, before"), 0, more=False))
    pairs = [("RACT", rival) for rival in ("single", "naive mix", "ranking mix", "calibrated mix")]
    strong = "RACT, whole model"
    pairs += [(strong, rival) for rival in ("single", "naive mix", "scores alone, whole model")]
    for first, second in pairs:
        text = f"SRCC of {first} minus {second}, domain left out"
        value = _difference(content, f"{first} - {second}", "left out")
        rows.append(_row("RACT gains out of domain", text, value, 0))
    for student, teacher in RATIOS:
        for kind in KINDS:
            row = content["kept"][f"{student} / {teacher}"][kind]
            text = f"SRCC of {student} in parts of that of {teacher}, {kind}"
            value = (row["ratio"], row["low"], row["high"])
            rows.append(_row("RALI keeps at least 95 % of SRCC", text, value, 0.95))
    for student in ("RALI from RACT", "RALI from the reasoners' own texts"):
        text = f"SRCC of {student} minus regression, domain left out"
        value = _difference(content, f"{student} - regression, naive mix", "left out")
        rows.append(_row("RALI beats regression out of domain", text, value, 0))
    used = [cost[name]["parameters"]["used"] for name in (STUDENT, TEACHER)]
    share = used[0] / used[1]
    text = f"parameters that take part, {used[0]:,} of {used[1]:,} (exact)"
    rows.append(_row("RALI needs under 5 %", text, (share, share, share), 0.05, more=False))
    ratio = cost[STUDENT]["ratio"]
    text = "seconds an image in parts of the teacher's (median and quartiles of pairs)"
    value = (ratio["median"], ratio["low"], ratio["high"])
    rows.append(_row("RALI needs under 5 %", text, value, 0.05, more=False))
    return rows


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
        print(f"{row['claim']}: {row['measured']}: {span}: {row['outcome']}")


def main() -> None:
    """Gather, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/paper_on_photographs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--root", default="../shared/data")
    parser.add_argument("--resamples", type=int, default=_RESAMPLES)
    parser.add_argument("--output", type=Path, default=TARGET)
    given = parser.parse_args()
    runs = Runs(given.folder, given.seeds, given.root)
    stages = {stage.name for stage in read_recipe(RECIPE).stages}
    took = {name: value for name, value in seconds(given.folder).items() if name in stages}
    content = {
        "recipe": {"file": str(RECIPE), "stages": len(stages)},
        "scales": scales(runs),
        "n": {runs.domain(ref): len(mos) for ref, mos in runs.mos.items()},
        "synthetic_labels": [runs.domain(ref) for ref in runs.mos if ref.startswith("synthetic:")],
        "seeds": given.seeds,
        "resamples": given.resamples,
        **study(runs, given.resamples),
        "unparseable_answers": {
            name: sum(n for (row, _, _), n in runs.unparseable.items() if row == name) for name in METHODS
        },
        "texts": texts(runs),
        "attention": attention(given.folder, given.seeds),
        "gaps": gaps(given.folder, given.seeds),
        "minutes": {
            str(s): sum(v for k, v in took.items() if str(s) in k.split("-")) / 60 for s in given.seeds
        },
        **provenance(yaml.safe_load(RECIPE.read_text())),
    }
    content["cost"] = costs(given.folder)
    content["claims"] = claims(content, content["cost"])
    write_json(given.output, content)
    show(content)


if __name__ == "__main__":
    main()
