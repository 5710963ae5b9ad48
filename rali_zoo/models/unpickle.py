"""Reading the fitted IncrementalPCA out of a joblib file without running anything that is in it.

A pickle is a program that may call whatever it names. Here its opcodes are walked as data: nothing is ever
imported or called, names outside a short list are refused as soon as they appear, and what the allowed ones
stand for (arrays, their types, the PCA's attributes) is put together by this file.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rali_zoo.errors import CheckpointError

_PCA = (
    "sklearn.decomposition._incremental_pca.IncrementalPCA",
    "sklearn.decomposition.incremental_pca.IncrementalPCA",  # before scikit-learn 0.22
)
_JOBLIB_ARRAY = "joblib.numpy_pickle.NumpyArrayWrapper"
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_ALLOWED = frozenset([*_PCA, _JOBLIB_ARRAY, *_RECONSTRUCT, *_SCALAR, "numpy.ndarray", "numpy.dtype"])
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    ["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"]
    + ["UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"]
)
_MAX_BYTES = 1 << 30  # a PCA of 4096 inputs and outputs in float64 takes an eighth of it


class _Global:
    """A name that the pickle refers to; it is never looked up."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Record:
    """An object as the pickle describes it: what would make it, from what, and its state."""

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name, self.args = name, args
        self.state: Any = None


class _Refused(Exception):
    """Why a pickle is not read."""


