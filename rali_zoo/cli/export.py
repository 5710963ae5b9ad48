"""``rali-zoo export``: a trained scorer as a file of ONNX Runtime or OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rali_zoo.errors import ConfigError

if TYPE_CHECKING:
    from rali_zoo.models.scorer import NetworkScorer


def command(
    model: str,
    output: Path,
    format: Literal["onnx", "openvino"] = "onnx",
    any_size: bool = False,
    int8: bool = False,
    calibration: str | None = None,
    max_loss: float = 0.01,
    calibration_images: int = 64,
    test_images: int = 500,
    root: Path = Path("data"),
) -> None:
    """Write a scorer for another runtime, checked against torch (float32) or by its correlations (int8).

    Args:
        model: ckpt:PATH, local-dir:PATH, hf-hub:ORG/REPO[@REV], or a name of 'rali-zoo list models'.
        output: file to write, .onnx or (openvino) .xml, which gets a .bin beside it.
        format: the runtime it is for.
        any_size: leave height and width free, for networks that allow it; the number of images always is.
        int8: quantise; needs --calibration.
        calibration: labelled data set, e.g. koniq10k or csv:FILE?mos_range=0,100: ranges come from its
            training images, and SRCC and PLCC are measured on its test images.
        max_loss: largest loss of SRCC or PLCC by int8; nothing is written beyond it.
        calibration_images: how many training images the ranges come from.
        test_images: how many test images are measured on; 0 = all.
        root: folder that holds a folder of each data set's name.
    """
    if int8 != (calibration is not None):
        raise ConfigError("--int8 and --calibration=DATASET go together: the loss of int8 is measured on it")

    from rali_zoo.zoo import load_ours

    scorer = load_ours(model)
    if calibration is not None:
        from rali_zoo.data.tables import load_table
        from rali_zoo.export.int8 import export_int8

        table = load_table(calibration, root)
        change = export_int8(
            scorer, output, table, format, max_loss, calibration_images, test_images, any_size
        )
        labels = " (SYNTHETIC labels)" if table.card.synthetic else ""
        print(f"int8 on {calibration}{labels}: {change}")
    else:
        difference = _write(format, scorer, output, any_size)
        print(f"largest difference to torch's scores on made-up images: {difference:.2g}")
    files = [output] if format == "onnx" else [output, output.with_suffix(".bin")]
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{', '.join(map(str, files))}: {size:.1f} MB; use it as --model {format}:{output}")


def _write(format: str, scorer: NetworkScorer, output: Path, any_size: bool) -> float:
    from rali_zoo.export.onnx import export_onnx
    from rali_zoo.export.openvino import export_openvino

    write = export_onnx if format == "onnx" else export_openvino
    return write(scorer, output, any_size)
