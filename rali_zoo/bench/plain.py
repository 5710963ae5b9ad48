"""Numbers as they stand in a results file: the same bytes for the same result."""

from __future__ import annotations

import math

import numpy as np

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
JsonDict = dict[str, Json]


def plain(value: object) -> Json:
    """A nested result for JSON: floats with six significant digits, NaN and infinity as ``None``.

    Raises:
        TypeError: something that JSON has no word for.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} is no value of a results file")
