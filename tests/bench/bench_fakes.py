"""Scorers and data for tests of the runner: small, and no library behind them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rali_zoo.bench import run
from rali_zoo.bench.suite import CostPlan, DatasetEntry, Entry, Suite
from rali_zoo.data.images import load_image
from rali_zoo.errors import ImageDecodeError
from rali_zoo.types import Score


class Sharpness:
    """Mean absolute difference of neighbours; it can be told to fail, to die, and to draw at random."""

    name, revision, preprocess_id = "fake:sharpness", "rev-1", "grey"
    training_sets: tuple[str, ...] | None = ()
    native_scale, needs_reference, score_range = True, False, None
    licence, colour = "", "stored"

    def __init__(self, nan_below: float = -1.0, dies_at: int = 0, noise: float = 0.0) -> None:
        self.nan_below, self.dies_at, self.noise = nan_below, dies_at, noise
        self.calls: list[list[str]] = []

    def modules(self) -> list[object]:
        return []

    def value(self, path: str) -> float:
        grey = np.asarray(load_image(path).convert("L"), dtype=float)
        value = float(np.abs(np.diff(grey, axis=1)).mean()) + self.noise * np.random.rand()
        return float("nan") if value < self.nan_below else value

    def score(self, images: Sequence[str], batch_size: int = 16, progress: None = None) -> list[Score]:
        self.calls.append([Path(p).name for p in images])
        if self.dies_at and len(self.calls) == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        found = []
        for path in images:
            try:
                found.append(Score(self.value(path), path=path, model=self.name))
            except ImageDecodeError as error:
                found.append(Score(None, error=str(error), path=path, model=self.name))
        return found


class Constant(Sharpness):
    """Says the same of everything."""

    name = "fake:constant"

    def value(self, path: str) -> float:
        load_image(path)
        return 3.0


class Closeness(Sharpness):
    """Full reference: minus the mean absolute difference."""

    name, needs_reference = "fake:closeness", True

    def score(self, images, batch_size=16, progress=None, references=None) -> list[Score]:
        pairs = [
            [np.asarray(load_image(p), dtype=float) for p in pair]
            for pair in zip(images, references, strict=True)
        ]
        return [Score(-float(np.abs(a - b).mean())) for a, b in pairs]


def make_data(folder: Path, paths: Sequence[Path], reference: bool = False) -> str:
    """Reference of a data set whose MOS follow the sharpness of its images, all of them test rows."""
    values = [Sharpness().value(str(p)) for p in paths]
    order = np.argsort(np.argsort(values))
    noise = np.random.default_rng(0).normal(0, 1.5, len(paths))
    table = pd.DataFrame(
        {
            "image": [p.name for p in paths],
            "mos": np.clip(np.round(1 + 4 * (order + noise) / len(paths), 3), 1, 5),
            "split": "test",
        }
    )
    if reference:
        table["reference"] = [str(paths[0]), *[str(p) for p in paths[1:-1]], ""]
    table.to_csv(folder / "scores.csv", index=False)
    return f"csv:{folder / 'scores.csv'}?mos_range=1,5"


def make_suite(data: str, *names: str, batch_size: int = 4, cost: CostPlan | None = None) -> Suite:
    """A suite of models that :func:`use` knows."""
    models = [Entry(ref=name, name=name, batch_size=batch_size) for name in names]
    return Suite(
        name="t", models=models, datasets=[DatasetEntry(ref=data, publish=True)], resamples=50, cost=cost
    )


def use(monkeypatch, models: dict[str, object]) -> None:
    """Let the runner load these instead of the zoo's; an exception is raised, a callable called."""

    def load(ref: str, device: str) -> object:
        model = models[ref]
        if isinstance(model, Exception):
            raise model
        return model() if isinstance(model, Callable) else model

    monkeypatch.setattr(run, "_load", load)
    monkeypatch.setattr(run, "_import_library", lambda source: None)  # Lightning takes ten seconds


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but those of costs."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".cost.json"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def killed_run(data: str, results: str, dies_at: int = 3) -> None:
    """What a process does that is killed at its third batch, or not at all."""
    from rali_zoo.bench import cache
    from rali_zoo.bench.engines import run_suite

    cache.SECONDS = 0.0
    run._import_library = lambda source: None
    run._load = lambda ref, device: Sharpness(dies_at=dies_at, noise=0.5)
    run_suite(make_suite(data, "fake:sharpness"), Path(results))
