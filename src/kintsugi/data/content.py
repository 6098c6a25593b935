"""A digest of any value that a cell or an argument can hold: by what it holds, the same in every process."""

from __future__ import annotations

import datetime
import decimal
import enum
import errno
import hashlib
import os
import stat
import struct
import sys
import time
import uuid
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from torch import Tensor, nn

from kintsugi.core.errors import DataError
from kintsugi.data.foreign_cells import plain

FRESH_SECONDS = 2.0  # a file that was written less long ago may change again without another time (FAT counts in 2 s)
MOST_FILES = 1_000_000  # digests that are remembered: about 300 bytes each
PLAIN = (bool, int, float, complex, str, bytes)

_files: dict[tuple[str, int, int, int, int, int], bytes] = {}


def content_digest(value: Any) -> bytes:
    """SHA-256 of a value, 32 bytes. Equal content of one type has one digest; each part is preceded by its type and length.

    Numbers, text, bytes, None, NaN and NA, dates, decimals, lists (tuples count as lists), mappings and sets in any order,
    arrays, tensors, pictures of Pillow, and whatever numpy takes for an array of numbers. Modules count by their state and, of
    each module inside, its name, class, ``extra_repr`` and plain attributes; attributes of other types by the type alone.

    Raises:
        DataError: a value of another type, whose content nobody knows; names the type.
    """
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.digest()


