"""Options that every backbone reference takes, after its ``?``. No torch here.

- ``checkpoint=FILE``: local weights (``.safetensors``, ``.pt``, ``.pth``, ``.bin``) instead of the library's.
- ``pretrained=false``: random weights.
- ``size=384``: input size in pixels, ``384`` or ``HEIGHTxWIDTH``; position embeddings are resampled.
- ``resize=squash``, ``center_crop`` or ``none``: see :class:`rali_zoo.types.Preprocess`.
- ``interpolation=bilinear`` or ``bicubic``.
- ``mean=0.5,0.5,0.5`` and ``std=…``: per channel, of pixels in [0, 1].
- ``pool=avg``: mean of the tokens over positions; ``avg_std``: their mean and standard deviation;
  ``token``: the class token. Default: what the library itself pools.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

from rali_zoo.errors import UriError, near_miss
from rali_zoo.types import Interpolation, Preprocess, Resize
from rali_zoo.uri import Uri

Pool = Literal["avg", "avg_std", "token"]
Triple = tuple[float, float, float]
_COMMON = ("checkpoint", "pretrained", "size", "resize", "interpolation", "mean", "std", "pool")
_Value = TypeVar("_Value", bound=str)


@dataclass(frozen=True)
class Options:
    """Parsed options of a backbone reference; ``None`` means: as the library says.

    Attributes:
        checkpoint: an existing file.
        size: (height, width) in pixels.
        own: options that only this adapter has, unparsed.
    """

    checkpoint: Path | None = None
    pretrained: bool = True
    size: tuple[int, int] | None = None
    resize: Resize | None = None
    interpolation: Interpolation | None = None
    mean: Triple | None = None
    std: Triple | None = None
    pool: Pool | None = None
    own: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, uri: Uri, pools: Sequence[Pool] = (), own: Iterable[str] = ()) -> Options:
        """Parse and check; raises :class:`UriError` naming the option and its valid values."""
        own = list(own)
        given = uri.take([*_COMMON, *own])
        checkpoint = given.get("checkpoint")
        file = Path(checkpoint).expanduser() if checkpoint is not None else None
        if file is not None and not file.is_file():
            raise UriError(f"'{uri}': checkpoint: there is no file {str(file)!r}")
        return cls(
            checkpoint=file,
            pretrained=flag(uri, "pretrained", given.get("pretrained", "true")),
            size=_size(uri, given["size"]) if "size" in given else None,
            resize=cast("Resize | None", choice(uri, "resize", given.get("resize"), get_args(Resize))),
            interpolation=cast(
                "Interpolation | None",
                choice(uri, "interpolation", given.get("interpolation"), get_args(Interpolation)),
            ),
            mean=_triple(uri, "mean", given["mean"]) if "mean" in given else None,
            std=_triple(uri, "std", given["std"]) if "std" in given else None,
            pool=cast("Pool | None", choice(uri, "pool", given.get("pool"), pools)),
            own={key: given[key] for key in own if key in given},
        )

    def preprocess(self, library: Preprocess) -> Preprocess:
        """The library's preprocessing with what the reference overrides."""
        given = {k: getattr(self, k) for k in ("size", "mean", "std", "resize", "interpolation")}
        return replace(library, **{k: v for k, v in given.items() if v is not None})


def choice(uri: Uri, key: str, value: str | None, valid: Sequence[str]) -> str | None:
    """``value`` if it is valid or absent; raises :class:`UriError` otherwise.

    Args:
        uri: the reference, for messages.
        key: name of the option.
        value: what was given; ``None`` = nothing.
        valid: the values that can be.
    """
    if value is None or value in valid:
        return value
    raise UriError(f"'{uri}': {key}={value!r} is not possible here. {near_miss(value, valid)}")


def flag(uri: Uri, key: str, value: str) -> bool:
    """Read ``true`` or ``false``."""
    return choice(uri, key, value.lower(), ("true", "false")) == "true"


def integer(uri: Uri, key: str, value: str, minimum: int = 0) -> int:
    """Read a whole number that is at least ``minimum``.

    Args:
        uri: the reference, for messages.
        key: name of the option.
        value: what was given.
        minimum: the least that can be.
    """
    if not value.isdecimal() or int(value) < minimum:
        raise UriError(f"'{uri}': {key}={value!r} must be a whole number, at least {minimum}")
    return int(value)


def pooled_levels(uri: Uri, options: Options, channels: Sequence[int], final: int) -> tuple[list[int], bool]:
    """Read ``levels=``: which stages are pooled, and whether the final map is.

    Args:
        uri: the reference, for messages.
        options: of the reference.
        channels: of the map at the end of each stage.
        final: channels of the final map.
    """
    text = options.own.get("levels", "last")
    if text == "last":
        return [], True
    if options.pool not in ("avg", "avg_std"):
        raise UriError(f"'{uri}': levels={text} needs pool=avg or pool=avg_std")
    count = len(channels)
    if text == "all":
        # the last stage and the final map are the same thing unless a head convolution widens it
        return list(range(count if channels[-1] != final else count - 1)), True
    parts = text.split(",")
    for part in parts:
        choice(uri, "levels", part, [*map(str, range(count)), "last"])
    return [int(p) for p in parts if p != "last"], "last" in parts


def _size(uri: Uri, text: str) -> tuple[int, int]:
    sides = [integer(uri, "size", part, 1) for part in text.lower().split("x")]
    if len(sides) > 2:
        raise UriError(f"'{uri}': size={text!r} must be PIXELS or HEIGHTxWIDTH, for example 384 or 384x512")
    return sides[0], sides[-1]


def _triple(uri: Uri, key: str, text: str) -> Triple:
    try:
        first, second, third = (float(part) for part in text.split(","))
    except ValueError:
        raise UriError(f"'{uri}': {key}={text!r} must be three numbers, for example 0.5,0.5,0.5") from None
    if key == "std" and min(first, second, third) <= 0:
        raise UriError(f"'{uri}': std={text!r} must be above 0")
    return first, second, third
