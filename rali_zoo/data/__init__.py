"""Data sets by name: cards, readers of the authors' own files, split protocols, the DataModule."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rali_zoo.data.card import DatasetCard
    from rali_zoo.data.datamodule import IQADataModule
    from rali_zoo.data.registry import DATASETS, GENERIC, list_cards
    from rali_zoo.data.tables import DataTable, load_table

__all__ = ["DATASETS", "GENERIC", "DataTable", "DatasetCard", "IQADataModule", "list_cards", "load_table"]

_WHERE = {
    "DATASETS": "registry",
    "GENERIC": "registry",
    "DataTable": "tables",
    "DatasetCard": "card",
    "IQADataModule": "datamodule",
    "list_cards": "registry",
    "load_table": "tables",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
