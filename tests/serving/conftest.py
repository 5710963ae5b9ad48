"""An engine around a toy scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from serving_toys import Brightness

if TYPE_CHECKING:
    from rali_zoo.serving.engine import Engine, Limits


@pytest.fixture
def engine() -> Iterator[Callable[..., Engine]]:
    """Maker of engines, which are closed at the end: ``engine(limits, batch_size=…)`` around a new toy."""
    from rali_zoo.serving.engine import Engine

    made: list[Engine] = []

    def make(
        limits: Limits | None = None,
        batch_size: int = 16,
        workers: int = 1,
        preview: int = 0,
        attributes: bool = False,
    ) -> Engine:
        made.append(Engine(Brightness(), limits, batch_size, workers, preview, attributes))
        return made[-1]

    yield make
    for one in made:
        one.scorer.gate.set()  # type: ignore[attr-defined]
        one.close()
