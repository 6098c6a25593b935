"""The file of a mask: an NPZ archive, of which nothing is unpacked before its size is known to be that of a mask."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kintsugi.core.errors import DataError
from kintsugi.io.files import digest, open_bounded, replace_file

UNITS = ("slot", "step", "label")
MOST_BYTES = 1 << 30  # of a file: a hundred million slots have 12 MB of bits and 400 MB of rates by row
MOST_UNPACKED = 2 << 30  # of all members together: what deflates a thousandfold is no mask, or one of holes alone
MOST_FACTS = 16 << 20  # bytes of JSON
HEADER = 10_000  # bytes that stand before the numbers of a member at most; NumPy writes 128

Array = np.ndarray[Any, Any]


def write_mask(path: Path, facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Facts as JSON with a digest over everything, and arrays: packed bits, and rates by row."""
    sealed = {**facts, "digest": digest(facts, *_payload(arrays))}
    memory = io.BytesIO()
    members: dict[str, Any] = {"facts": np.frombuffer(json.dumps(sealed).encode(), dtype=np.uint8), **arrays}
    np.savez_compressed(memory, **members)
    replace_file(path, memory.getvalue())


def read_mask(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """What :func:`write_mask` wrote, of the types and sizes that a mask has; also without a digest, as 0.1.0 wrote it.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file is no mask, no regular file, larger than a mask, or it was altered.
    """
    try:
        with open_bounded(path, MOST_BYTES, "mask") as file, zipfile.ZipFile(file) as archive:
            facts, arrays = _read(archive)
    except DataError:  # there is no such file, or it is none that is opened
        raise
    except Exception as error:  # the parsers of ZIP, deflate and NPY raise anything on damaged bytes
        raise DataError(
            f"{path} is not a mask written by Mask.save: {str(error)[:200] or type(error).__name__}"
        ) from error
    stored = facts.pop("digest", None)
    if stored is not None and stored != digest(facts, *_payload(arrays)):
        raise DataError(f"{path} was altered: its digest differs; save the mask again, or plan it anew")
    facts.setdefault("steps", {})
    return facts, arrays


def _payload(arrays: Mapping[str, Array]) -> list[memoryview]:
    return [np.ascontiguousarray(arrays[name]).data for name in sorted(arrays)]


def _read(archive: zipfile.ZipFile) -> tuple[dict[str, Any], dict[str, Array]]:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if len(members) < len(archive.infolist()) or "facts" not in members:
        raise ValueError("it has no facts, or a member twice")
    if sum(info.file_size for info in archive.infolist()) > MOST_UNPACKED:
        raise ValueError(f"its members have more than {MOST_UNPACKED:,} bytes when they are unpacked")
    facts = json.loads(_member(archive, members.pop("facts"), np.dtype(np.uint8), MOST_FACTS, exact=False).tobytes())
    _check(facts)
    rows = facts["shape"][0]
    bits = {"bits": facts["shape"]} | {f"step_{i}": size for i, size in enumerate(facts.get("steps", {}).values())}
    bits |= {"labels": [rows]} if "labels" in members else {}
    unlike = members.keys() ^ {*bits, "by_row"}
    if unlike:
        raise ValueError(f"{min(unlike)!r} is lacking, or no member of this mask")
    arrays = {
        name: _member(archive, members[name], np.dtype(np.uint8), -(-math.prod(size) // 8))
        for name, size in bits.items()
    }
    return facts, arrays | {"by_row": _member(archive, members["by_row"], np.dtype(np.float32), rows)}


def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, kind: np.dtype[Any], size: int, exact: bool = True
) -> Array:
    """An array of one dimension, of ``size`` numbers or (not exact) at most so many."""
    if info.file_size > size * kind.itemsize + HEADER:
        raise ValueError(f"{info.filename} has {info.file_size} bytes, more than a mask of this shape")
    content = io.BytesIO(archive.read(info))  # never more than file_size
    version = np.lib.format.read_magic(content)
    if version != (1, 0):
        raise ValueError(f"{info.filename} is NPY of version {version}")
    shape, _, dtype = np.lib.format.read_array_header_1_0(content)
    values = np.frombuffer(content.read(), kind)
    if dtype != kind or shape != values.shape or (exact and len(values) != size):
        raise ValueError(f"{info.filename} holds {dtype} {list(shape)}, unlike a mask of this shape")
    return values.copy()


def _check(facts: Any) -> None:
    """Types of everything that a mask says of itself."""
    number, whole = (lambda x: _is(x, int, float)), (lambda x: _is(x, int))
    text = lambda x: isinstance(x, str)  # noqa: E731
    rates = lambda x: isinstance(x, dict) and all(map(number, x.values()))  # noqa: E731
    sizes = lambda x: isinstance(x, list) and len(x) == 2 and all(whole(n) and n >= 0 for n in x)  # noqa: E731
    kinds = {
        "unit": UNITS.__contains__, "asked": lambda x: number(x) or rates(x), "realised": number,
        "realised_by_modality": rates, "seed": whole, "mechanism": text, "rows": text, "hash": text, "shape": sizes,
        "steps": lambda x: isinstance(x, dict) and all(sizes(size) and size[0] == facts["shape"][0] for size in x.values()),
        "digest": text,
    }  # fmt: skip
    if not isinstance(facts, dict) or not kinds.keys() - {"steps", "digest"} <= facts.keys() <= kinds.keys():
        raise ValueError("its facts are not those of a mask")
    for name in kinds:
        if name in facts and not kinds[name](facts[name]):
            raise ValueError(f"{name} is {str(facts[name])[:60]!r}")


def _is(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)
