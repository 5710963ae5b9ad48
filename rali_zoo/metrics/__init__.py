"""How well predictions agree with human scores; NumPy and SciPy only, no torch.

For batches and processes there is :class:`rali_zoo.metrics.lightning.Agreement`.
"""

from rali_zoo.metrics.bootstrap import (
    BootstrapResult,
    PairedResult,
    Resamples,
    bootstrap_ci,
    paired_bootstrap,
)
from rali_zoo.metrics.correlation import explain_undefined, krcc, mae, plcc, rmse, srcc
from rali_zoo.metrics.failures import fill_worst, srcc_failures_worst
from rali_zoo.metrics.gmad import GmadPair, gmad_pairs
from rali_zoo.metrics.logistic import LogisticFit, fit_logistic, plcc_mapped, rmse_mapped
from rali_zoo.metrics.pairs import Krasula, discriminable_pairs, krasula, p_test
from rali_zoo.metrics.protocols import (
    Average,
    GroupResult,
    KSplit,
    Pooled,
    average,
    breakdown,
    ksplit,
    pooled_srcc,
)
from rali_zoo.metrics.response import DegradationResponse, Share, degradation_response
from rali_zoo.metrics.significance import DependentTest, Groups, groups, holm, meng_rosenthal_rubin
from rali_zoo.metrics.waterloo import LTest, d_test, l_test

__all__ = [
    "Average",
    "BootstrapResult",
    "DegradationResponse",
    "DependentTest",
    "GmadPair",
    "GroupResult",
    "Groups",
    "KSplit",
    "Krasula",
    "LTest",
    "LogisticFit",
    "PairedResult",
    "Pooled",
    "Resamples",
    "Share",
    "average",
    "bootstrap_ci",
    "breakdown",
    "d_test",
    "degradation_response",
    "discriminable_pairs",
    "explain_undefined",
    "fill_worst",
    "fit_logistic",
    "gmad_pairs",
    "groups",
    "holm",
    "krasula",
    "krcc",
    "ksplit",
    "l_test",
    "mae",
    "meng_rosenthal_rubin",
    "p_test",
    "paired_bootstrap",
    "plcc",
    "plcc_mapped",
    "pooled_srcc",
    "rmse",
    "rmse_mapped",
    "srcc",
    "srcc_failures_worst",
]
