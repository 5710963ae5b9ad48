"""Networks that score images, and their one-file format.

A row of :data:`NETWORKS` is a class derived from :class:`~rali_zoo.models.base.IQANetwork`. Files name networks by
their rows; packages add rows with the entry-point group ``rali_zoo.networks``, or with ``NETWORKS.register``.
"""

from rali_zoo.registry import Table

NETWORKS = Table(
    "network",
    "rali_zoo.networks",
    {
        "RALI": "rali_zoo.models.rali:RALINetwork",
        "Regression": "rali_zoo.models.regression:RegressionNetwork",
        "DistributionRegression": "rali_zoo.models.regression:DistributionNetwork",
        "Reasoner": "rali_zoo.models.vlm:VLMNetwork",
        "RACT": "rali_zoo.models.vlm:VLMNetwork",
    },
)
