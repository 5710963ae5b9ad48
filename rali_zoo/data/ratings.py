"""A teacher that was asked several times, as a data set: the mean and the std of its scores for each image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rali_zoo.data.descriptions import read_descriptions
from rali_zoo.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from rali_zoo.data.tables import DataTable


class TeacherRatings(NamedTuple):
    """What :func:`teacher_ratings` found.

    Attributes:
        frame: columns image (absolute path), mos and std (of the samples, on [1, 5]), samples, split,
            content.
        left_out: images of the data set with too few samples that have a score.
    """

    frame: pd.DataFrame
    left_out: int


def teacher_ratings(paths: Sequence[str], table: DataTable, least: int = 2) -> TeacherRatings:
    """Mean and standard deviation of a teacher's scores.

    The deviation of few samples is noisy: 8 of them tell it within a quarter. Human scores are not used, so
    that images nobody rated can be learned from.

    Args:
        paths: description tables, of one teacher, with a row for each image and seed.
        table: the data set that was described.
        least: samples with a score that an image needs, 2 at least.

    Raises:
        ConfigError: fewer than two, several teachers, or no image with enough samples.
        ScoreTableError: a table that cannot be read.
    """
    import pandas as pd

    if least < 2:
        raise ConfigError(f"least={least}: a std takes two samples")
    rows = pd.concat([read_descriptions(path) for path in paths], ignore_index=True)
    rows = rows[(rows["dataset"] == table.ref) & rows["score"].notna()]
    teachers = rows[["teacher", "revision"]].drop_duplicates()
    if len(teachers) > 1:
        raise ConfigError(
            f"{len(teachers)} teachers or revisions ({', '.join(sorted(set(teachers['teacher'])))}): the "
            "std is that of one; give the tables of one"
        )
    score = rows.groupby("image_id")["score"].agg(mos="mean", std="std", samples="size")
    score = score[score["samples"] >= least]
    frame = table.frame.assign(id=table.frame["id"].astype(str))
    known = frame[["id", "path", "split", "content"]].merge(score, left_on="id", right_index=True)
    if known.empty:
        raise ConfigError(
            f"no image of {table.ref!r} has {least} samples with a score; 'rali-zoo describe --data "
            f"{table.ref}' with several seeds writes them"
        )
    known["image"] = [os.path.abspath(path) for path in known["path"]]
    columns = ["image", "mos", "std", "samples", "split", "content"]
    return TeacherRatings(known[columns].reset_index(drop=True), len(frame) - len(known))
