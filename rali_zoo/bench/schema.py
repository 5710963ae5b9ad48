"""What files of other people may hold: strict pydantic models, read with every fault named."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rali_zoo.errors import RaliZooError, ScoreTableError, near_miss
from rali_zoo.settings import LARGEST_FILE

_SHOWN = 20

Correlation = Annotated[float, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """A part of a file: no unknown keys, no value of another type, no NaN; not to be changed once read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    def same(self, other: Part | None) -> bool:
        """Whether a file would hold the same; where it stands does not count."""
        return other is not None and self.model_dump() == other.model_dump()


Model = TypeVar("Model", bound=Part)


def checked(kind: type[Model], content: object, where: str, error: type[RaliZooError]) -> Model:
    """Content as an instance of a model.

    Args:
        kind: the model.
        content: what a file holds.
        where: the file, for the message.
        error: what to raise.

    Raises:
        error: it does not fit; the message names the file, every place and what is wrong there.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as found:
        lines = _faults(kind, found)
        raise error(f"{where}:\n  " + "\n  ".join(lines[:_SHOWN])) from None


def _faults(kind: type[Part], error: ValidationError) -> list[str]:
    lines = []
    for one in error.errors(include_url=False):
        place = ".".join(str(part) for part in one["loc"])
        if one["type"] == "extra_forbidden":
            known = _keys(kind, one["loc"][:-1])
            lines.append(f"{place} is no key here. {near_miss(str(one['loc'][-1]), known)}")
        elif one["type"] == "missing":
            lines.append(f"{place} is missing")
        elif one["type"] == "literal_error":
            choices = re.findall("'([^']*)'", one["ctx"]["expected"])
            lines.append(
                f"{place}: {one['input']!r:.60} is no choice. {near_miss(str(one['input']), choices)}"
            )
        else:
            said = one["msg"].removeprefix("Value error, ").removeprefix("Input ")
            given = "" if one["type"] == "value_error" else f", not {one['input']!r:.60}"
            lines.append(f"{place}: {said}{given}" if place else said)
    return lines


def _keys(kind: type[Part], way: Sequence[str | int]) -> list[str]:
    """Names of the keys at a place; empty where the way leads through more than models."""
    here: type[BaseModel] | None = kind
    for part in way:
        if isinstance(part, str) and here is not None:
            field = here.model_fields.get(part)
            here = None if field is None else _model_in(field.annotation)
    return [] if here is None else [field.alias or name for name, field in here.model_fields.items()]


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model in ``list[Model]``, ``Model | None``, ``Annotated[Model, …]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)


def read_json(path: Path) -> object:
    """What a JSON file holds.

    Raises:
        ScoreTableError: it is missing, no JSON as results files have it (NaN is none), or names a key twice.
    """

    def refuse(word: str) -> float:
        raise ValueError(f"{word} is no number in JSON; write null")

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = sorted({key for key in keys if keys.count(key) > 1})
            raise ValueError(f"the key {twice[0]!r} stands there twice")
        return found

    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE:,} bytes")
        return json.loads(path.read_text("utf-8"), parse_constant=refuse, object_pairs_hook=once)
    except OSError as error:
        raise ScoreTableError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ScoreTableError(f"{path} is no results file: {error}") from None
