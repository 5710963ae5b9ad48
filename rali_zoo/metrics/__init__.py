"""How well predictions agree with human scores; NumPy and SciPy only, no torch.

The torchmetrics classes of the same names are in :mod:`rali_zoo.metrics.lightning`.
"""

from rali_zoo.metrics.bootstrap import BootstrapResult, PairedResult, bootstrap_ci, paired_bootstrap
from rali_zoo.metrics.correlation import explain_undefined, krcc, mae, plcc, rmse, srcc
from rali_zoo.metrics.logistic import LogisticFit, fit_logistic, plcc_mapped, rmse_mapped

__all__ = [
    "BootstrapResult",
    "LogisticFit",
    "PairedResult",
    "bootstrap_ci",
    "explain_undefined",
    "fit_logistic",
    "krcc",
    "mae",
    "paired_bootstrap",
    "plcc",
    "plcc_mapped",
    "rmse",
    "rmse_mapped",
    "srcc",
]
