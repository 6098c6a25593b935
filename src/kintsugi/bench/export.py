"""All results of a store in one table, and in one file."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kintsugi.bench.rows import read_rows, read_trials
from kintsugi.bench.schema_sql import not_written
from kintsugi.bench.trial import canonical
from kintsugi.core.errors import ConfigError
from kintsugi.io.files import replace_file

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "dataset", "method", "seed", "training", "condition", "group", "x", "metric", "value", "low", "high", "n",
    "higher_is_better", "mask_hash", "parameters", "protocol", "fingerprint", "trial", "origin",
)  # fmt: skip
TIMING = ("seconds", "trial_seconds", "started")
NUMBERS = dict.fromkeys(("x", "value", "low", "high", *TIMING), "float64") | dict.fromkeys(("seed", "n"), "int64")


def result_table(db: sqlite3.Connection, timing: bool) -> pd.DataFrame:
    """One line for each trial, condition and metric; see :meth:`~kintsugi.bench.store.Store.table`."""
    import pandas as pd

    columns = [*COLUMNS, *(TIMING if timing else ())]
    lines: list[dict[str, Any]] = []
    for h, trial in list(read_trials(db, "t.state = 'done'")):
        started, seconds = db.execute("SELECT started, seconds FROM trials WHERE hash = ?", (h,)).fetchone()
        said = {
            "dataset": trial.dataset, "method": trial.method, "seed": trial.seed, "training": trial.training,
            "parameters": canonical(trial.parameters, "parameters"), "protocol": trial.protocol.name,
            "fingerprint": trial.fingerprint, "trial": h, "origin": trial.origin,
            "trial_seconds": seconds, "started": started,
        }  # fmt: skip
        lines += [said | row._asdict() for row in read_rows(db, h)]
    kinds = {name: kind for name, kind in NUMBERS.items() if name in columns} | {"higher_is_better": "bool"}
    return pd.DataFrame(lines, columns=columns).astype(kinds)


def export_table(table: pd.DataFrame, target: Path) -> Path:
    """The table as a file, there as a whole or not at all; see :meth:`~kintsugi.bench.store.Store.export`."""
    memory = io.BytesIO()
    match target.suffix:
        case ".csv":
            table.to_csv(memory, index=False, lineterminator="\n")
        case ".parquet":
            import pyarrow as pa  # type: ignore[import-untyped]
            from pyarrow import parquet

            # without what pandas adds of itself, so that its version does not change the bytes
            rows = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
            parquet.write_table(rows, memory)
        case _:
            raise ConfigError(f"{target} ends in {target.suffix!r}; results are exported as .csv or .parquet")
    try:
        replace_file(target, memory.getvalue())
    except OSError as error:
        raise not_written(error, target) from error
    return target
