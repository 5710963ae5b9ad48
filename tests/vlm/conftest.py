"""The small data set of graded blur."""

from blurred_set import blurred, texts  # noqa: F401
