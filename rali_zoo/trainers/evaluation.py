"""Scores collected over an evaluation loop, and the numbers made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed

from rali_zoo.metrics.correlation import plcc, srcc
from rali_zoo.report import STATISTICS
from rali_zoo.types import Batch

if TYPE_CHECKING:
    import pandas as pd

    from rali_zoo.trainers.base import IQAModule, Prediction


def evaluate(frame: pd.DataFrame) -> dict[str, float]:
    """The numbers of one data set.

    Args:
        frame: columns mos and score on [1, 5], and error; rows with an error have no score.

    Returns:
        ``n`` images scored, ``failed`` images without a score, then every statistic of
        :data:`rali_zoo.report.STATISTICS` over the scored ones; NaN where a statistic is undefined.
    """
    scored = frame[frame["error"] == ""]
    known = scored[scored["mos"].notna() & scored["score"].notna()]
    pred, mos = known["score"].to_numpy(float), known["mos"].to_numpy(float)
    return {
        "n": float(len(known)),
        "failed": float(len(frame) - len(scored)),
        **{name: statistic(pred, mos) for name, statistic in STATISTICS.items()},
    }


class Evaluation:
    """Rows collected by data loader; under several processes they are gathered, and each counted once.

    Args:
        module: the module whose trainer and logger are used.
    """

    def __init__(self, module: IQAModule) -> None:
        self._module = (module,)  # a tuple, so that the module is not registered inside itself
        self.rows: dict[int, list[tuple[str, float, float, float]]] = {}
        self.tables: dict[str, pd.DataFrame] = {}

    def clear(self) -> None:
        """Forget the rows."""
        self.rows = {}

    def add(self, loader: int, batch: Batch, out: Prediction) -> None:
        """Keep a batch's scores."""
        std = out.std if out.std is not None else torch.full_like(out.score, float("nan"))
        values = zip(batch["id"], batch["mos"].tolist(), out.score.tolist(), std.tolist(), strict=True)
        self.rows.setdefault(loader, []).extend(values)

    def _frame(self, loader: int) -> pd.DataFrame:
        import pandas as pd

        rows = self.rows.get(loader, [])
        if distributed.is_available() and distributed.is_initialized():
            everyone: list[Any] = [None] * distributed.get_world_size()
            distributed.all_gather_object(everyone, rows)
            rows = [row for part in everyone for row in part]
        frame = pd.DataFrame(rows, columns=["id", "mos", "score", "std"])
        # A distributed sampler pads the last round with repeated images.
        return frame.drop_duplicates("id", ignore_index=True).assign(error="")

    def _log(self, name: str, value: float) -> None:
        self._module[0].log(name, float(value), add_dataloader_idx=False, sync_dist=True)

    def log_validation(self, refs: list[str]) -> None:
        """Log SRCC and PLCC of each reference, and their means as ``val/srcc`` and ``val/plcc``."""
        numbers = []
        for loader, ref in enumerate(refs):
            frame = self._frame(loader)
            pred, mos = frame["score"].to_numpy(float), frame["mos"].to_numpy(float)
            finite = np.isfinite(pred).all() and len(frame) > 1
            pair = (srcc(pred, mos), plcc(pred, mos)) if finite else (float("nan"), float("nan"))
            numbers.append(pair)
            self._log(f"val/{ref}/srcc", pair[0])
        means = np.mean(numbers, axis=0)
        module = self._module[0]
        for name, value in zip(("val/srcc", "val/plcc"), means, strict=True):
            module.log(name, float(value), prog_bar=True, sync_dist=True)

    def log_test(self, refs: list[str]) -> None:
        """Log ``test/<reference>/<metric>`` and keep every image's row, errors included."""
        import pandas as pd

        for loader, ref in enumerate(refs):
            frame = self._frame(loader)
            bad = self._module[0].datamodule.left_out.get(("test", ref))
            if bad is not None and len(bad):
                errors = pd.DataFrame({"id": bad["id"], "mos": bad["mos"], "error": bad["reason"]})
                frame = pd.concat([frame, errors], ignore_index=True)
            self.tables[ref] = frame
            for metric, value in evaluate(frame).items():
                self._log(f"test/{ref}/{metric}", value)
