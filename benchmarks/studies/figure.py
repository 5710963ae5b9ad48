"""Draw docs/img/output.png: six versions of one synthetic image, and what the shipped models say of them.

python benchmarks/studies/figure.py [--content leaves-19] [--distortion gaussian_blur] [--seed 0]

The image is a procedural texture of the test part, which no shipped model was trained on. Nothing is
corrected by hand: texts are the reasoner's greedy ones, scores those of ``load_model(...)``, the MOS is the
rule's, before the noise of its raters.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

import rali_zoo
from rali_zoo.cli.main import main as run
from rali_zoo.data.synthetic import rater, sources
from rali_zoo.data.synthetic.distortions import LEVELS, distort
from rali_zoo.paths import atomic_path

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "img" / "output.png"
SIZE = 160
MODELS = {
    "reasoner": "reasoner-tiny-synthetic",
    "RALI": "rali-tiny-synthetic",
    "regression": "regression-tiny-synthetic",
}
COLOURS = {"MOS (rule)": "#222222", "reasoner": "#d1495b", "RALI": "#30638e", "regression": "#3d8b5f"}


def images(content: str, distortion: str, seed: int, folder: Path) -> pd.DataFrame:
    """Write the pristine image and five levels of a distortion as PNG files; one row each."""
    if sources.split_of(content) != "test":
        raise SystemExit(f"{content} is no test content: its number ends in 8 or 9")
    pristine = sources.window(content, SIZE, np.random.default_rng(seed))
    rows = []
    for level in (0, *LEVELS):
        image, mos = pristine, 5.0
        if level:
            image = distort(pristine, distortion, level, np.random.default_rng(seed))
            steps = [(distortion, rater.distance(pristine, image))]
            mos = rater.score(steps[0][1], steps, rater.DOMAINS["lab"])
        path = folder / f"{level}.png"
        Image.fromarray(np.round(image * 255).astype(np.uint8)).save(path)
        rows.append({"image": path.name, "path": str(path), "level": level, "mos": mos, "split": "test"})
    return pd.DataFrame(rows)


def texts(table: pd.DataFrame, folder: Path) -> list[str]:
    """What the reasoner writes of each image, by the command that users have."""
    table[["image", "mos", "split"]].to_csv(folder / "six.csv", index=False)
    output = folder / "texts.parquet"
    words = ["describe", "--model", MODELS["reasoner"], "--data", f"csv:{folder}/six.csv?mos_range=1,5"]
    if run([*words, "--split", "all", "--temperature", "0", "--output", str(output)]) != 0:
        raise SystemExit("describe failed")
    written = pd.read_parquet(output).set_index("image_id")["text"]
    return [written.get(name, "(unparseable)") for name in table["image"]]


def draw(table: pd.DataFrame, title: str, target: Path) -> None:
    """Images above texts above a plot of the scores over the level."""
    plt.rcParams.update({"font.size": 8, "font.family": "DejaVu Sans"})
    figure = plt.figure(figsize=(11.0, 5.6), dpi=110)
    grid = figure.add_gridspec(3, len(table), height_ratios=(1.5, 1.05, 1.25), hspace=0.12, wspace=0.08)
    for column, row in enumerate(table.itertuples()):
        top = figure.add_subplot(grid[0, column])
        top.imshow(Image.open(row.path))
        top.set_title("pristine" if row.level == 0 else f"level {row.level}", fontsize=9)
        top.axis("off")
        below = figure.add_subplot(grid[1, column])
        below.axis("off")
        below.text(0, 0.98, textwrap.fill(row.text, 24), va="top", fontsize=7.2, transform=below.transAxes)
    plot = figure.add_subplot(grid[2, :])
    for name, colour in COLOURS.items():
        style = {"marker": "s", "lw": 2.2} if name == "MOS (rule)" else {"marker": "o", "lw": 1.3}
        plot.plot(range(len(table)), table[name], color=colour, label=name, ms=4, **style)
    plot.set(xlim=(-0.5, len(table) - 0.5), ylim=(1, 5.1), yticks=range(1, 6), ylabel="score, 1 to 5")
    plot.set_xticks(range(len(table)), ["pristine", *(f"level {level}" for level in LEVELS)])
    plot.grid(axis="y", color="#dddddd", lw=0.6)
    plot.spines[["top", "right"]].set_visible(False)
    plot.legend(loc="lower left", frameon=False, ncols=4)
    figure.suptitle(title, x=0.125, y=0.965, ha="left", fontsize=10)
    with atomic_path(target) as path:
        figure.savefig(path, format="png", bbox_inches="tight", pil_kwargs={"optimize": True})
    plt.close(figure)
    with Image.open(target) as image:  # a palette halves the size and shows no difference here
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    with atomic_path(target) as path:
        small.save(path, format="png", optimize=True)


def main() -> None:
    """Make the figure and print its table."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--content", default="leaves-19")
    parser.add_argument("--distortion", default="gaussian_blur")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        table = images(args.content, args.distortion, args.seed, Path(name))
        table["text"] = texts(table, Path(name))
        table["MOS (rule)"] = table["mos"]
        for label, ref in MODELS.items():
            table[label] = [s.score for s in rali_zoo.load_model(ref).score(list(table["path"]))]
        kind = args.distortion.replace("_", " ")
        draw(table, f"synthetic texture ({args.content}, held out), {kind}; synthetic labels", args.output)
    print(table[["level", "MOS (rule)", *MODELS, "text"]].round(2).to_string(index=False))
    print(f"{args.output}: {args.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
