"""The one reader of settings: a mapping that somebody wrote becomes a dataclass, or an error with the near miss.

Types, ranges and choices are those of the dataclass's annotations; pydantic checks them.

```python
@dataclass(frozen=True)
class Cut:
    size: Annotated[int, Ge(1)]  # of annotated_types
    resize: Literal["squash", "none"] = "none"

read_settings(Cut, {"size": 224}, "cut.yaml")                              # Cut(size=224, resize="none")
read_settings(Cut, {"size": "224"}, "'timm:resnet18?size=224'", text=True)  # the same
read_settings(Cut, {"sise": 224}, "cut.yaml")  # cut.yaml: unknown key 'sise'. Did you mean 'size'? …
```
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, TypeVar, Union, get_args, get_origin, get_type_hints

from rali_zoo.errors import ConfigError, RaliZooError, ScoreTableError, near_miss

if TYPE_CHECKING:
    import pandas as pd
    from pydantic import BaseModel, ValidationError
    from yaml import SafeLoader

Settings = TypeVar("Settings")
LARGEST_FILE = 256 * 2**20  #: bytes of a settings or results file that is read at all
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")


def read_settings(
    kind: type[Settings],
    given: object,
    where: str,
    *,
    error: Callable[[str], RaliZooError] = ConfigError,
    text: bool = False,
) -> Settings:
    """An instance of a dataclass from a mapping; dataclasses inside it likewise.

    Args:
        kind: a dataclass whose annotations can be resolved at run time. Numbers must be finite.
        given: what was written, e.g. in a yaml file. A list serves as a tuple, a word as a path, a whole number
            as a float; ``"3"`` is no number, and ``true`` is none either.
        where: a file or reference, for messages.
        error: what is raised.
        text: all values are words, as in a reference: ``"3"`` is a number, ``"true"`` is true.

    Raises:
        RaliZooError: of class ``error``, one line: an unknown, missing or wrong value, what is valid, and the
            closest valid spelling.
    """
    from pydantic import ValidationError

    if not isinstance(given, dict):
        raise error(f"{where}: expected keys and values, got {_short(given)}")
    reader = _reader(kind)  # type: ignore[arg-type]  # mypy takes the hash of an instance for that of the class
    try:
        if text:
            read = reader.model_validate_strings({"value": given})
        else:
            # json knows no tuples and no paths: the strict reading of it takes lists and words for them
            read = reader.model_validate_json(json.dumps({"value": given}, default=str), strict=True)
    except ValidationError as problem:
        raise error(f"{where}: {_explain(problem, kind)}") from None
    return read.value  # type: ignore[attr-defined, no-any-return]


def read_yaml(path: Path, error: type[RaliZooError] = ConfigError) -> dict[str, object]:
    """The mapping in a yaml file; empty for an empty file.

    Args:
        path: of the file.
        error: what is raised.

    Raises:
        RaliZooError: of class ``error``: no such file, a huge one, no yaml, no mapping, or a key given twice.
    """
    import yaml

    OnceSafeLoader = _once_loader()  # noqa: N806
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE:,} bytes")
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=OnceSafeLoader)  # noqa: S506  (a SafeLoader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise error(f"{path} cannot be read as yaml: {reason}") from None
    if not isinstance(content, dict | None):
        raise error(f"{path}: expected keys and values, got {_short(content)}")
    return {str(key): value for key, value in (content or {}).items()}


def read_frame(path: Path) -> pd.DataFrame:
    """A parquet file as a table; its pages' checksums must hold, where it was written with some.

    Raises:
        ScoreTableError: whatever a damaged file, or one of another kind, makes of its reader.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        frame = pd.read_parquet(path, page_checksum_verification=True)
        for values in (frame.index, *(column for _, column in frame.items())):
            if isinstance(values.dtype, pd.StringDtype):  # else found to be no text where it is used
                pa.array(values.array).validate(full=True)
        return frame
    except Exception as problem:  # pyarrow raises a dozen kinds, pandas a few more
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise ScoreTableError(f"{path} is no readable table: {reason}") from problem


@cache
def _once_loader() -> type[SafeLoader]:
    import yaml

    class OnceSafeLoader(yaml.SafeLoader):
        """A safe loader that refuses a key given twice, of which yaml would keep the last without a word."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
            given = [key for key, _ in node.value]  # before what is merged by << joins them
            mapping = super().construct_mapping(node, deep)
            keys = [self.construct_object(k, deep=True) for k in given if not k.tag.endswith(":merge")]
            if len(set(keys)) < len(keys):
                twice = next(key for i, key in enumerate(keys) if key in keys[:i])
                raise ValueError(f"the key {twice!r} stands there twice")
            return mapping

    return OnceSafeLoader


@cache
def _reader(kind: type) -> type[BaseModel]:
    from pydantic import ConfigDict, create_model

    # The settings of a model are those of the dataclasses in it, which stay as their modules define them.
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    return create_model("Settings", __config__=config, value=(kind, ...))


def _explain(problem: ValidationError, kind: type) -> str:
    first = problem.errors()[0]
    place, got = [part for part in first["loc"] if part != "value"], first["input"]
    key = str(place[-1]) if place else ""
    above = f"{_spelled(place[:-1])}: " if place[:-1] else ""
    if first["type"] in _UNKNOWN:
        return f"{above}unknown key {key!r}. {near_miss(key, _keys(kind, place[:-1]))}"
    if first["type"] in _MISSING:
        named = f"{_spelled(place)}" if isinstance(place[-1], int) else key
        return f"{above}{named!r} is missing"
    at = f"{_spelled(place)}: " if place else ""
    if first["type"] == "literal_error":
        choices = _choices(_inside(kind, place))
        return f"{at}{_short(got)} is not possible here. {near_miss(str(got), choices)}"
    if first["type"] == "value_error":
        return f"{at}{first['ctx']['error']}"
    message = first["msg"].replace("Input should be", "must be").replace("a valid ", "a ")
    for technical, plain in (("integer", "whole number"), ("string", "word"), ("boolean", "true or false")):
        message = message.replace(technical, plain).replace("a true or false", "true or false")
    return f"{at}{message.partition(', unable to parse')[0]}, got {_short(got)}"


def _spelled(place: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _inside(kind: object, place: Sequence[str | int]) -> object:
    """The type at a place inside a dataclass; parts that pydantic adds for the members of a union are passed over."""
    for part in place:
        for option in _options(kind):
            if dataclasses.is_dataclass(option):
                hints = get_type_hints(option, include_extras=True)
                if part in hints:
                    kind = hints[str(part)]
                    break
            elif get_origin(option) in (list, tuple, dict, Sequence):
                kind = next(a for a in reversed(get_args(option)) if a is not Ellipsis)
                break
    return kind


def _options(kind: object) -> list[object]:
    """The members of a union, without ``None``."""
    if get_origin(kind) is Annotated:
        return _options(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [o for member in get_args(kind) if member is not type(None) for o in _options(member)]
    return [kind]


def _keys(kind: object, place: Sequence[str | int]) -> list[str]:
    options = [o for o in _options(_inside(kind, place)) if dataclasses.is_dataclass(o)]
    return [field.name for option in options for field in dataclasses.fields(option)]


def _choices(kind: object) -> list[str]:
    return [str(choice) for option in _options(kind) for choice in get_args(option)]
