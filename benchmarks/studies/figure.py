"""Draw docs/img/output.png: photographs under rising degradations, and what scorers say of them.

    python benchmarks/studies/figure.py

The photographs are scikit-image's (coffee: Rachel Michetti, CC0; chelsea, the cat: Stefan van der Walt, CC0) and
scikit-learn's (china: danielbuechele, CC BY 2.0). No model was trained on them. Nothing is corrected by hand: scores
are those of ``load_model(...)``; those of metrics with a scale of their own are drawn on that scale, upside down where
lower is better. Needs ``pip install 'rali-zoo[classic]'``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

import rali_zoo
from rali_zoo.data.synthetic import sources
from rali_zoo.data.synthetic.degraded import degrade
from rali_zoo.paths import atomic_path

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "img" / "output.png"
LEVELS = (0, 1, 3, 5)
#: photograph, distortion, and the corner (left, top) and side of the square that is shown
ROWS = (
    ("coffee", "lens_blur", (150, 0, 400)),
    ("chelsea", "jpeg", (75, 0, 300)),
    ("china", "white_noise", (100, 0, 427)),
)
MODELS = {
    "photo": "photo",
    "BRISQUE": "classic:brisque",
    "NIQE": "classic:niqe",
}
COLOURS = {"photo": "#c8102e", "BRISQUE": "#30638e", "NIQE": "#3d8b5f"}


def images(folder: Path) -> pd.DataFrame:
    """Write every version of every photograph; one row each."""
    rows = []
    for name, kind, (left, top, side) in ROWS:
        whole = sources.canvas(name).crop((left, top, left + side, top + side))
        pixels = np.asarray(whole, np.float32) / 255
        for level in LEVELS:
            path = folder / f"{name}-{level}.png"
            Image.fromarray(np.round(degrade(pixels, kind, level, 0) * 255).astype(np.uint8)).save(path)
            rows.append({"content": name, "distortion": kind, "level": level, "path": str(path)})
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, target: Path) -> None:
    """A row a photograph: its versions with the score of ``photo``, then every scorer over the level."""
    plt.rcParams.update({"font.size": 8, "font.family": "DejaVu Sans"})
    figure = plt.figure(figsize=(11.0, 6.6), dpi=110)
    grid = figure.add_gridspec(3, 5, width_ratios=(1, 1, 1, 1, 1.35), hspace=0.28, wspace=0.07)
    for line, (name, kind, _) in enumerate(ROWS):
        rows = table[table["content"] == name]
        for column, row in enumerate(rows.itertuples()):
            axis = figure.add_subplot(grid[line, column])
            axis.imshow(Image.open(row.path))
            what = "as it is" if row.level == 0 else f"{kind.replace('_', ' ')}, level {row.level}"
            axis.set_title(f"{what}: {row.photo:.2f}", fontsize=8.5)
            axis.axis("off")
        plot = figure.add_subplot(grid[line, 4])
        for model in MODELS:
            # each on the range that it has over all twelve images: what counts is the order
            scale = (rows[model] - table[model].min()) / (table[model].max() - table[model].min())
            plot.plot(range(len(rows)), scale, color=COLOURS[model], marker="o", ms=4, label=model)
        plot.set_xticks(range(len(rows)), [str(level) for level in LEVELS])
        plot.set(yticks=(0, 1), ylim=(-0.06, 1.06), xlabel="level" if line == 2 else "")
        plot.set_yticklabels(["worst", "best"])
        plot.yaxis.tick_right()
        plot.grid(axis="y", color="#dddddd", lw=0.6)
        plot.spines[["top", "left"]].set_visible(False)
        if line == 0:
            plot.legend(loc="lower left", frameon=False, fontsize=7)
    with atomic_path(target) as path:
        figure.savefig(path, format="png", bbox_inches="tight")
    plt.close(figure)
    with Image.open(target) as image:  # a palette quarters the size
        small = image.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
    with atomic_path(target) as path:
        small.save(path, format="png", optimize=True)


def main() -> None:
    """Make the figure and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        table = images(Path(name))
        for label, ref in MODELS.items():
            table[label] = [s.score for s in rali_zoo.load_model(ref).score(list(table["path"]))]
        draw(table, args.output)
    print(table.drop(columns="path").round(2).to_string(index=False))
    print(f"{args.output}: {args.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
