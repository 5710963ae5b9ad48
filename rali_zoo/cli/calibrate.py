"""``rali-zoo calibrate``: one scale for the scores of several data sets, for training on all of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal


def command(
    data: list[str],
    /,
    model: str,
    output: Path,
    limit: int = 1000,
    batch_size: int = 16,
    root: str = "data",
    device: str | None = None,
    seed: int = 0,
    least_plcc: float = 0.2,
    unrelated: Literal["refuse", "keep"] = "refuse",
) -> None:
    """Fit a line from the MOS of each data set to the scale of a model, for --data.calibration of fit.

    Predictions are kept in the cache that ``rali-zoo benchmark`` has.

    Args:
        data: references of the data sets that are to be trained on together.
        model: the reference model, trained on one of them, whose scale becomes that of all.
        output: json file.
        limit: training images of each data set that are looked at.
        batch_size: images a forward pass.
        root: folder that holds the data sets' folders.
        device: where to compute, e.g. cuda; the CPU by default.
        seed: of the choice of images.
        least_plcc: agreement of the model with a data set that is asked for, above 0: the less, the more what the
            model cannot see is taken for a narrow scale.
        unrelated: a data set that the model agrees less with is refused, or keeps its own scale.
    """
    from rali_zoo.bench.predict import predict
    from rali_zoo.bench.suite import source_of
    from rali_zoo.data.calibration import Scale, UnrelatedError, fit_scale, write_calibration
    from rali_zoo.data.card import one_question
    from rali_zoo.data.registry import DATASETS
    from rali_zoo.data.tables import load_table
    from rali_zoo.errors import ConfigError
    from rali_zoo.zoo import load_model

    if not 0 < least_plcc < 1:
        raise ConfigError(f"--least_plcc={least_plcc:g} is a correlation above 0 and below 1")
    reference, scales = load_model(model, device), {}
    kept: dict[str, str] = {}
    known = set(reference.training_sets or ())
    tables = {ref: load_table(ref, root) for ref in data if ref not in known}
    trained = {ref.partition("?")[0] for ref in known} & set(DATASETS)
    one_question([*(DATASETS[name].CARD for name in sorted(trained)), *(t.card for t in tables.values())])
    if reference.needs_reference:
        raise ConfigError(
            f"--model={model} compares an image with a reference image; give a no-reference model"
        )
    for ref in data:
        if ref in known:
            scales[ref] = Scale()
            continue
        rows = tables[ref].sample("train", limit, seed, rated=True)
        scores = predict(reference, rows, source_of(model), batch_size)
        scored = [s.score is not None for s in scores]
        if not all(scored):
            print(f"{ref}: {scored.count(False)} of {len(scored)} images have no score", file=sys.stderr)
        found = [s.score for s in scores if s.score is not None]
        try:
            scales[ref] = fit_scale(found, rows["mos"][scored], least_plcc)
        except UnrelatedError as error:
            if unrelated == "refuse":
                raise ConfigError(f"{ref}: {error}") from None
            scales[ref], kept[ref] = Scale(), f"it keeps its scale: PLCC below {least_plcc:g}"
    write_calibration(scales, model, output)
    for ref, scale in scales.items():
        own = kept.get(ref, "the model was trained on it")
        how = f"{scale.n} images, PLCC {scale.plcc:.3f}" if scale.n else own
        print(f"{ref}: {scale.scale:.3f} * MOS {scale.offset:+.3f} ({how})")
