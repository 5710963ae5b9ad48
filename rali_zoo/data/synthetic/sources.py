"""Pristine sources: photographs that scikit-image and scikit-learn carry in their wheels, and textures.

Every source is one *content* and belongs to one split for ever, in all domains and for all seeds, so that
no test image shares a photograph or a texture with a training image, in-domain or across domains.
The photographs are read from the installed libraries; none is redistributed with this package.
More contents can be asked for, photographs of one's own folder and more textures. They belong to the
training part, so that the test images stay those of everybody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rali_zoo.errors import ConfigError

Image3 = NDArray[np.floating]  #: (H, W, 3) in [0, 1], RGB, float32
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Photograph:
    """A photograph in an installed library.

    Attributes:
        name: content id.
        package: library whose wheel holds the file.
        file: path inside that library.
        split: the split it belongs to.
        licence: as stated by the library that distributes it.
        origin: who made it.
    """

    name: str
    package: str
    file: str
    split: Split
    licence: str
    origin: str


_CC0 = "CC0"
_FREE = "no known copyright restrictions"
#: Only images whose licence the library states (so not its moon, page and motorcycle images), that are
#: photographs, and that are pristine and well exposed (so not its motion-blurred clock and its black sky).
PHOTOGRAPHS = (
    Photograph("astronaut", "skimage", "data/astronaut.png", "train", "public domain", "NASA"),
    Photograph("coffee", "skimage", "data/coffee.png", "train", _CC0, "Rachel Michetti"),
    Photograph("flower", "sklearn", "datasets/images/flower.jpg", "train", "CC BY 2.0", "vultilion (Flickr)"),
    Photograph("camera", "skimage", "data/camera.png", "train", _CC0, "Lav Varshney"),
    Photograph("brick", "skimage", "data/brick.png", "train", _CC0, "CC0Textures"),
    Photograph("grass", "skimage", "data/grass.png", "train", _CC0, "linolafett (DeviantArt)"),
    Photograph(
        "ihc", "skimage", "data/ihc.png", "train", _FREE, "Center for Microscopy and Molecular Imaging"
    ),
    Photograph("retina", "skimage", "data/retina.jpg", "train", _CC0, "Häggström (Wikimedia Commons)"),
    Photograph("rocket", "skimage", "data/rocket.jpg", "val", "public domain", "SpaceX"),
    Photograph("coins", "skimage", "data/coins.png", "val", _FREE, "Brooklyn Museum"),
    Photograph("chelsea", "skimage", "data/chelsea.png", "test", _CC0, "Stefan van der Walt"),
    Photograph(
        "china", "sklearn", "datasets/images/china.jpg", "test", "CC BY 2.0", "danielbuechele (Flickr)"
    ),
    Photograph("gravel", "skimage", "data/gravel.png", "test", _CC0, "CC0Textures"),
)
_BY_NAME = {p.name: p for p in PHOTOGRAPHS}

#: Procedural kinds and how many contents there are of each.
TEXTURES = ("leaves", "fractal", "shapes")
TEXTURES_PER_KIND = 100
_CANVAS = 320  #: side of a texture in pixels
#: Larger windows would have to be enlarged from the smallest photograph, and so would not be pristine.
MAX_SIZE = 288
_OWN = "own:"  #: what the content ids of a user's own photographs begin with
_OWN_SIDE = 700
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def split_of(content: str) -> Split:
    """The split of a content id; a constant."""
    if content in _BY_NAME:
        return _BY_NAME[content].split
    if content.startswith(_OWN):
        return "train"
    index = int(content.rsplit("-", 1)[1])
    if index >= TEXTURES_PER_KIND:
        return "train"
    return "train" if index % 10 < 7 else "val" if index % 10 == 7 else "test"


def contents(
    split: Split, textures: int = TEXTURES_PER_KIND, photos: str = ""
) -> tuple[list[str], list[str]]:
    """The (photographs, textures) of a split, by content id.

    Args:
        split: which.
        textures: of each kind; those beyond the default are training contents.
        photos: a folder whose images are training contents too; "" for none.
    """
    ids = [f"{kind}-{i:02d}" for kind in TEXTURES for i in range(textures)]
    photographs = [p.name for p in PHOTOGRAPHS if p.split == split]
    if split == "train":
        photographs += [f"{_OWN}{file.name}" for file in own_photographs(photos)]
    return photographs, [t for t in ids if split_of(t) == split]


def own_photographs(folder: str) -> list[Path]:
    """The image files of a folder by name, those of its subfolders not included; none for ""."""
    if not folder:
        return []
    return sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())


@lru_cache(maxsize=512)
def canvas(content: str, photos: str = "") -> Image.Image:
    """The whole image behind a content id, RGB, 8 bit; the same whatever the seed of the data set."""
    if content in _BY_NAME:
        return _photograph(_BY_NAME[content])
    if content.startswith(_OWN):
        return _own(Path(photos) / content.removeprefix(_OWN))
    kind, index = content.rsplit("-", 1)
    rng = np.random.default_rng([TEXTURES.index(kind), int(index)])
    return {"leaves": _leaves, "fractal": _fractal, "shapes": _shapes}[kind](rng)


def _own(file: Path) -> Image.Image:
    """A photograph of a user's folder, at most ``_OWN_SIDE`` pixels high or wide, whichever is less."""
    with Image.open(file) as image:
        whole = image.convert("RGB")
    if min(whole.size) < 2 * MAX_SIZE:
        if file.suffix.lower() == ".png" and min(whole.size) >= MAX_SIZE:
            return whole  # not compressed by this format: there are no blocks to shrink away
        raise ConfigError(
            f"{file} has {whole.width} x {whole.height} pixels; a pristine source needs {2 * MAX_SIZE} "
            f"each way, or as .png {MAX_SIZE}"
        )
    # so that the blocks and the noise of the source are gone, and that a window shows more than a detail
    return whole.reduce(max(2, round(min(whole.size) / _OWN_SIDE)))


