"""Scores collected over an evaluation loop, and the numbers made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import distributed

from rali_zoo.metrics.correlation import plcc, srcc
from rali_zoo.models.base import Prediction
from rali_zoo.types import Batch

if TYPE_CHECKING:
    import pandas as pd

    from rali_zoo.trainers.base import IQAModule

NO_SCORE = "the model gave no finite score"
#: A correlation over the images with a score says little where many have none; with fewer than this share of
#: them it is not defined, so that no checkpoint is chosen for the images that it left out.
LEAST_SCORED = 0.9
Row = TypeVar("Row")


def gather(rows: Sequence[Row]) -> list[Row]:
    """The rows of all processes, in the order of their ranks; without several processes, the rows."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return list(rows)
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, list(rows))
    return [row for part in everyone for row in part]


def agreement(frame: pd.DataFrame) -> dict[str, float]:
    """``srcc`` and ``plcc`` of scores with MOS; NaN with fewer than :data:`LEAST_SCORED` of the scores.

    Args:
        frame: columns mos, score and error; rows with an error have no score.
    """
    scored = frame[frame["error"] == ""]
    known = scored[scored["mos"].notna()]
    if len(known) < 2 or len(scored) < LEAST_SCORED * len(frame):
        return {"srcc": float("nan"), "plcc": float("nan")}
    pred, mos = known["score"].to_numpy(float), known["mos"].to_numpy(float)
    return {"srcc": srcc(pred, mos), "plcc": plcc(pred, mos)}


class Evaluation:
    """Rows collected by data loader; under several processes they are gathered, and each counted once.

    Args:
        module: the module whose trainer and logger are used.
    """

    def __init__(self, module: IQAModule) -> None:
        self._module = (module,)  # a tuple, so that the module is not registered inside itself
        self.rows: dict[int, list[dict[str, Any]]] = {}
        self.tables: dict[str, pd.DataFrame] = {}

    def clear(self) -> None:
        """Forget the rows."""
        self.rows = {}

    def add(
        self,
        loader: int,
        batch: Batch,
        out: Prediction,
        columns: Mapping[str, Sequence[object]] | None = None,
    ) -> None:
        """Keep a batch's scores.

        Args:
            loader: number of the data loader.
            batch: B images.
            out: of the batch.
            columns: what else is known of the images, B values each.
        """
        std = out.std if out.std is not None else torch.full_like(out.score, float("nan"))
        table: dict[str, Sequence[object]] = {
            "id": batch["id"],
            "mos": batch["mos"].tolist(),
            "score": out.score.tolist(),
            "std": std.tolist(),
            **(columns or {}),
        }
        rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
        self.rows.setdefault(loader, []).extend(rows)

    def frame(self, loader: int) -> pd.DataFrame:
        """Columns id, mos, score, std, error and those added, a row for each image of a loader.

        An image without a finite score has an ``error``, and NaN as its score.
        """
        import pandas as pd

        rows = gather(self.rows.get(loader, []))
        frame = pd.DataFrame(rows, columns=None if rows else ["id", "mos", "score", "std"])
        # A distributed sampler pads the last round with repeated images.
        frame = frame.drop_duplicates("id", ignore_index=True)
        finite = np.isfinite(frame["score"].to_numpy(float))
        frame["error"] = np.where(finite, "", self._module[0].no_score)
        frame.loc[~finite, ["score", "std"]] = float("nan")
        return frame

    def _log(self, name: str, value: float, shown: bool = False) -> None:
        self._module[0].log(name, float(value), prog_bar=shown, add_dataloader_idx=False, sync_dist=True)

    def log_validation(self, refs: Sequence[str]) -> None:
        """Log ``val/<reference>/<metric>``, and as ``val/<metric>`` the mean over the sets that define it."""
        rows = [self._module[0].validation_metrics(self.frame(loader)) for loader in range(len(refs))]
        for ref, row in zip(refs, rows, strict=True):
            for name, value in row.items():
                self._log(f"val/{ref}/{name}", value)
        for name in rows[0]:
            values = np.array([row[name] for row in rows])
            mean = float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
            self._log(f"val/{name}", mean, shown=name in ("srcc", "failed"))

    def log_test(self, refs: Sequence[str]) -> None:
        """Log ``test/<reference>/<metric>`` and keep every image's row, undecodable ones included."""
        import pandas as pd

        module = self._module[0]
        for loader, ref in enumerate(refs):
            frame = self.frame(loader)
            bad = module.datamodule.left_out.get(("test", ref))
            if bad is not None and len(bad):
                errors = pd.DataFrame({"id": bad["id"], "mos": bad["mos"], "error": bad["reason"]})
                frame = pd.concat([frame, errors], ignore_index=True)
            self.tables[ref] = frame
            for metric, value in module.test_metrics(frame).items():
                self._log(f"test/{ref}/{metric}", value)