def read_pca(path: Path) -> dict[str, object]:
    """Attributes of the IncrementalPCA in a file of ``joblib.dump`` (plain, or compressed by zlib or gzip).

    Args:
        path: the file.

    Returns:
        Attribute names to numbers, strings and numeric arrays.

    Raises:
        CheckpointError: missing, damaged, something else than one IncrementalPCA, or a pickle that refers to
            anything that such a file has no use for.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no {path}")
    if path.stat().st_size > _MAX_BYTES:
        raise CheckpointError(f"{path} has more than {_MAX_BYTES} bytes, which no PCA needs")
    try:
        found = _Reader(_decompressed(path.read_bytes())).read()
        if not isinstance(found, _Record) or found.name not in _PCA or not isinstance(found.state, dict):
            raise _Refused("it holds no fitted IncrementalPCA")
        return {str(name): _plain(value) for name, value in found.state.items()}
    except _Refused as error:
        raise CheckpointError(f"{path} is not read: {error}") from None
    # What a garbled file makes of the stack, the types and the shapes.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, zlib.error) as error:
        raise CheckpointError(f"{path} is damaged or no file of joblib.dump ({error})") from error


def _decompressed(data: bytes) -> bytes:
    if data[:1] != b"\x78" and data[:2] != b"\x1f\x8b":
        return data
    stream = zlib.decompressobj(wbits=47)  # zlib or gzip, by the header
    whole = stream.decompress(data, _MAX_BYTES)
    if not stream.eof:
        raise _Refused("its compressed content is cut off or unreasonably large")
    return whole


def _plain(value: Any) -> Any:
    if isinstance(value, _Global | _Record):
        raise _Refused(f"an attribute is a {value.name}")
    return value


class _Reader:
    """One walk over the opcodes of a pickle.

    Args:
        data: the pickle, with joblib's raw arrays between its opcodes.
    """

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._actions: dict[str, Callable[[Any], None]] = {
            "MARK": lambda _: self._marks.append(len(self._stack)),
            "MEMOIZE": lambda _: self._memo.__setitem__(len(self._memo), self._stack[-1]),
            "GLOBAL": lambda arg: self._push_global(*arg.split(" ", 1)),
            "STACK_GLOBAL": lambda _: self._push_global(*self._pop(2)),
            "EMPTY_TUPLE": lambda _: self._stack.append(()),
            "TUPLE1": lambda _: self._stack.append(tuple(self._pop(1))),
            "TUPLE2": lambda _: self._stack.append(tuple(self._pop(2))),
            "TUPLE3": lambda _: self._stack.append(tuple(self._pop(3))),
            "TUPLE": lambda _: self._stack.append(tuple(self._pop_mark())),
            "EMPTY_DICT": lambda _: self._stack.append({}),
            "SETITEM": lambda _: self._set_items(self._pop(2)),
            "SETITEMS": lambda _: self._set_items(self._pop_mark()),
            "NEWOBJ": lambda _: self._make(*self._pop(2)),
            "REDUCE": lambda _: self._make(*self._pop(2)),
            "BUILD": lambda _: self._build(*self._pop(2)),
        }
        self._actions |= dict.fromkeys(("PROTO", "FRAME"), lambda _: None)
        self._actions |= dict.fromkeys(
            ("GET", "BINGET", "LONG_BINGET"), lambda arg: self._stack.append(self._memo[arg])
        )
        self._actions |= dict.fromkeys(
            ("PUT", "BINPUT", "LONG_BINPUT"), lambda arg: self._memo.__setitem__(arg, self._stack[-1])
        )

    def read(self) -> Any:
        """The object that the pickle describes."""
        # genops takes no more from the file than each opcode's own bytes, so that arrays can be read between.
        for opcode, arg, _ in pickletools.genops(self._file):
            if opcode.name == "STOP":
                return self._stack.pop()
            if opcode.name in _LITERALS:
                self._stack.append(arg)
            elif opcode.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[opcode.name])
            elif opcode.name in self._actions:
                self._actions[opcode.name](arg)
            else:
                raise _Refused(f"a file of joblib.dump with an IncrementalPCA has no opcode {opcode.name}")
        raise _Refused("it ends too early")

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise _Refused("its stack runs empty")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _pop_mark(self) -> list[Any]:
        start = self._marks.pop()
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _push_global(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in _ALLOWED:
            raise _Refused(
                f"it refers to {full!r}, which a fitted IncrementalPCA does not need; "
                "such a file could run code of whoever wrote it"
            )
        self._stack.append(_Global(full))

    def _set_items(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise _Refused("it sets items of something that is no dictionary")
        target.update(zip(pairs[::2], pairs[1::2], strict=True))

    def _make(self, maker: Any, args: Any) -> None:
        if not isinstance(maker, _Global) or not isinstance(args, tuple):
            raise _Refused("it makes an object out of something that is no class")
        if maker.name in _SCALAR:
            kind, raw = args
            self._stack.append(np.frombuffer(raw, _dtype(kind), count=1)[0].item())
        else:
            self._stack.append(_Record(maker.name, args))

    def _build(self, target: Any, state: Any) -> None:
        if not isinstance(target, _Record):
            raise _Refused("it sets the state of something that has none")
        if target.name == _JOBLIB_ARRAY:
            self._stack.append(self._joblib_array(state))
            return
        if target.name in _RECONSTRUCT:
            _, shape, kind, fortran, raw = state
            array = _array(raw, _dtype(kind), shape, "F" if fortran else "C")
            for number, remembered in self._memo.items():
                if remembered is target:
                    self._memo[number] = array
            self._stack.append(array)
            return
        target.state = state
        self._stack.append(target)

    def _joblib_array(self, state: dict[str, Any]) -> NDArray[Any]:
        """The array whose bytes stand in the file right behind its description."""
        subclass, kind, shape = state["subclass"], _dtype(state["dtype"]), state["shape"]
        if not isinstance(subclass, _Global) or subclass.name != "numpy.ndarray":
            raise _Refused("an array of a special class")
        if state.get("numpy_array_alignment_bytes") is not None:
            self._file.read(self._file.read(1)[0])
        return _array(self._file.read(_size(shape) * kind.itemsize), kind, shape, state["order"])


def _size(shape: Any) -> int:
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise _Refused(f"an array of shape {shape!r}")
    return math.prod(shape)


def _dtype(record: Any) -> np.dtype[Any]:
    """The type that a record of ``numpy.dtype`` describes: plain numbers only, never objects."""
    if not isinstance(record, _Record) or record.name != "numpy.dtype":
        raise _Refused("an array without a type")
    code = record.args[0]
    if not isinstance(code, str) or not re.fullmatch(r"[fiu][1248]|b1", code):
        raise _Refused(f"an array of type {code!r}; only plain numbers are read")
    order = record.state[1] if isinstance(record.state, tuple) else "="
    return np.dtype(code).newbyteorder(">" if order == ">" else "<" if order == "<" else "=")


def _array(raw: Any, kind: np.dtype[Any], shape: Any, order: str) -> NDArray[Any]:
    if not isinstance(raw, bytes) or len(raw) != _size(shape) * kind.itemsize:
        raise _Refused(f"the {kind} array of shape {shape} is cut off")
    return np.frombuffer(raw, kind).reshape(shape, order="F" if order == "F" else "C")
