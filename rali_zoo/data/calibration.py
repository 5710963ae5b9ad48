"""One scale for data sets whose raters used theirs differently: mos' = scale * mos + offset for each set.

A model that was trained on one data set is the reference model, in the spirit of Pinson and Wolf, "An objective method
for combining multiple subjective data sets" (VCIP 2003). Its own data set defines the scale. Of another one
the MOS are regressed on its predictions, and that line is turned round: a prediction is a shrunken estimate
of the truth, so that regressing it on the MOS would make the scale too narrow. What it cannot see
stays wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rali_zoo.errors import ConfigError
from rali_zoo.report import write_json
from rali_zoo.types import MOS_RANGE

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

#: A reference model that agrees less than this with a data set (PLCC) is none for it.
LEAST_PLCC = 0.2
#: A factor or an offset from here on moves every MOS to one end of the scale, or out of float32.
_MOST = 1e6


@dataclass(frozen=True)
class Scale:
    """From a data set's MOS to the common scale, both on [1, 5].

    Attributes:
        scale: factor, above 0.
        offset: added after it.
        plcc: of the reference model's predictions and the MOS; NaN where it defines the scale.
        n: images that it was fitted on; 0 where it defines the scale.
    """

    scale: float = 1.0
    offset: float = 0.0
    plcc: float = math.nan
    n: int = 0


class UnrelatedError(ConfigError):
    """Predictions that have too little to do with the MOS to set a scale by."""


def fit_scale(pred: ArrayLike, mos: ArrayLike, least_plcc: float = LEAST_PLCC) -> Scale:
    """The scale of one data set.

    Args:
        pred: (n,) predictions of the reference model on the common scale.
        mos: (n,) MOS on [1, 5].
        least_plcc: PLCC of both that is asked for, above 0.

    Raises:
        UnrelatedError: predictions that have too little to do with the MOS.
        ValueError: rows that do not pair up.
    """
    from scipy.stats import linregress

    from rali_zoo.metrics import explain_undefined
    from rali_zoo.metrics.correlation import as_pairs

    x, y = as_pairs(pred, mos)
    why = explain_undefined(x, y, at_least=3)
    line: Any = linregress(x, y) if why is None else None
    if why is None and line.rvalue < least_plcc:
        why = f"PLCC {line.rvalue:.2f}"
    if why is not None:
        raise UnrelatedError(
            f"the model says too little of these {x.size} images to set a scale by ({why}; at least "
            f"{least_plcc:g}); give one that was trained on images more like them, or let such data sets keep their "
            "scale (--unrelated=keep)"
        )
    return Scale(1 / float(line.slope), -float(line.intercept / line.slope), float(line.rvalue), x.size)


def calibrated(frame: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """Rows with ``mos`` on the common scale, cut at its ends, and ``std`` in its units."""
    mos = (scale.scale * frame["mos"] + scale.offset).clip(*MOS_RANGE)
    return frame.assign(mos=mos, std=scale.scale * frame["std"])


def write_calibration(scales: Mapping[str, Scale], model: str, path: str | Path) -> None:
    """Write the scales of data sets, by reference, and the model that they are of, as json."""
    write_json(path, {"model": model, "datasets": scales})


def read_calibration(path: str | Path, refs: Iterable[str]) -> dict[str, Scale]:
    """Scales of data sets from a file of :func:`write_calibration`.

    Args:
        path: the file.
        refs: references that it has to know.

    Raises:
        ConfigError: no such file, another format, or a data set that it does not know.
    """
    try:
        rows = json.loads(Path(path).read_text())["datasets"]
        scales = {
            ref: Scale(float(row["scale"]), float(row["offset"]), float(row["plcc"] or "nan"), int(row["n"]))
            for ref, row in rows.items()
        }
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise ConfigError(
            f"data.calibration={path} cannot be read ({type(error).__name__}: {error}); 'rali-zoo calibrate' "
            "writes such files"
        ) from None
    lacking = [ref for ref in refs if ref not in scales]
    if lacking or not all(0 < s.scale < _MOST and abs(s.offset) < _MOST for s in scales.values()):
        raise ConfigError(
            f"data.calibration={path} is of {sorted(scales)} with factors above 0 and below {_MOST:g}, and "
            f"{lacking} are asked for; run 'rali-zoo calibrate' with the references of data.train"
        )
    return scales
