"""The one registry idea: a table from a name to ``"module:attribute"``, imported on use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from rali_zoo.errors import PluginError, RaliZooError, UnknownNameError


class Table(Mapping[str, Any]):
    """Names to things that are imported when they are asked for.

    Third parties add rows with :meth:`register` or with the entry-point group ``group``
    (``[project.entry-points."rali_zoo.datasets"]``); a clash with an existing row is refused.

    Args:
        kind: what a row is, in the singular; used in error messages.
        group: entry-point group that plug-ins use.
        rows: name to ``"package.module:attribute"``.
        needs: attributes that every row must have.
    """

    def __init__(self, kind: str, group: str, rows: dict[str, str], needs: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.needs = needs
        self.group = group
        self._rows = dict(rows)
        self._plugins_read = False
        self._givers: dict[str, str] = {}  # rows from outside, to what error messages call their source

    def _all(self) -> dict[str, str]:
        if not self._plugins_read:
            for point in entry_points(group=self.group):
                giver = f"the package {point.dist.name!r}" if point.dist else "a package"
                try:
                    self.register(point.name, point.value)
                except ValueError as error:
                    raise PluginError(giver, str(error)) from error
                self._givers[point.name] = giver
            self._plugins_read = True
        return self._rows

    def register(self, name: str, target: str) -> None:
        """Add a row; raises ``ValueError`` if the name is taken by another target."""
        if self._rows.get(name, target) != target:
            raise ValueError(f"{self.kind} {name!r} is already {self._rows[name]!r}; choose another name")
        if name not in self._rows:
            self._givers.setdefault(name, "a call of 'register'")
        self._rows[name] = target

    def target(self, name: str) -> str:
        """``"module:attribute"`` of a row, without importing it; raises :class:`UnknownNameError`."""
        rows = self._all()
        if name not in rows:
            raise UnknownNameError(self.kind, name, rows)
        return rows[name]

    def __getitem__(self, name: str) -> Any:
        target = self.target(name)
        module, _, attribute = target.partition(":")
        try:
            loaded = import_module(module)
            row = getattr(loaded, attribute) if attribute else loaded
        except RaliZooError:
            raise
        except Exception as error:
            if name not in self._givers:
                raise
            what = f"{self.kind} {name!r} is {target!r}, which cannot be imported"
            raise PluginError(self._givers[name], f"{what} ({type(error).__name__}: {error})") from error
        lacking = [need for need in self.needs if not hasattr(row, need)]
        if lacking:
            giver = self._givers.get(name, "rali_zoo")
            raise PluginError(
                giver, f"{self.kind} {name!r} is {target!r}, which has no {' and no '.join(lacking)}"
            )
        return row

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._all()))

    def __len__(self) -> int:
        return len(self._all())
