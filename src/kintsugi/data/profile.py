"""What the training rows of a model were like, and where rows that it is asked about are otherwise."""

from __future__ import annotations

import base64
import hashlib
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from kintsugi.core.batch import Batch
from kintsugi.core.errors import DataError
from kintsugi.data.cells import Reader, ReadError, array, nothing, path_of, resolve
from kintsugi.data.column_kinds import as_numbers, distinct_cells
from kintsugi.data.content import content_digest, file_digest
from kintsugi.data.dataset import Dataset
from kintsugi.data.names import KnownNames, label
from kintsugi.data.table_source import FILES, TableSource, names_file
from kintsugi.data.tabular import TabularReader

FORMAT = 1
# All thresholds are proposed here.
ROWS_FOR_ABSENCE = 20  # rows from which on a share of absent rows is compared with that of training
MORE_ABSENT = 0.3  # by more than this the share has to exceed that of training,
TIMES_ABSENT = 2.0  # and to be more than so many times as large
CELLS_FOR_RANGE = 20  # training cells below which they say little of the range
ROWS_FOR_OVERLAP = 10  # rows that can be judged, from which on a share of known ones says something
MUCH_OVERLAP = 0.5  # share of rows that are those of training, above which it is said
CHANCE = 0.01  # that so many rows are known because rows are often alike, at most
KEPT_HASHES = 10_000  # 8 bytes each
ROWS_HASHED = 2_000  # of the rows that are scored
ROWS_DECODED = 2_000  # rows whose vectors and series are looked at,
NUMBERS_DECODED = 4_000_000  # as long as they hold no more numbers than this
MOST_NAMED = 5  # columns that a message names

_HOLE = b"\xff" * 8
_ODD = b"\xfe" * 8  # a cell whose content nobody can tell


@dataclass(frozen=True)
class Range:
    """Numbers of one column, or of a whole vector or series, in the training rows.

    column: its name; "" for a whole modality. count: of cells. low, high: the extremes. usual: the 0.1 and the 99.9
    percentile.
    """

    column: str
    count: int
    low: float
    high: float
    usual: tuple[float, float]

    @classmethod
    def of(cls, column: str, values: np.ndarray) -> Self | None:
        """Of all finite numbers of an array of any shape; None: there is none."""
        numbers = values[np.isfinite(values)].astype(np.float64)
        if not len(numbers):
            return None
        few, most = np.percentile(numbers, [0.1, 99.9]).tolist()
        return cls(column, len(numbers), float(numbers.min()), float(numbers.max()), (few, most))

    def excess(self, values: np.ndarray) -> np.ndarray:
        """How far beyond the range, widened by its width at both ends, each number is: 0 inside and for NaN."""
        with np.errstate(over="ignore", invalid="ignore"):
            width = max(self.high - self.low, 1e-6 * max(abs(self.low), abs(self.high)))  # what float32 may round
            beyond = np.maximum(values - (self.high + width), (self.low - width) - values)
        return np.nan_to_num(np.maximum(beyond, 0.0), nan=0.0)


@dataclass(frozen=True)
class Overlap:
    """rows: that could be judged; known: of these, those that are in the training rows; sampled: not all were looked at."""

    rows: int
    known: int
    sampled: bool


