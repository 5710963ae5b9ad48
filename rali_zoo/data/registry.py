"""The table of data sets and the table of schemes that read tables of anyone's making."""

from __future__ import annotations

from rali_zoo.data.card import DatasetCard
from rali_zoo.registry import Table

_READERS = "rali_zoo.data.readers"

#: name -> module with ``CARD: DatasetCard`` and ``read(root: Path) -> DataFrame``.
DATASETS = Table(
    "data set",
    "rali_zoo.datasets",
    {
        name: f"{_READERS}.{name}"
        for name in (
            "aadb",
            "agiqa3k",
            "aigciqa2023",
            "aigiqa20k",
            "ava",
            "bid",
            "biq2021",
            "cid2013",
            "csiq",
            "flive",
            "gfiqa20k",
            "kadid10k",
            "koniq10k",
            "konvid1k",
            "live",
            "livec",
            "livevqc",
            "lsvq",
            "pcuid",
            "pipal",
            "piq23",
            "spaq",
            "tid2008",
            "tid2013",
            "uhdiqa",
            "youtubeugc",
        )
    },
)

#: scheme -> module with ``OPTIONS: tuple[str, ...]`` and
#: ``open(path: str, options: dict[str, str]) -> tuple[DatasetCard, DataFrame]``.
GENERIC = Table(
    "data set scheme",
    "rali_zoo.dataset_schemes",
    {
        "csv": f"{_READERS}.csv_table",
        "degraded": "rali_zoo.data.synthetic.degraded",
        "deqa": f"{_READERS}.deqa",
        "pyiqa": f"{_READERS}.pyiqa",
        "synthetic": "rali_zoo.data.synthetic.reader",
    },
)


def list_cards() -> list[DatasetCard]:
    """The cards of all data sets whose facts are known without opening a file; the registry's first."""
    cards: list[DatasetCard] = [DATASETS[name].CARD for name in DATASETS]
    synthetic = GENERIC["synthetic"]
    return cards + [synthetic.card(domain) for domain in synthetic.DOMAINS]


def list_datasets() -> list[str]:
    """Names of all data sets that :func:`~rali_zoo.data.tables.load_table` knows."""
    return [card.name for card in list_cards()]