def file_digest(path: Path) -> bytes:
    """SHA-256 of the bytes of a file, 32 bytes. Within a process a file that did not change is read once.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a FIFO would be waited for without end
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    key = (str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if key in _files:
        return _files[key]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    if time.time() - max(status.st_mtime, status.st_ctime) > FRESH_SECONDS:
        if len(_files) >= MOST_FILES:
            _files.clear()
        _files[key] = digest
    return digest


def _put(digest: Any, tag: bytes, data: bytes) -> None:
    digest.update(tag + struct.pack("<Q", len(data)) + data)


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, np.generic):
        value = value.item() if type(value.item()) in PLAIN else np.asarray(value)
    match value:
        case None:
            _put(digest, b"none", b"")
        case enum.Enum():  # before the numbers and texts that some of them are
            _put(digest, b"enum", f"{type(value).__qualname__}.{value.name}".encode())
        case bool():
            _put(digest, b"bool", b"1" if value else b"0")
        case str():
            _put(digest, b"text", value.encode("utf-8", "surrogatepass"))
        case int():
            _put(digest, b"int", str(value).encode())
        case float():
            _put(digest, b"float", b"nan" if value != value else struct.pack("<d", value))
        case complex():
            _put(digest, b"complex", struct.pack("<dd", value.real, value.imag))
        case memoryview() if value.format not in ("B", "b", "c"):
            _feed_array(digest, np.asarray(value))
        case bytes() | bytearray() | memoryview():
            _put(digest, b"bytes", bytes(value))
        case decimal.Decimal() | uuid.UUID():
            _put(digest, type(value).__name__.encode(), str(value).encode())
        case datetime.timedelta():  # those of pandas count nanoseconds too
            whole = value.days * 86_400_000_000 + value.seconds * 1_000_000 + value.microseconds
            _put(digest, b"duration", f"{whole} {getattr(value, 'nanoseconds', 0)}".encode())
        case datetime.datetime() | datetime.date() | datetime.time():
            kind = b"time" if isinstance(value, datetime.datetime | datetime.time) else b"date"
            _put(digest, kind, value.isoformat().encode())
        case PurePath():
            _put(digest, b"path", value.as_posix().encode("utf-8", "surrogatepass"))
        case list() | tuple():
            _feed_list(digest, value)
        case np.ndarray():
            _feed_array(digest, value)
        case Tensor():
            _feed_tensor(digest, value)
        case Mapping():
            items = sorted(content_digest(key) + content_digest(each) for key, each in value.items())
            _put(digest, b"mapping", b"".join(items))
        case set() | frozenset():
            _put(digest, b"set", b"".join(sorted(map(content_digest, value))))
        case nn.Module():
            _feed_module(digest, value)
        case _:
            _feed_other(digest, value)


def _feed_list(digest: Any, values: Sequence[Any]) -> None:
    kinds = set(map(type, values))
    if kinds == {float}:  # much faster than one by one
        _put(digest, b"floats", array("d", values).tobytes())
        return
    digest.update(b"list" + struct.pack("<Q", len(values)))
    for value in values:
        _feed(digest, value)


def _feed_array(digest: Any, values: np.ndarray[Any, Any]) -> None:
    if values.dtype.hasobject:
        if values.dtype.kind != "O":
            raise DataError(f"an array of {values.dtype}, whose content cannot be told; give plain arrays")
        digest.update(b"objects")
        _feed(digest, values.shape)
        for value in values.ravel().tolist() if values.ndim != 1 else values:
            _feed(digest, value)
        return
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    _put(digest, b"array", f"{little.dtype.str} {little.dtype.descr} {values.shape}".encode())
    digest.update(np.ascontiguousarray(little).tobytes())


def _feed_tensor(digest: Any, values: Tensor) -> None:
    import torch

    plain = values.detach().cpu()
    plain = (plain if plain.layout == torch.strided else plain.to_dense()).resolve_conj().resolve_neg().contiguous()
    _put(digest, b"tensor", f"{plain.dtype} {tuple(plain.shape)}".encode())
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())


def _feed_seen(digest: Any, picture: Any) -> None:
    """What else decides how a picture of Pillow is seen: transparency and the way up. Where there is neither, nothing."""
    turned = picture.getexif().get(0x0112, 1)
    if turned != 1:
        _put(digest, b"turned", str(turned).encode())
    if "transparency" in picture.info:
        _put(digest, b"transparency", b"")
        _feed(digest, picture.info["transparency"])
    if picture.palette is not None and picture.palette.mode != "RGB":
        _put(digest, b"palette of mode", picture.palette.mode.encode())
        digest.update(bytes(picture.palette.palette))


def structure_digest(module: nn.Module) -> bytes:
    """SHA-256 of what a module is, without its weights: classes and plain attributes of all modules inside, 32 bytes."""
    digest = hashlib.sha256()
    _feed_structure(digest, module)
    return digest.digest()


def _feed_module(digest: Any, module: nn.Module) -> None:
    _put(digest, b"module", type(module).__qualname__.encode())
    _feed(digest, dict(module.state_dict()))
    _feed_structure(digest, module)


def _feed_structure(digest: Any, module: nn.Module) -> None:
    """State does not tell ReLU from GELU, nor one dropout from another."""
    own = vars(nn.Module()).keys()
    for name, each in module.named_modules():
        _put(digest, b"submodule", f"{name} {type(each).__module__}.{type(each).__qualname__}".encode())
        _put(digest, b"extra", each.extra_repr().encode())
        for key, value in sorted(vars(each).items()):
            if key not in own:
                _put(digest, b"attribute", key.encode())
                _feed_attribute(digest, value)


def _feed_attribute(digest: Any, value: Any) -> None:
    if isinstance(value, nn.Module):  # not one of the modules inside; to follow it could go round in circles
        _put(digest, b"other module", type(value).__qualname__.encode())
    elif isinstance(value, Mapping):
        digest.update(b"attributes" + struct.pack("<Q", len(value)))
        for key, each in value.items():
            _feed_attribute(digest, key)
            _feed_attribute(digest, each)
    elif isinstance(value, list | tuple):
        digest.update(b"attributes" + struct.pack("<Q", len(value)))
        for each in value:
            _feed_attribute(digest, each)
    elif callable(value):
        name = getattr(value, "__qualname__", type(value).__qualname__)
        _put(digest, b"callable", f"{getattr(value, '__module__', '')}.{name}".encode())
    else:
        try:
            _put(digest, b"value", content_digest(value))
        except DataError:
            _put(digest, b"type", f"{type(value).__module__}.{type(value).__qualname__}".encode())


def _feed_other(digest: Any, value: Any) -> None:
    pandas, pillow = sys.modules.get("pandas"), sys.modules.get("PIL.Image")
    if pandas is not None and value is pandas.NA:
        _put(digest, b"NA", b"")
        return
    if pillow is not None and isinstance(value, pillow.Image):
        palette = bytes(value.getpalette() or ()) if value.mode in ("P", "PA") else b""
        _put(digest, b"picture", f"{value.mode} {value.size}".encode())
        _put(digest, b"palette", palette)
        digest.update(value.tobytes())
        _feed_seen(digest, value)
        return
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and isinstance(value, arrow.Scalar | arrow.Array | arrow.ChunkedArray | arrow.Tensor):
        _put(digest, b"arrow", str(value.type).encode())
        _feed(digest, plain(value))
        return
    if isinstance(value, os.PathLike):
        _feed(digest, PurePath(value))
        return
    values = np.asarray(value) if hasattr(value, "__array__") else None
    if values is None or values.dtype.hasobject:
        raise DataError(
            f"a value of type {type(value).__module__}.{type(value).__qualname__}, whose content cannot be told; give "
            "text, numbers, bytes, lists or arrays"
        )
    _put(digest, b"like an array", type(value).__qualname__.encode())
    _feed_array(digest, values)
