"""The one registry idea: a table from a name to ``"module:attribute"``, imported on use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from rali_zoo.errors import UnknownNameError


class Table(Mapping[str, Any]):
    """Names to things that are imported when they are asked for.

    Third parties add rows with :meth:`register` or with the entry-point group ``group``
    (``[project.entry-points."rali_zoo.datasets"]``); a clash with an existing row is refused.

    Args:
        kind: what a row is, in the singular; used in error messages.
        group: entry-point group that plug-ins use.
        rows: name to ``"package.module:attribute"``.
    """

    def __init__(self, kind: str, group: str, rows: dict[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._rows = dict(rows)
        self._plugins_read = False

    def _all(self) -> dict[str, str]:
        if not self._plugins_read:
            self._plugins_read = True
            for point in entry_points(group=self.group):
                self.register(point.name, point.value)
        return self._rows

    def register(self, name: str, target: str) -> None:
        """Add a row; raises ``ValueError`` if the name is taken by another target."""
        if self._rows.get(name, target) != target:
            raise ValueError(f"{self.kind} {name!r} is already {self._rows[name]!r}; choose another name")
        self._rows[name] = target

    def target(self, name: str) -> str:
        """``"module:attribute"`` of a row, without importing it; raises :class:`UnknownNameError`."""
        rows = self._all()
        if name not in rows:
            raise UnknownNameError(self.kind, name, rows)
        return rows[name]

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = self.target(name).partition(":")
        loaded = import_module(module)
        return getattr(loaded, attribute) if attribute else loaded

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._all()))

    def __len__(self) -> int:
        return len(self._all())
