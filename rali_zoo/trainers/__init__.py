"""LightningModules that turn images into scores."""

from rali_zoo.trainers.base import IQAModule
from rali_zoo.trainers.ract import RACT
from rali_zoo.trainers.rali import RALI
from rali_zoo.trainers.reasoner import Reasoner
from rali_zoo.trainers.regression import Regression
from rali_zoo.trainers.uncertainty import DistributionRegression

__all__ = ["RACT", "RALI", "DistributionRegression", "IQAModule", "Reasoner", "Regression"]
