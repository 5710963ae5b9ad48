"""``rali-zoo teacher-scores``: a teacher that was asked several times, as a data set to learn from."""

from __future__ import annotations

from pathlib import Path


def command(
    descriptions: list[str],
    /,
    data: str,
    output: Path,
    least: int = 2,
    root: str = "data",
) -> None:
    """Make a table of a teacher's mean score and std for each image.

    A DistributionRegression learns both from 'csv:OUTPUT?mos_range=1,5' with model.target=opinions.

    Args:
        descriptions: tables that 'rali-zoo describe' wrote with several seeds.
        data: reference of the data set that was described.
        output: .csv file: image, mos, std, samples, split, content.
        least: samples with a score that an image needs; others are left out.
        root: folder that holds the data sets' folders.
    """
    from rali_zoo.data.ratings import teacher_ratings
    from rali_zoo.data.tables import load_table
    from rali_zoo.paths import atomic_path

    found = teacher_ratings(descriptions, load_table(data, root), least)
    with atomic_path(output) as path:
        found.frame.to_csv(path, index=False)
    print(f"{len(found.frame)} images ({found.left_out} left out) written to {output}")
