"""The page: the board as a folder that opens from disk, without a server and without the network.

``index.html``, ``page.css`` and the scripts are the same for every board; ``data.js`` is the board;
``pictures.js`` names the gMAD pictures that were at hand. Tabulator (MIT) makes the table, Observable Plot
and D3 (ISC) the plots; their files and licences lie in ``static/vendor`` and are copied along.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from rali_zoo.bench.leaderboard import Board
from rali_zoo.bench.page.data import page_data
from rali_zoo.bench.page.gmad import write_pictures
from rali_zoo.paths import atomic_path

STATIC = Path(__file__).parent / "static"
PICTURES = "pictures"


def page_files(board: Board) -> dict[str, bytes]:
    """Every file of the page but the pictures, by its path below the folder; the same bytes every time."""
    files = {
        path.relative_to(STATIC).as_posix(): path.read_bytes()
        for path in sorted(STATIC.rglob("*"))
        if path.is_file()
    }
    # JSON alone could not be read from disk: browsers refuse fetch() of file:// addresses.
    text = json.dumps(page_data(board), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    files["data.js"] = f"window.BOARD = {text};\n".encode("ascii")
    return files


def write_page(board: Board, folder: Path, pictures: bool = True) -> int:
    """Write the page; what an earlier one left in its ``pictures`` is taken away.

    Args:
        board: what to show.
        folder: where; made if it is not there.
        pictures: look for the pictures of gMAD pairs; synthetic data sets are made if they are not cached.

    Returns:
        How many pictures it shows.
    """
    for name, content in page_files(board).items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
    shutil.rmtree(folder / PICTURES, ignore_errors=True)
    shown = write_pictures(board, folder / PICTURES) if pictures else {}
    with atomic_path(folder / "pictures.js") as temporary:
        temporary.write_text(f"window.PICTURES = {json.dumps(shown, sort_keys=True)};\n", encoding="ascii")
    return sum(len(of_dataset) for of_dataset in shown.values())