@dataclass(frozen=True)
class Profile:
    """What training rows were like, as plain data that a saved model keeps (``extra["profile"]``).

    **What it can say.** Where a modality is absent far more often than in training, where numbers are far outside their
    range, and whether rows that are scored are those that the model was trained on.

    **How rows are known again.** Of each training row a hash of 64 bits over its input cells, as BLAKE2b with a salt makes
    it: numbers by their value in float32, names and text by :func:`~kintsugi.data.names.label`, files and arrays by their
    content. So a row is known whatever file format it comes in, but not after any cell has changed. Rows that hold nothing
    have none. Of more than ``KEPT_HASHES`` rows those with the smallest hashes are kept, which is a random choice that falls
    on the same rows wherever they stand: of other rows those can be judged whose hash is as small.

    **False alarms.** A row that differs from all ``n`` training rows is taken for one of them with chance ``n / 2^64``. Rows
    that are truly alike are another matter: with few columns of few values, independent rows coincide. ``twins`` is the share
    of training rows that another training row equals, which is what to expect of independent rows drawn alike. It is taken off
    the share of known rows, and nothing is said where Hoeffding's bound leaves more than ``CHANCE`` for such luck.

    **What the salt can do.** It is derived from the fingerprint of the rows, so that saving is reproducible, and stored beside
    the hashes. Rows cannot be looked up in tables made beforehand, nor traced from one model to another. But who has the
    model can tell of any row they hold whether it was trained on, and can find rows with little in them, such as an age and a
    sex, by trying all. Extremes of columns stand there in the clear, as means do in the readers. Where this must not be, set
    ``model.profile_ = None`` before ``model.save(...)``.

    names: modalities. absent: share of rows without each. ranges: of each modality with numbers, a range a column, None for
    categories. raw: hashes are of cells of a table, not of tensors. hashes: uint64, sorted. complete: all rows are among them.
    """

    rows: int
    names: tuple[str, ...]
    absent: tuple[float, ...]
    ranges: Mapping[str, tuple[Range | None, ...]]
    raw: bool
    salt: bytes
    hashes: np.ndarray = field(repr=False)
    complete: bool
    twins: float

    @classmethod
    def of(cls, data: Dataset) -> Self:
        """Of training rows, as they are trained on; what a simulator hid is absent."""
        names = data.schema.names
        absent = 1 - data.present.double().mean(0) if len(data) else torch.ones(len(names))
        ranges = {}
        for name in names:
            shown = data.present[:, data.schema.column(name)].numpy()
            found = tuple(
                None if numbers is None else Range.of(column, numbers[shown[places]])
                for column, numbers, places in _numbers(data, name)
            )
            if any(found):
                ranges[name] = found
        salt = hashlib.sha256(f"profile of rows\x1f{data.fingerprint}".encode()).digest()[:16]
        hashes, counts = np.unique(_hashes(data, names, salt, np.arange(len(data))), return_counts=True)
        total = int(counts.sum())
        return cls(
            len(data),
            names,
            tuple(absent.tolist()),
            ranges,
            isinstance(data.source, TableSource),
            salt,
            hashes[:KEPT_HASHES],
            len(hashes) <= KEPT_HASHES,
            float(counts[counts > 1].sum() / total) if total else 0.0,
        )

    # to JSON and back ------------------------------------------------------------------------------------------
    def to_json(self) -> dict[str, Any]:
        """Plain data, at most about 110 kB beside the ranges; :meth:`from_json` is the way back."""
        return {
            "format": FORMAT,
            "rows": self.rows,
            "absent": dict(zip(self.names, self.absent, strict=True)),
            "ranges": {
                n: [r and {**asdict(r), "usual": list(r.usual)} for r in each] for n, each in self.ranges.items()
            },
            "raw": self.raw,
            "salt": self.salt.hex(),
            "hashes": base64.b64encode(self.hashes.astype("<u8").tobytes()).decode(),
            "complete": self.complete,
            "twins": self.twins,
        }

    @classmethod
    def from_json(cls, saved: Any) -> Self | None:
        """What :meth:`to_json` gave; None: there is none, or of a later format.

        Raises:
            DataError: it is damaged.
        """
        if saved is None or (isinstance(saved, Mapping) and saved.get("format") != FORMAT):
            return None
        try:
            ranges = {
                str(name): tuple(
                    r and Range(str(r["column"]), int(r["count"]), float(r["low"]), float(r["high"]), _pair(r["usual"]))
                    for r in each
                )
                for name, each in saved["ranges"].items()
            }
            absent = {str(name): float(share) for name, share in saved["absent"].items()}
            hashes = np.frombuffer(base64.b64decode(saved["hashes"], validate=True), dtype="<u8")
            profile = cls(
                int(saved["rows"]),
                tuple(absent),
                tuple(absent.values()),
                ranges,
                bool(saved["raw"]),
                bytes.fromhex(saved["salt"]),
                hashes.astype(np.uint64),
                bool(saved["complete"]),
                float(saved["twins"]),
            )
            profile._check()
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"what a saved model keeps of its training rows is damaged ({error!r})") from error
        return profile

    def _check(self) -> None:
        """Raise ValueError for what no training rows can give."""
        numbers = [x for each in self.ranges.values() for r in each if r for x in (r.low, r.high, *r.usual)]
        if not all(0 <= share <= 1 for share in (*self.absent, self.twins)) or not np.isfinite(numbers).all():
            raise ValueError("a share that is none, or a range without ends")
        if len(self.salt) > hashlib.blake2b.MAX_KEY_SIZE or not (self.complete or len(self.hashes)):
            raise ValueError("no salt or hashes of rows")

    # comparing -------------------------------------------------------------------------------------------------
    def differences(self, data: Dataset, optional: Collection[str] = ()) -> list[str]:
        """Sentences about where rows are unlike those of training, as they were given: what is simulated on them is not
        looked at.

        Args:
            data: rows with the same modalities; others of it are ignored.
            optional: modalities that may be absent in use.
        """
        said = [*self._absences(data, optional)]
        found = [text for name in self.ranges for text in self._outside(data, name)]
        if found:
            more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
            said.append(
                f"{data.name}: numbers far outside what training had: {'; '.join(found[:MOST_NAMED])}{more}. Look for other "
                "units, codes for nothing such as -999 (empty such cells), and exchanged columns; answers for such rows are "
                "extrapolated"
            )
        return said

    def _absences(self, data: Dataset, optional: Collection[str]) -> Iterator[str]:
        if len(data) < ROWS_FOR_ABSENCE:
            return
        for name, before in zip(self.names, self.absent, strict=True):
            if name not in data.schema.names or name in optional:
                continue
            gone = int((~data.observed[:, data.schema.column(name)]).sum())
            share = gone / len(data)
            if share - before > MORE_ABSENT and share > TIMES_ABSENT * before:
                yield (
                    f"{data.name}: modality {name!r} is absent in {gone} of {len(data)} rows ({share:.0%}), in training it "
                    f"was in {before:.0%}. Look whether its columns are filled under their names and its files are where "
                    "the paths lead; otherwise answers rest on the other modalities, more often than training could practise"
                )

    def _outside(self, data: Dataset, name: str) -> Iterator[str]:
        if name not in data.schema.names:
            return
        known = {place: r for place, r in enumerate(self.ranges[name]) if r is not None and r.count >= CELLS_FOR_RANGE}
        if not known:
            return
        for place, (column, numbers, places) in enumerate(_numbers(data, name)):
            trained = known.get(place)
            if trained is None or numbers is None:
                continue
            excess = trained.excess(numbers)
            if not excess.any():
                continue
            worst = np.unravel_index(int(excess.argmax()), excess.shape)
            row = int(data.index[int(places[worst[0]])])
            units = " (standardised)" if data.units(name) is not None else ""
            where = f"column {column!r}" if column else f"modality {name!r}{units}"
            yield (
                f"{where}: {int((excess > 0).sum())} of {int((~np.isnan(numbers)).sum())} numbers, the worst is "
                f"{float(numbers[worst]):.6g} in row {row} (counted from 0); training had {trained.low:.6g} to "
                f"{trained.high:.6g}, 99.8 % of them in {trained.usual[0]:.6g} to {trained.usual[1]:.6g}"
            )

    def overlap(self, data: Dataset) -> Overlap | None:
        """How many of these rows are training rows; None: it cannot be told."""
        if isinstance(data.source, TableSource) != self.raw or not set(self.names) <= set(data.schema.names):
            return None
        places = _spread(len(data), ROWS_HASHED)
        hashes = _hashes(data, self.names, self.salt, places)
        if not self.complete:
            hashes = hashes[hashes <= self.hashes[-1]]
        return Overlap(
            len(hashes), int(np.isin(hashes, self.hashes).sum()), len(places) < len(data) or not self.complete
        )

    def trained_on(self, data: Dataset) -> str | None:
        """A sentence, where most of these rows are training rows; else None."""
        found = self.overlap(data)
        if found is None or found.rows < ROWS_FOR_OVERLAP:
            return None
        share = found.known / found.rows
        beyond_luck = share - self.twins
        if beyond_luck <= MUCH_OVERLAP * (1 - self.twins) or math.exp(-2 * found.rows * beyond_luck**2) > CHANCE:
            return None
        what = (
            f"about {share:.0%} of these {len(data)} rows"
            if found.sampled
            else f"{found.known} of these {found.rows} rows"
        )
        return (
            f"{data.name}: the model was trained on {what} (told by salted hashes of their inputs): a score on them does not say "
            "how it does on new rows. Score rows that were held out, such as those of data.split() or data.folds()"
        )


