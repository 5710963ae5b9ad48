"""Gather the photographs that the shipped tiny reasoner was trained with from Debian's wallpaper packages.

    python benchmarks/studies/photographs.py FOLDER_OF_DEBS photos

FOLDER_OF_DEBS holds the packages of Debian 12 below (``apt-get download NAME``), unpacked with ``dpkg -x``.
The images are free (GPL-2+, CC BY, CC BY-SA, CC0: see each package's copyright file); they are sources for
training and are not shipped with this package. Left out of the same packages: drawings, flat gradients,
images that are blurred as a whole, and other sizes of one image.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

_MATE = "usr/share/backgrounds/mate"
_PLASMA = "usr/share/wallpapers/{}/contents/images/2560x1600.jpg"
_BACKGROUNDS = "usr/share/backgrounds"

#: Debian package: (its version, files inside it).
PACKAGES: dict[str, tuple[str, list[str]]] = {
    "mate-backgrounds": (
        "1.26.0-1",
        [f"{_MATE}/abstract/Elephants.jpg"]
        + [
            f"{_MATE}/nature/{name}.jpg"
            for name in (
                "Aqua", "Blinds", "Dune", "FreshFlower", "Garden", "GreenMeadow", "LadyBird", "RainDrops",
                "TwoWings", "Wood", "YellowFlower",
            )
        ],
    ),
    "plasma-workspace-wallpapers": (
        "4:5.27.5-2",
        [
            _PLASMA.format(name)
            for name in (
                "BytheWater", "ColdRipple", "ColorfulCups", "EveningGlow", "FallenLeaf", "OneStandsOut",
                "Path",
            )
        ],
    ),
    "lomiri-wallpapers-16.04": (
        "20.04.0-2",
        [
            f"{_BACKGROUNDS}/{name}.jpg"
            for name in (
                "Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Image_0B_by_freespace",
                "Image_1A_by_freespace", "Wine_by_Jakkub_Mede", "aitzgorri_by_Aitzol_Berasategi",
                "analogpattern_by_Peter_Nerlich", "free_by_Peter_Nerlich", "friends_by_Aitzol_Berasategi",
                "greentock_by_Peter_Nerlich", "life_by_Aitzol_Berasategi",
                "picosdeeuropa_by_Aitzol_Berasategi", "seeding_by_Clements_Engelhardt",
                "sunset_by_Aitzol_Berasategi",
            )
        ],
    ),
    "lomiri-wallpapers-20.04": ("20.04.0-2", [f"{_BACKGROUNDS}/Kleiber_by_Lukas_Baubkus.jpg"]),
    "ukui-wallpapers": (
        "20.04.3-1.1",
        [f"{_BACKGROUNDS}/{name}" for name in ("calla.png", "rhythm.jpg", "string.jpg")],
    ),
}  # fmt: skip


def name_of(file: str) -> str:
    """The name an image gets: its own, or for KDE's the wallpaper's."""
    path = Path(file)
    return f"{path.parts[-4]}.jpg" if path.parts[-2] == "images" else path.name


def main(unpacked: str, folder: str) -> None:
    """Copy the images; everything that is missing is named at once."""
    files = [(package, file) for package, (_, names) in PACKAGES.items() for file in names]
    found = {file: next(iter(sorted(Path(unpacked).rglob(file))), None) for _, file in files}
    missing = [f"{package}: {file}" for package, file in files if found[file] is None]
    if missing:
        raise SystemExit("not found below " + unpacked + ":\n  " + "\n  ".join(missing))
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for file, path in found.items():
        if path is not None:
            shutil.copyfile(path, target / name_of(file))
    print(f"{len(found)} photographs in {target}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
