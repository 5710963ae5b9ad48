"""CSIQ: 30 references, six distortions at four or five levels, DMOS from 0 to 1.

File as distributed: ``csiq.DMOS.xlsx``, sheet ``all_by_image`` (image, dst_idx, dst_type, dst_lev,
dmos_std, dmos; the header stands in the fourth row, in the fourth column), or that sheet saved as
``csiq.DMOS.csv``. Folders and file names write the distortions differently, and copies of the set differ in
case.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import (
    existing,
    finish,
    need,
    need_columns,
    numbers,
    read_csv,
    read_workbook,
    real_names,
    some,
)
from rali_zoo.errors import ScoreTableError

if TYPE_CHECKING:
    import pandas as pd

#: ``dst_type`` -> (folder and part of the file's name, name of the distortion).
TYPES = {
    "noise": ("AWGN", "white_noise"),
    "blur": ("BLUR", "gaussian_blur"),
    "contrast": ("contrast", "contrast_decrement"),
    "fnoise": ("fnoise", "pink_noise"),
    "jpeg": ("JPEG", "jpeg"),
    "jpeg 2000": ("jpeg2000", "jpeg2000"),
}

COLUMNS = ("image", "dst_type", "dst_lev", "dmos_std", "dmos")

CARD = DatasetCard(
    name="csiq",
    title="CSIQ",
    task="FR",
    domain="distorted",
    n_images=866,
    mos_range=(0.0, 1.0),
    higher_is_better=False,
    protocols=("whole", "kfold", "random"),
    default_protocol="whole",
    content_disjoint=True,
    raters=5.8,  # 5,000 ratings (the authors' page) of 866 images
    licence="none stated; for research, with citation",
    citation="Larson, Chandler. Most apparent distortion: full-reference image quality assessment "
    "and the role of strategy. Journal of Electronic Imaging 19(1), 2010",
    url="https://s2.smu.edu/~eclarson/csiq.html",
    layout="""\
csiq/
  csiq.DMOS.xlsx   (or its sheet all_by_image as csiq.DMOS.csv)
  dst_imgs/{AWGN,BLUR,contrast,fnoise,JPEG,jpeg2000}/1600.AWGN.1.png …
  src_imgs/1600.png …""",
)


def read(root: Path) -> pd.DataFrame:
    """Read the set below ``root``; ``reference`` is the path of the reference image,
    ``""`` where it is not on disk.

    Raises:
        DatasetNotFoundError: a file or folder is missing.
        ScoreTableError: rows that cannot be trusted.
    """
    import pandas as pd

    source, folder = need(CARD, root, "csiq.DMOS.xlsx", "csiq.DMOS.csv"), need(CARD, root, "dst_imgs")
    table = _sheet(source) if source.suffix == ".xlsx" else read_csv(source)
    need_columns(table, COLUMNS, source)
    types = [str(t).strip().lower() for t in table["dst_type"]]
    unknown = sorted({t for t in types if t not in TYPES})
    if unknown:
        raise ScoreTableError(f"{source}: unknown dst_type {some(unknown)}; known: {', '.join(TYPES)}")
    contents = [str(i).strip().lower() for i in table["image"]]
    levels = numbers(table, "dst_lev", source).astype(int).tolist()
    folders = real_names(folder)
    inside = {t: folder / folders.get(TYPES[t][0].lower(), TYPES[t][0]) for t in sorted(set(types))}
    files = {t: real_names(path) for t, path in inside.items()}
    originals = real_names(root / "src_imgs")
    names = [f"{c}.{TYPES[t][0]}.{v}.png" for c, t, v in zip(contents, types, levels, strict=True)]
    frame = pd.DataFrame(
        {
            "id": names,
            "path": [str(inside[t] / files[t].get(n.lower(), n)) for n, t in zip(names, types, strict=True)],
            "mos": numbers(table, "dmos", source),
            "std": numbers(table, "dmos_std", source),
            "content": contents,
            "distortion": [TYPES[t][1] for t in types],
            "level": levels,
            "reference": existing(
                [str(root / "src_imgs" / originals.get(f"{c}.png", f"{c}.png")) for c in contents]
            ),
        }
    )
    return finish(CARD, frame, source)


def _sheet(path: Path) -> pd.DataFrame:
    """The sheet ``all_by_image``, wherever on it the header stands; rows without an image are padding."""
    cells = read_workbook(path, "all_by_image", header=None)
    heads = cells.index[[set(COLUMNS) <= set(row) for row in cells.itertuples(index=False)]]
    if not len(heads):
        raise ScoreTableError(f"{path}: no row of 'all_by_image' holds the names {', '.join(COLUMNS)}")
    table = cells.loc[heads[0] + 1 :].set_axis(cells.loc[heads[0]].tolist(), axis=1)[list(COLUMNS)]
    return table[table["image"].notna()].reset_index(drop=True)
