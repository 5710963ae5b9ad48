"""Ablations: every config of a folder is trained for every seed, and one table says what each part is worth.

The command makes the runs stages of a pipeline: what is done is skipped, what was killed goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from rali_zoo.analysis.common import predictions_of
from rali_zoo.analysis.intervals import Interval
from rali_zoo.errors import ConfigError, UnknownNameError
from rali_zoo.metrics import holm, plcc, srcc
from rali_zoo.metrics.bootstrap import Resamples, p_of_no_difference, percentile_interval
from rali_zoo.settings import read_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Tested:
    """Predictions of all runs on one test set.

    Attributes:
        scores: (variants, seeds, n), NaN where a run failed on an image.
        mos: (n,).
        content: n names.
        synthetic: whether the labels come from a rule.
    """

    scores: NDArray[np.float64]
    mos: NDArray[np.float64]
    content: list[str]
    synthetic: bool


class Row(TypedDict, total=False):
    """Of a variant: its SRCC, that of each seed, and its difference to the first variant."""

    srcc: Interval
    seeds: list[float]
    minus: Interval
    plcc: float
    failed: int


class TestSet(TypedDict):
    """The variants on one test set of ``n`` images."""

    synthetic: bool
    n: int
    variants: dict[str, Row]


class Ablations(TypedDict):
    """The variants on each test set, and on their mean."""

    tests: dict[str, TestSet]
    mean: dict[str, Row]


def variants(folder: Path, base: str) -> dict[str, Path]:
    """Config by name, the complete method first.

    Raises:
        ConfigError: a folder without configs.
        UnknownNameError: no config of that name.
    """
    found = {path.stem: path for path in sorted(Path(folder).glob("*.yaml"))}
    if len(found) < 2:
        raise ConfigError(f"{folder} holds {len(found)} configs (*.yaml); two or more can be compared")
    if base not in found:
        raise UnknownNameError(f"config in {folder}", base, found)
    return {base: found[base], **{name: path for name, path in found.items() if name != base}}


def read(names: Sequence[str], seeds: Sequence[int], output: Path, root: str) -> dict[str, Tested]:
    """Predictions of all runs by test set.

    Args:
        names: of the ablations.
        seeds: one run of each ablation for every one.
        output: folder with the runs.
        root: folder that holds the data sets' folders.

    Raises:
        ConfigError: runs that were tested on different data sets or images.
    """
    from rali_zoo.data.tables import load_table

    runs = {(name, seed): Path(output) / "runs" / f"{name}-{seed}" for name in names for seed in seeds}
    listed = {key: predictions_of(run / "results.json") for key, run in runs.items()}
    refs = list(next(iter(listed.values())))
    found = {}
    for ref in refs:
        table = load_table(ref, root)
        rows = table.split("test").set_index("id")
        columns = []
        for key, run in runs.items():
            if list(listed[key]) != refs:
                raise ConfigError(f"{run} was tested on {list(listed[key])}, others on {refs}")
            frame = read_frame(listed[key][ref]).set_index("id")
            if not rows.index.isin(frame.index).all():
                raise ConfigError(f"{run}: its predictions of {ref} are not of all test images")
            columns.append(frame.loc[rows.index, "score"].to_numpy(float))
        found[ref] = Tested(
            np.stack(columns).reshape(len(names), len(seeds), len(rows)),
            rows["mos"].to_numpy(float),
            rows["content"].astype(str).tolist(),
            table.card.synthetic,
        )
    return found


def table(
    names: Sequence[str], seeds: Sequence[int], tested: Mapping[str, Tested], resamples: int, seed: int
) -> Ablations:
    """SRCC of each variant, and its difference to the first one.

    Each resample draws seeds, and in each test set contents, the same for all variants, so that differences
    are paired. Where there is one seed the intervals hold for those very runs and say nothing of training
    anew; with few, the part that is due to training is itself rough.

    Args:
        names: of the variants, the complete method first.
        seeds: of the runs.
        tested: predictions by test set.
        resamples: of the bootstrap.
        seed: of the resampling.

    Returns:
        ``tests``: by test set and then variant ``srcc`` (``value, low, high``), ``plcc``, ``failed``,
        ``seeds`` (SRCC of each) and for all but the first ``minus`` (``value, low, high, p``); ``mean``: the
        same over test sets, where ``minus`` has ``p_holm`` too, corrected for the number of variants.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(seeds), size=(resamples, len(seeds)))
    tests: dict[str, TestSet] = {}
    exact, resampled = [], []
    for ref, part in tested.items():
        there = np.asarray(np.isfinite(part.scores).all(axis=(0, 1)))
        scores, mos = part.scores[:, :, there], part.mos[there]
        content = [name for name, kept in zip(part.content, there, strict=True) if kept]
        each = np.array([[srcc(x, mos) for x in row] for row in scores])
        boot = Resamples(len(mos), resamples, seed, content)
        values = boot.srcc(list(scores.reshape(-1, len(mos))), mos).reshape(*each.shape, -1)
        means = over_seeds(values, drawn)
        exact.append(each)
        resampled.append(means)
        rows = _rows(names, each, means)
        for row, own, whole in zip(rows.values(), scores, part.scores, strict=True):
            row["plcc"] = float(np.mean([plcc(x, mos) for x in own]))
            row["failed"] = int(np.isnan(whole).sum())
        tests[ref] = {"synthetic": part.synthetic, "n": int(there.sum()), "variants": rows}
    overall = _rows(names, np.mean(exact, axis=0), np.mean(resampled, axis=0))
    adjusted = holm([row["minus"]["p"] for row in list(overall.values())[1:]])
    for row, p in zip(list(overall.values())[1:], adjusted, strict=True):
        row["minus"]["p_holm"] = float(p)
    return {"tests": tests, "mean": overall}


def over_seeds(values: NDArray[np.float64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """(V, R) means over the seeds that each resample draws.

    Args:
        values: (V, S, R) of each variant and seed in each resample of images.
        drawn: (R, S) positions of seeds.
    """
    return np.stack([values[:, row, i].mean(axis=1) for i, row in enumerate(drawn)], axis=1)


def estimate(value: float, resampled: NDArray[np.float64]) -> Interval:
    """A value with its percentile interval, of (R,) values in resamples: ``value, low, high``."""
    low, high = percentile_interval(resampled)
    return {"value": float(value), "low": low, "high": high}


def _rows(names: Sequence[str], each: NDArray[np.float64], resampled: NDArray[np.float64]) -> dict[str, Row]:
    """Rows of the table from (variants, seeds) values and (variants, resamples) means over seeds."""
    rows: dict[str, Row] = {}
    for i, name in enumerate(names):
        rows[name] = {"srcc": estimate(each[i].mean(), resampled[i]), "seeds": [float(x) for x in each[i]]}
        if i:
            gap = resampled[i] - resampled[0]
            minus = estimate(each[i].mean() - each[0].mean(), gap)
            rows[name]["minus"] = minus | {"p": p_of_no_difference(gap)}
    return rows
