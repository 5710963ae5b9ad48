"""LightningModules: what trains a network, and evaluates it while it trains.

A row of :data:`TRAINERS` is a class derived from :class:`~rali_zoo.trainers.base.IQAModule`; configs name it by its
row (``class_path: RALI``). Packages add rows with the entry-point group ``rali_zoo.trainers``, or with
``TRAINERS.register``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rali_zoo.registry import Table

if TYPE_CHECKING:
    from rali_zoo.trainers.base import BackboneModule, IQAModule
    from rali_zoo.trainers.ract import RACT
    from rali_zoo.trainers.rali import RALI
    from rali_zoo.trainers.reasoner import Reasoner
    from rali_zoo.trainers.regression import DistributionRegression, Regression

TRAINERS = Table(
    "trainer",
    "rali_zoo.trainers",
    {
        "DistributionRegression": "rali_zoo.trainers.regression:DistributionRegression",
        "RACT": "rali_zoo.trainers.ract:RACT",
        "RALI": "rali_zoo.trainers.rali:RALI",
        "Reasoner": "rali_zoo.trainers.reasoner:Reasoner",
        "Regression": "rali_zoo.trainers.regression:Regression",
    },
)

__all__ = [
    "RACT",
    "RALI",
    "TRAINERS",
    "BackboneModule",
    "DistributionRegression",
    "IQAModule",
    "Reasoner",
    "Regression",
]


def __getattr__(name: str) -> Any:
    if name in ("BackboneModule", "IQAModule"):
        from rali_zoo.trainers import base

        return getattr(base, name)
    if name in __all__:
        return TRAINERS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
