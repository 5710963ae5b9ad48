"""LIVE Image Quality Assessment Database, release 2: 29 references, five distortions, realigned DMOS.

Files as distributed: ``dmos_realigned.mat`` (dmos_new, dmos_std, orgs) and ``refnames_all.mat``, 982
entries in the order jp2k 227, jpeg 233, wn 174, gblur 174, fastfading 174; ``orgs`` flags 203 copies of
references, which are left out. The older ``dmos.mat`` holds scores on another scale and is not read. The
realigned DMOS has no nominal scale: the range is the published extremes of the 779 scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import cell_strings, existing, finish, load_mat, need
from rali_zoo.errors import ScoreTableError

if TYPE_CHECKING:
    import pandas as pd

#: Folder, number of images, name of the distortion; in the order of the arrays.
FOLDERS = (
    ("jp2k", 227, "jpeg2000"),
    ("jpeg", 233, "jpeg"),
    ("wn", 174, "white_noise"),
    ("gblur", 174, "gaussian_blur"),
    ("fastfading", 174, "fast_fading"),
)

CARD = DatasetCard(
    name="live",
    title="LIVE Image Quality Assessment Database, release 2",
    task="FR",
    domain="distorted",
    n_images=779,
    mos_range=(-2.6401, 111.7747),
    higher_is_better=False,
    protocols=("whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=True,
    licence="copyright The University of Texas at Austin; use permitted with acknowledgement",
    citation="Sheikh, Sabir, Bovik. A Statistical Evaluation of Recent Full Reference Image "
    "Quality Assessment Algorithms. IEEE TIP 15(11), 2006",
    url="https://live.ece.utexas.edu/research/quality/subjective.htm",
    layout="""\
live/                  (or live/databaserelease2/)
  dmos_realigned.mat
  refnames_all.mat
  jp2k/ jpeg/ wn/ gblur/ fastfading/   (img1.bmp …)
  refimgs/*.bmp""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; ``reference`` is the path of the reference image,
    ``""`` where it is not on disk.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    if (root / "databaserelease2").is_dir():
        root = root / "databaserelease2"
    source = need(CARD, root, "dmos_realigned.mat")
    dmos, std, originals = load_mat(source, "dmos_new", "dmos_std", "orgs")
    (cells,) = load_mat(need(CARD, root, "refnames_all.mat"), "refnames_all")
    names = [f"{folder}/img{i + 1}.bmp" for folder, count, _ in FOLDERS for i in range(count)]
    lengths = {len(names), len(dmos), len(std), len(originals), len(cells)}
    if len(lengths) > 1:
        raise ScoreTableError(
            f"{source}: every array of release 2 has {len(names)} entries; found {sorted(lengths)}"
        )
    references = cell_strings(cells)
    frame = pd.DataFrame(
        {
            "id": names,
            "path": [str(root / n) for n in names],
            "mos": dmos,
            "std": std,
            "content": [Path(n).stem for n in references],
            "distortion": [name for _, count, name in FOLDERS for _ in range(count)],
            "reference": existing([str(root / "refimgs" / n) for n in references]),
        }
    )
    return finish(CARD, frame[originals == 0], source)