def window(content: str, size: int, rng: np.random.Generator, photos: str = "") -> Image3:
    """A pristine image: a square of a content, shrunk or cut 1:1 to ``size`` pixels, perhaps mirrored.

    Grey photographs are toned, so that a distortion of colour always finds some.

    Args:
        content: id of the content.
        size: height and width in pixels.
        rng: of place, scale and mirroring.
        photos: the user's folder that ids beginning with ``own:`` are looked for in.

    Returns:
        (size, size, 3) in [0, 1].
    """
    whole = canvas(content, photos if content.startswith(_OWN) else "")
    side = int(round(rng.uniform(size, min(max(size, 3 * size), *whole.size))))
    left, top = (int(rng.integers(0, extent - side + 1)) for extent in whole.size)
    cut = whole.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    if rng.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels: Image3 = np.asarray(cut, np.float32) / 255
    if content in _BY_NAME and np.ptp(pixels, axis=2).max() == 0:
        pixels = _tone(pixels[..., 0], rng)
    return pixels


def _photograph(photograph: Photograph) -> Image.Image:
    spec = find_spec(photograph.package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{photograph.package!r} carries {photograph.file} and is not installed")
    with Image.open(Path(spec.origin).parent / photograph.file) as image:
        whole = image.convert("RGB")
    if photograph.name == "retina":  # a disc on black: keep the square inside the disc
        whole = whole.crop((230, 230, 1180, 1180))
    if photograph.file.endswith(".jpg") and min(whole.size) >= 2 * MAX_SIZE:
        whole = whole.reduce(2)  # so that the blocks of the source's own compression are gone
    return whole


def _tone(gray: NDArray[np.floating], rng: np.random.Generator) -> Image3:
    """Give a grey image colours: shadows, middle and highlights each get a hue, luminance stays."""
    from skimage.color import hsv2rgb

    stops = np.array([0.0, 0.5, 1.0])
    hues = rng.uniform(0, 0.65) + rng.normal(0, 0.08, 3)  # no purple: few photographs are
    palette = hsv2rgb(np.stack([hues % 1, rng.uniform(0.2, 0.5, 3), np.ones(3)], axis=-1)[None])[0]
    palette /= palette @ np.array([[0.299], [0.587], [0.114]])
    tint = np.stack([np.interp(gray, stops, palette[:, c]) for c in range(3)], axis=-1)
    return np.clip(gray[..., None] * tint, 0, 1).astype(np.float32)


def _spectrum_noise(side: int, exponent: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(side, side) noise of unit variance whose amplitude falls with frequency to ``-exponent``."""
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1
    phase = rng.uniform(0, 2 * np.pi, radius.shape)
    field = np.fft.irfft2(np.exp(1j * phase) / radius**exponent, s=(side, side))
    return (field - field.mean()) / field.std()


def _palette(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(count, 3) RGB colours around a common hue with the spread of luminance of a natural scene."""
    from skimage.color import hsv2rgb

    hue = (rng.uniform() + rng.normal(0, 0.15, count)) % 1
    saturation, value = rng.uniform(0.2, 0.6, count), rng.beta(1.6, 1.4, count)
    return hsv2rgb(np.stack([hue, saturation, 0.08 + 0.87 * value], axis=-1)[None])[0]


def _as_image(pixels: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def _fractal(rng: np.random.Generator) -> Image.Image:
    """1/f noise, its colours correlated as those of photographs are (mostly luminance)."""
    luminance = _spectrum_noise(_CANVAS, rng.uniform(1.0, 1.2), rng)
    first, second = (_spectrum_noise(_CANVAS, 1.4, rng) for _ in range(2))
    base, spread = rng.uniform(0.4, 0.6, 3), rng.uniform(0.14, 0.2)
    colour = np.stack([first, -0.4 * first - 0.4 * second, second], axis=-1) * rng.uniform(0.03, 0.06)
    return _as_image(base + spread * luminance[..., None] + colour)


def _leaves(rng: np.random.Generator) -> Image.Image:
    """Dead leaves: occluding ellipses with a power law of sizes, each with a fine grain of its own."""
    scale = 2 * _CANVAS
    count = 2500
    # density r^-3 between the limits, by inversion: the size law under which zooming changes nothing
    lower, upper = 8.0, 0.45 * scale
    radii = (lower**-2 - rng.uniform(size=count) * (lower**-2 - upper**-2)) ** -0.5
    centres = rng.uniform(-0.1 * scale, 1.1 * scale, (count, 2))
    colours = np.round(_palette(count, rng) * 255).astype(int)
    image = Image.new("RGB", (scale, scale), tuple(colours[0].tolist()))
    draw = ImageDraw.Draw(image)
    for radius, (x, y), colour, squash in zip(
        radii, centres, colours, rng.uniform(0.5, 1, count), strict=True
    ):
        draw.ellipse(
            (x - radius, y - radius * squash, x + radius, y + radius * squash), fill=tuple(colour.tolist())
        )
    pixels = np.asarray(image.reduce(2), np.float64) / 255
    grain = _spectrum_noise(_CANVAS, 0.8, rng)[..., None]
    return _as_image(pixels * (1 + rng.uniform(0.05, 0.16) * grain))


def _shapes(rng: np.random.Generator) -> Image.Image:
    """Smooth gradients with sharp-edged rectangles, discs and rows of strokes that resemble writing."""
    scale = 2 * _CANVAS
    corners = np.round(_palette(4, rng) * 255).astype(np.uint8).reshape(2, 2, 3)
    image = Image.fromarray(corners).resize((scale, scale), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for colour in np.round(_palette(40, rng) * 255).astype(int).tolist():
        x, y = rng.uniform(0, scale, 2)
        width, height = rng.uniform(0.03 * scale, 0.3 * scale, 2)
        box, fill = (x, y, x + width, y + height), tuple(colour)
        shape = rng.integers(4)
        if shape == 0:
            draw.rectangle(box, fill=fill)
        elif shape == 1:
            draw.ellipse(box, fill=fill)
        elif shape == 2:
            draw.line((x, y, *rng.uniform(0, scale, 2)), fill=fill, width=int(rng.integers(3, 14)))
        else:
            _writing(draw, box, fill, rng)
    grain = _spectrum_noise(_CANVAS, 0.8, rng)[..., None]
    return _as_image(np.asarray(image.reduce(2), np.float64) / 255 * (1 + 0.03 * grain))


def _writing(
    draw: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    fill: tuple[int, ...],
    rng: np.random.Generator,
) -> None:
    """Rows of short strokes inside ``box``: no font is needed, so the pixels hang on no font library."""
    left, top, right, bottom = box
    height = float(rng.uniform(14, 30))
    for y in np.arange(top, bottom, 1.6 * height):
        for x in np.arange(left, right, 0.8 * height):
            if rng.random() < 0.15:
                continue  # a gap between words
            points = rng.uniform(0, 1, (4, 2)) * (0.6 * height, height) + (x, y)
            draw.line([tuple(p) for p in points.tolist()], fill=fill, width=max(3, int(height / 7)))
