"""Other people's metrics as scorers: ``pyiqa:NAME``, ``piq:NAME``, ``torchmetrics:NAME``, ``classic:NAME``,
``csv:PATH``.

:func:`rali_zoo.load_model` loads them. Their scores are always higher = better: the sign of a metric for
which lower is better is turned. They stay in the metric's own units (``native_scale``).
"""

from __future__ import annotations

from rali_zoo.registry import Table

#: scheme to the module whose ``load(uri, device)`` returns a scorer
BASELINES = Table(
    "source of metrics",
    "rali_zoo.baselines",
    {
        "pyiqa": "rali_zoo.baselines.pyiqa",
        "piq": "rali_zoo.baselines.piq",
        "torchmetrics": "rali_zoo.baselines.torchmetrics",
        "classic": "rali_zoo.baselines.classic",
        "csv": "rali_zoo.baselines.csv",
    },
)


def list_metrics(scheme: str, offline: bool = False) -> list[str]:
    """Names of a library's metrics; none for ``csv``, whose names are paths.

    Args:
        scheme: ``pyiqa``, ``piq``, ``torchmetrics`` or ``classic``.
        offline: only those that need no weights, and so can always be loaded. This list is the same whether
            the library is installed or not.

    Raises:
        UnknownNameError: no such scheme.
        MissingExtraError: all of pyiqa's are asked for, and it is not installed.
    """
    return BASELINES[scheme].list_metrics(offline)
