"""LightningModules that turn images into scores."""

from rali_zoo.models.base import IQAModule
from rali_zoo.models.ract import RACT
from rali_zoo.models.rali import RALI
from rali_zoo.models.reasoner import Reasoner
from rali_zoo.models.regression import Regression
from rali_zoo.models.uncertainty import DistributionRegression

__all__ = ["RACT", "RALI", "DistributionRegression", "IQAModule", "Reasoner", "Regression"]
