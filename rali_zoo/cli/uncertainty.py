"""``rali-zoo uncertainty``: whether the std that a scorer gives is honest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.errors import ConfigError
from rali_zoo.report import provenance, write_json

if TYPE_CHECKING:
    from rali_zoo.analysis.uncertainty import CoverageReport


def command(
    model: str,
    data: str,
    output: Path | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    root: str = "data",
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Check a scorer's uncertainty: coverage and width of intervals at 50, 80 and 95 %.

    Args:
        model: reference of a scorer that gives a std: a DistributionRegression, a RALI, a reasoner.
        data: reference of a data set; intervals are calibrated on its validation rows and checked on its test
            rows.
        output: json file for the numbers.
        limit: images of each split, drawn with the seed; all by default.
        batch_size: images a forward pass.
        root: folder that holds the data sets' folders.
        device: where to compute, e.g. cuda; the CPU by default.
        seed: of the choice of images.
    """
    import numpy as np

    from rali_zoo.analysis.uncertainty import coverage_report
    from rali_zoo.data.tables import load_table
    from rali_zoo.zoo import load_model

    table = load_table(data, root)
    scorer = load_model(model, device)
    parts = []
    for role in ("val", "test"):
        rows = table.sample(role, limit, seed, rated=True)
        scores = scorer.score(rows["path"].tolist(), batch_size=batch_size)
        known = [s.score is not None and s.std is not None and s.std > 0 for s in scores]
        if not any(known):
            raise ConfigError(
                f"{model} gives no std of the {role} images of {data}; train a DistributionRegression, "
                "or take a RALI"
            )
        good = [s for s, ok in zip(scores, known, strict=True) if ok]
        kept = rows[np.array(known)]
        parts.append((kept, np.array([s.score for s in good]), np.array([s.std for s in good]), len(rows)))
    (val, score_val, std_val, _), (test, score, std, all_test) = parts
    report = coverage_report(
        val["mos"], score_val, std_val, test["mos"], score, std, content=test["content"].astype(str).tolist()
    )
    given = {"model": model, "data": data, "limit": limit}
    content = given | {"synthetic": table.card.synthetic, "left_out": all_test - len(test), **report}
    _show(report, f"{data}{' (synthetic labels)' if table.card.synthetic else ''}")
    if output is not None:
        write_json(output, content | provenance(given, seed))
        print(f"written: {output}")


def _show(found: CoverageReport, data: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{escape(data)}, {found['n']} images, {found['n_val']} to calibrate")
    for heading in ("level", "intervals", "coverage", "95 %", "mean width"):
        table.add_column(heading, justify="right")
    for level, kinds in found["levels"].items():
        for kind, row in kinds.items():
            bounds = f"{row.low:.3f} to {row.high:.3f}"
            table.add_row(level, kind.replace("_", " "), f"{row.coverage:.3f}", bounds, f"{row.width:.2f}")
    Console().print(table)
    if math.isfinite(found["error_srcc"]):
        print(
            f"SRCC of std and error: {found['error_srcc']:.3f} "
            f"({found['error_srcc_low']:.3f} to {found['error_srcc_high']:.3f})"
        )
