"""TID2013: 25 references x 24 distortions x 5 levels, MOS from 0 to 9 (the highest one given is 7.21).

Files as distributed: ``mos_with_names.txt`` (``5.51429 I01_01_1.bmp``) and ``mos_std.txt``, one deviation
of the MOS a line in the same order. The names on disk differ from the list in case (``i25_01_1.bmp``,
``I01.BMP``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import existing, finish, need, numbers, read_csv, real_names, some
from rali_zoo.errors import ScoreTableError

if TYPE_CHECKING:
    import pandas as pd

#: In the order of the two digits in a file's name (paper, table 1).
DISTORTIONS = (
    "additive_gaussian_noise", "color_component_noise", "spatially_correlated_noise", "masked_noise",
    "high_frequency_noise", "impulse_noise", "quantization_noise", "gaussian_blur", "denoise", "jpeg", "jpeg2000",
    "jpeg_transmission_errors", "jpeg2000_transmission_errors", "non_eccentricity_pattern_noise",
    "local_blockwise_distortions", "mean_shift", "contrast_change", "color_saturation_change",
    "multiplicative_noise", "comfort_noise", "lossy_compression_of_noisy_images",
    "color_quantization_with_dither", "chromatic_aberrations", "sparse_sampling_and_reconstruction",
)  # fmt: skip

_NAME = re.compile(r"^(I\d\d)_(\d\d)_(\d)\.bmp$", re.IGNORECASE)

CARD = DatasetCard(
    name="tid2013",
    title="TID2013",
    task="FR",
    domain="distorted",
    n_images=3000,
    mos_range=(0.0, 9.0),
    higher_is_better=True,
    protocols=("whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=True,
    licence="free for scientific use; see the authors' page",
    citation="Ponomarenko et al. Image database TID2013: Peculiarities, results and perspectives. "
    "Signal Processing: Image Communication 30, 2015",
    url="https://www.ponomarenko.info/tid2013.htm",
    layout="""\
tid2013/
  mos_with_names.txt
  mos_std.txt                        (optional)
  distorted_images/I01_01_1.bmp …
  reference_images/I01.BMP …""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; ``reference`` is the path of the reference image,
    ``""`` where it is not on disk.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    return read_as(CARD, root, DISTORTIONS)


def read_as(card: DatasetCard, root: Path, distortions: Sequence[str]) -> pd.DataFrame:
    """Read a set in this format; raises as :func:`read`.

    Args:
        card: of the set.
        root: where it is.
        distortions: the kinds, in the order of their numbers.
    """
    import pandas as pd

    source, folder = need(card, root, "mos_with_names.txt"), need(card, root, "distorted_images")
    table = read_csv(source, separator="", header=False)
    if table.shape[1] != 2:
        raise ScoreTableError(f"{source}: expected lines such as '5.51429 I01_01_1.bmp'")
    parts = [_NAME.match(n) for n in table[1]]
    odd = [
        n for n, p in zip(table[1], parts, strict=True) if p is None or not 1 <= int(p[2]) <= len(distortions)
    ]
    if odd:
        raise ScoreTableError(f"{source}: names that are not like I01_01_1.bmp: {some(odd)}")
    on_disk, references = real_names(folder), real_names(root / "reference_images")
    contents = [p[1].upper() for p in parts if p]
    frame = pd.DataFrame(
        {
            "id": table[1],
            "path": [str(folder / on_disk.get(n.lower(), n)) for n in table[1]],
            "mos": numbers(table, 0, source),
            "content": contents,
            "distortion": [distortions[int(p[2]) - 1] for p in parts if p],
            "level": [int(p[3]) for p in parts if p],
            "reference": existing(
                [
                    str(root / "reference_images" / references.get(f"{c.lower()}.bmp", f"{c}.BMP"))
                    for c in contents
                ]
            ),
        }
    )
    if (root / "mos_std.txt").exists():
        deviations = read_csv(root / "mos_std.txt", header=False)
        if len(deviations) != len(frame):
            raise ScoreTableError(
                f"{root / 'mos_std.txt'} has {len(deviations)} lines for {len(frame)} scores"
            )
        frame["std"] = numbers(deviations, 0, root / "mos_std.txt")
    return finish(card, frame, source)
