"""Degradation columns: how a model's scores follow degradations whose order is certain, as cells hold it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from rali_zoo.bench.schema import Count, Part
from rali_zoo.report import to_json

if TYPE_CHECKING:
    from rali_zoo.bench.results import Provenance, Targets

#: Families of KADID-10k's distortions that everybody asks for; the others are shown one by one.
FAMILIES = {
    "blur": ("gaussian_blur", "lens_blur", "motion_blur"),
    "noise": ("white_noise", "white_noise_color", "impulse_noise", "multiplicative_noise"),
    "jpeg": ("jpeg",),
    "jpeg2000": ("jpeg2000",),
}

_Number = Annotated[float, Field(ge=0, le=1)]


class Portion(Part):
    """A share of ``n`` with its 95 % bootstrap interval over contents; ``None`` where there is none."""

    value: _Number | None
    low: _Number | None
    high: _Number | None
    n: Count


class Response(Part):
    """How a scorer follows degradations; see :func:`rali_zoo.metrics.degradation_response`.

    Attributes:
        ordered: share of the pairs of neighbouring levels that it orders rightly; boards sort by it.
        pristine_first: share of the chains whose untouched image scores above all of its strong degradations.
        by_family: the first for the families of :data:`FAMILIES`.
        by_distortion: the first for each distortion.
        contents: photographs that were degraded; intervals draw from them.
    """

    ordered: Portion
    pristine_first: Portion
    by_family: dict[str, Portion]
    by_distortion: dict[str, Portion]
    contents: Count

    @model_validator(mode="after")
    def _numbers(self) -> Response:
        if self.ordered.value is None:
            raise ValueError("ordered.value is missing")
        return self


def chains(targets: Targets) -> list[list[int]]:
    """Rows of each chain of a data set's images, best first."""
    import pandas as pd

    from rali_zoo.data.samplers import chains_of

    columns = {name: getattr(targets, name) for name in ("content", "distortion", "level")}
    return chains_of(pd.DataFrame(columns))


def response(targets: Targets, scores: Sequence[float | None], origin: Provenance) -> Response:
    """A cell's response, from what its files hold and nothing else.

    Args:
        targets: the rows, of which the order is known.
        scores: one a row, higher is better; ``None`` where there is none.
        origin: seed and resamples.

    Raises:
        ValueError: rows without two neighbouring levels, or another number of scores.
    """
    from rali_zoo import metrics

    found = metrics.degradation_response(
        [math.nan if s is None else s for s in scores],
        chains(targets),
        targets.content,
        targets.distortion,
        targets.level,
        FAMILIES,
        origin.seed,
        origin.resamples,
    )
    return Response.model_validate(to_json(asdict(found), digits=6))


def numbers(found: Response | None) -> dict[str, float | None]:
    """The shares under the names of the tables, each with its interval and ``n``; ``None`` without a response.

    Args:
        found: of a cell.
    """
    parts: dict[str, Portion | None] = {
        "ordered": found.ordered if found else None,
        "pristine_first": found.pristine_first if found else None,
        **{f"ordered_{name}": found.by_family.get(name) if found else None for name in FAMILIES},
    }
    return {
        name if end == "value" else f"{name}_{end}": getattr(part, end) if part else None
        for name, part in parts.items()
        for end in ("value", "low", "high", "n")
    }