def tell(
    profile: Profile | None,
    data: Dataset,
    *,
    scored: bool = False,
    optional: Collection[str] = (),
    said: set[str] | None = None,
    stacklevel: int = 2,
) -> None:
    """Warn where rows are unlike those that a model was trained on, or, where they are scored, the very same.

    Args:
        profile: of the training rows; None: nobody knows, and nothing is said.
        data: the rows as given.
        scored: the answers are compared with labels.
        optional: modalities that may be absent in use.
        said: what was said already in this call, which is not said again; what is said is added.
        stacklevel: as for ``warnings.warn``.
    """
    if profile is None or not len(data):
        return
    known = profile.trained_on(data) if scored else None
    texts = [*profile.differences(data, optional), *([known] if known else [])]
    for text in texts:
        if said is None or text not in said:
            warnings.warn(text, UserWarning, stacklevel=stacklevel + 1)
    if said is not None:
        said.update(texts)


def _pair(values: Sequence[Any]) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)


def _spread(count: int, most: int) -> np.ndarray:
    """All positions, or so many evenly spread over them."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)


# numbers ------------------------------------------------------------------------------------------------------------
Numbers = tuple[str, np.ndarray | None, np.ndarray]  # column, numbers (None: categories), and the position of each


def _numbers(data: Dataset, name: str) -> list[Numbers]:
    """Numbers of a modality, NaN where there are none: of a table ``[N]`` a column, of vectors and series ``[n, ...]`` as a
    whole, of at most ``ROWS_DECODED`` rows. Without those of other kinds.
    """
    modality = data.schema.modalities[data.schema.column(name)]
    index = data.index.numpy()
    if modality.kind not in ("tabular", "vector", "series") or not len(index):
        return []
    if isinstance(data.source, TableSource):
        reader = data.source.readers[name]
        if isinstance(reader, TabularReader):
            frame = data.source.frame.iloc[index]
            return [
                (column, None if column in reader.known else as_numbers(frame[column]), np.arange(len(index)))
                for column in reader.columns
            ]
    places = _spread(len(index), _most_rows(modality.shape))
    rows = index[places]
    if isinstance(data.source, TableSource):
        return [("", _decoded(data.source, name, rows), places)]
    values = _values(data.source.read(torch.from_numpy(rows)), name, data.schema.column(name))
    if modality.kind != "tabular":
        return [("", values, places)]
    codes = modality.categories or (0,) * values.shape[1]
    units = data.source.units(name)
    if units is not None:
        values = values * units[1].numpy() + units[0].numpy()
    reading = (data.reading or {}).get("modalities", {}).get(name, {})
    columns = reading.get("cells", [f"{name}[{place}]" for place in range(values.shape[1])])
    return [
        (column, None if code else values[:, place], places)
        for place, (column, code) in enumerate(zip(columns, codes, strict=True))
    ]


def _most_rows(shape: Sequence[int | None]) -> int:
    """Of a modality of this shape; a size that is open counts as 1,000."""
    return max(20, min(ROWS_DECODED, NUMBERS_DECODED // max(1, math.prod(size or 1000 for size in shape))))


def _decoded(source: TableSource, name: str, rows: np.ndarray) -> np.ndarray:
    """Float32 ``[n, ...]`` of a modality of vectors or series, NaN where nothing is there or can be read."""
    reader = source.readers[name]
    (column,) = reader.columns
    sizes = [size or 1 for size in reader.modality(name).shape]
    out = np.full([len(rows), *sizes], np.nan, dtype=np.float32)
    cells, present = source.frame[column].array, source.present[:, source.schema.column(name)].numpy()
    for place, row in enumerate(rows):
        if not present[row]:
            continue
        try:
            (values, mask), _ = reader.read_leniently([cells[row]], source.root)
        except ReadError:  # said when its row is read
            continue
        out[place] = values.numpy()
        if mask is not None:
            out[place, ~mask.numpy()] = np.nan
    return out


def _values(batch: Batch, name: str, column: int) -> np.ndarray:
    """Float32 ``[n, ...]``, NaN where it is absent or masked."""
    values = batch.inputs[name].detach().cpu().float().numpy().copy()
    values[~batch.present[:, column].cpu().numpy()] = np.nan
    if name in batch.mask:
        values[~batch.mask[name].cpu().numpy()] = np.nan
    return values


# hashes -------------------------------------------------------------------------------------------------------------
def _hashes(data: Dataset, names: Sequence[str], salt: bytes, places: np.ndarray) -> np.ndarray:
    """Uint64 ``[n]``, of those of the rows at these places that hold anything of these modalities."""
    index = data.index.numpy()[places]
    columns = [data.schema.column(name) for name in names]
    index = index[data.source.present[torch.from_numpy(index)][:, columns].any(1).numpy()]
    if not len(index):
        return np.zeros(0, dtype=np.uint64)
    words = _words_of_cells if isinstance(data.source, TableSource) else _words_of_tensors
    table = np.ascontiguousarray(np.stack([word for name in names for word in words(data, name, index)], 1))
    hashed = [hashlib.blake2b(row.tobytes(), digest_size=8, key=salt).digest() for row in table]
    return np.frombuffer(b"".join(hashed), dtype="<u8").astype(np.uint64)


def _words_of_tensors(data: Dataset, name: str, index: np.ndarray) -> Iterator[np.ndarray]:
    column = data.schema.column(name)
    words = []
    for rows in torch.from_numpy(index).split(512):
        batch = data.source.read(rows)
        present, mask, values = batch.present[:, column].tolist(), batch.mask.get(name), batch.inputs[name].cpu()
        for place, here in enumerate(present):
            row = values[place] if mask is None else values[place][mask[place].cpu()]
            words.append(_word(row.contiguous().numpy().tobytes()) if here else _HOLE)
    yield _joined(words)


def _words_of_cells(data: Dataset, name: str, index: np.ndarray) -> Iterator[np.ndarray]:
    source = data.source
    assert isinstance(source, TableSource)
    reader = source.readers[name]
    frame = source.frame.iloc[index]
    for column in reader.columns:
        if reader.kind in FILES:
            yield _joined([_content(cell, source, reader) for cell in frame[column].array])
        elif isinstance(reader, TabularReader) and column not in reader.known:
            yield _number_words(frame[column])
        else:
            known = KnownNames(reader.known[column]) if isinstance(reader, TabularReader) else None
            yield _name_words(frame[column], known)


def _number_words(values: pd.Series) -> np.ndarray:
    with np.errstate(over="ignore"):
        numbers = as_numbers(values).astype(np.float32) + np.float32(0)  # no negative zero
    return np.where(np.isnan(numbers), np.uint64(0xFFFFFFFFFFFFFFFF), numbers.view(np.uint32).astype(np.uint64))


def _name_words(values: pd.Series, known: KnownNames | None) -> np.ndarray:
    codes, cells = distinct_cells(values)
    words = []
    for cell in cells:
        place = None if known is None else known.place(cell)
        name = label(cell if known is None or place is None else known.names[place])
        words.append(_word(name.encode("utf-8", "surrogatepass")))
    return _joined([*words, _HOLE])[codes]  # -1 is the last


def _content(cell: Any, source: TableSource, reader: Reader) -> bytes:
    """Of a cell that may be a file or an array: 8 bytes of what it holds."""
    if nothing(cell):
        return _HOLE
    try:
        if names_file(cell, reader.kind):
            return file_digest(resolve(path_of(cell), source.root))[:8]
        if isinstance(cell, bytes | bytearray | memoryview):
            return hashlib.sha256(bytes(cell)).digest()[:8]  # as the file that holds them
        if reader.kind in ("series", "vector"):
            values = array(cell, reader.columns[0], source.root, reader.kind)
            with np.errstate(over="ignore"):
                return _word(f"{values.shape}".encode() + values.astype(np.float32).tobytes())
        return content_digest(cell)[:8]
    except (OSError, ValueError, DataError):
        return _ODD


def _word(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()


def _joined(words: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(words), dtype="<u8").astype(np.uint64)
