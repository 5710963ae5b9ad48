"""The page: the board as a folder that opens from disk, without a server and without the network.

``index.html``, ``page.css`` and the scripts are the same for every board; ``data.js`` is the board;
``images.js`` names the gMAD images that were at hand. Tabulator (MIT) makes the table, Observable Plot
and D3 (ISC) the plots; their files and licences lie in ``static/vendor`` and are copied along.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from rali_zoo.bench.leaderboard import Board, all_kept
from rali_zoo.bench.page.data import page_data
from rali_zoo.bench.page.gmad import write_images
from rali_zoo.paths import atomic_path

STATIC = Path(__file__).parent / "static"
IMAGES = "images"


@all_kept()
def page_files(board: Board) -> dict[str, bytes]:
    """Every file of the page but the images, by its path below the folder; the same bytes every time."""
    files = {
        path.relative_to(STATIC).as_posix(): path.read_bytes()
        for path in sorted(STATIC.rglob("*"))
        if path.is_file()
    }
    # JSON alone could not be read from disk: browsers refuse fetch() of file:// addresses.
    text = json.dumps(page_data(board), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    files["data.js"] = f"window.BOARD = {text};\n".encode("ascii")
    return files


def write_page(board: Board, folder: Path, images: bool = True) -> int:
    """Write the page; what an earlier one left in its ``images`` is taken away.

    Args:
        board: what to show.
        folder: where; made if it is not there.
        images: look for the images of gMAD pairs; synthetic data sets are made if they are not cached.

    Returns:
        How many images it shows.
    """
    for name, content in page_files(board).items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
    shutil.rmtree(folder / IMAGES, ignore_errors=True)
    shown = write_images(board, folder / IMAGES) if images else {}
    with atomic_path(folder / "images.js") as temporary:
        temporary.write_text(f"window.IMAGES = {json.dumps(shown, sort_keys=True)};\n", encoding="ascii")
    return sum(len(of_dataset) for of_dataset in shown.values())
