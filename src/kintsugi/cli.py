"""The command line. Heavy libraries are imported by the commands that need them, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

    from kintsugi.data.dataset import Dataset

app = typer.Typer(
    name="kintsugi",
    help="Multimodal learning when the data is imperfect: train, predict and compare on rows with holes.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `kintsugi demo`; then `kintsugi methods` and `kintsugi train --help`.",
)
Data = Annotated[
    str, typer.Argument(help="A Parquet or CSV file, or the name of a built-in data set.", show_default=False)
]


def main() -> None:
    """Entry point: errors of the library are one message and exit status 2, an interruption is 130."""
    from kintsugi.core.errors import KintsugiError

    try:
        app()
    except KintsugiError as error:
        _fail(str(error), 2)
    except ImportError as error:
        if "kintsugi-ml[" not in str(error):
            raise
        _fail(str(error), 2)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 2)
    except OSError as error:
        _fail(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), 1)
    except KeyboardInterrupt as stop:
        _fail("\n".join(["stopped", *getattr(stop, "__notes__", [])]), 130)


def _fail(message: str, status: int) -> None:
    from rich.console import Console

    Console(stderr=True).print(f"[bold red]error:[/bold red] {_plain(message)}", soft_wrap=True, highlight=False)
    sys.exit(status)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the report, the table and the best model.")
    ] = Path("demo-out"),
    methods: Annotated[
        str | None, typer.Option(help="Methods, separated by commas; default: the eight of the tour.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training rows.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of the weights, the order of rows and the holes.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one a core.", min=1)] = None,
) -> None:
    """Train and compare robust methods on digits that lose their image, sound or clue (about three minutes).

    Prints a leaderboard with intervals, writes a report that opens without a network, saves the best model, predicts with it.

    Examples:

    - `kintsugi demo`

    - `kintsugi demo --methods mean_fusion,mmin --epochs 5 -o quick/`
    """
    from kintsugi.demo import METHODS, run

    chosen = METHODS if methods is None else tuple(m.strip() for m in methods.split(",") if m.strip())
    said = " ".join(["kintsugi", *sys.argv[1:]])
    raise typer.Exit(run(out, chosen, epochs, seed, workers, said))


@app.command()
def train(
    data: Data,
    columns: Annotated[
        Path | None, typer.Argument(help="YAML that says how to read the columns; none for a built-in set.")
    ] = None,
    method: Annotated[
        str, typer.Option("-m", "--method", help="Key of a method; `kintsugi methods` lists them.")
    ] = "mean_fusion",
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder of the model. An interrupted training goes on from it.")
    ] = Path("model"),
    val: Annotated[
        str | None, typer.Option(help="File of validation rows; default: the split column, else 15 % of the rows.")
    ] = None,
    missing: Annotated[str | None, typer.Option(help="Simulate holes in the training rows, e.g. 'mcar(0.3)'.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Argument of the method, NAME=VALUE; may be repeated.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better validation score.")
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "cpu",
) -> None:
    """Train a method on a table with holes and save the model.

    The YAML names the modalities and the target:

    `modalities: {scan: {kind: image, column: scan_path, size: 64}, note: {kind: text, column: note}}`

    `target: outcome`

    Examples:

    - `kintsugi train cases.parquet columns.yaml -m mmin -o model/`

    - `kintsugi train avdigits -m late_fusion --missing 'mcar(0.3)' --set merge=mean`
    """
    from rich.console import Console

    from kintsugi.estimator import Classifier, Regressor
    from kintsugi.imperfect import parse_mechanism

    rows, held = _training_rows(data, columns, val, seed)
    if missing is not None:
        mechanism = parse_mechanism(missing)
        rows, held = rows.with_missing(mechanism, seed=seed), held.with_missing(mechanism, seed=seed + 1)
    face = Regressor if rows.schema.task.key == "regression" else Classifier
    model = face(
        method, params=_settings(set_ or []), epochs=epochs, lr=lr, batch_size=batch_size, patience=patience, seed=seed,
        device=device, checkpoint=out / "checkpoint",
    )  # fmt: skip
    model.fit(rows, held)
    model.save(out)
    console = Console()
    console.print(f"{rows!r}", highlight=False, markup=False)
    for record in model.trainer_.history[-1:]:
        said = ", ".join(f"{k} {v:.4g}" for k, v in record.items() if isinstance(v, float))
        console.print(f"last epoch: {said}", highlight=False)
    for problem in list(rows.problems)[:10]:
        console.print(
            f"left out: row {problem.row}, {problem.modality}: {problem.where}: {problem.reason}", markup=False
        )
    console.print(f"saved in {out}; use it with: kintsugi predict {out} ROWS.parquet", highlight=False)


def _training_rows(data: str, columns: Path | None, val: str | None, seed: int) -> tuple[Dataset, Dataset]:
    from kintsugi.data.table import Table

    rows = _read(data, columns)
    if val is None:
        first, second, _ = rows.split(val=0.15, test=0.0, seed=seed)
        return first, second
    assert rows.reading is not None
    return rows, Table.from_reading(val, rows.reading, require_target=True)


def _read(data: str, columns: Path | None) -> Dataset:
    from kintsugi.core.errors import ConfigError, nearest
    from kintsugi.data import datasets
    from kintsugi.data.columns import read_columns
    from kintsugi.data.table import Table

    if columns is None:
        if data in datasets.list_datasets():
            return datasets.load(data)
        if Path(data).exists():
            raise ConfigError(f"{data}: say how to read its columns in a YAML file; see kintsugi train --help")
        raise ConfigError(f"{data} is neither a file nor a built-in data set{nearest(data, datasets.list_datasets())}")
    options = read_columns(columns)
    return (Table.from_csv if data.lower().endswith(".csv") else Table.from_parquet)(data, **options)


def _settings(pairs: list[str]) -> dict[str, Any]:
    import yaml

    from kintsugi.core.errors import ConfigError

    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise ConfigError(f"--set takes NAME=VALUE, not {pair!r}")
        found[name.strip()] = yaml.safe_load(value)
    return found


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model.", show_default=False)],
    data: Annotated[
        Path,
        typer.Argument(help="Parquet or CSV file with the columns that the model was trained on.", show_default=False),
    ],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="CSV or Parquet file; default: the terminal.")] = None,
    on_error: Annotated[str, typer.Option(help="raise, or missing: treat unreadable cells as absent.")] = "raise",
) -> None:
    """Predict for rows with holes; a row with nothing gets the training prior and says so in `used`.

    Examples:

    - `kintsugi predict model/ new.parquet -o predictions.csv`

    - `kintsugi predict model/ new.csv --on-error missing`
    """
    from kintsugi.core.errors import ConfigError
    from kintsugi.data.table import Table
    from kintsugi.estimator import load

    if on_error not in ("raise", "missing"):
        raise ConfigError(f"--on-error is raise or missing, not {on_error!r}")
    loaded = load(model)
    if loaded.reading_ is None:
        raise ConfigError(f"{model} was trained on tensors, so it cannot read files; load it in Python")
    table = Table.from_reading(data, loaded.reading_, on_error=on_error)  # type: ignore[arg-type]
    frame = loaded.predict_frame(table)
    for problem in list(table.problems)[:20]:
        typer.echo(f"absent: row {problem.row}, {problem.modality}: {problem.where}: {problem.reason}", err=True)
    _write(frame, out)


def _write(frame: pd.DataFrame, out: Path | None) -> None:
    if out is None:
        typer.echo(frame.to_csv(index=False), nl=False)
    elif out.suffix == ".parquet":
        frame.to_parquet(out)
    else:
        frame.to_csv(out, index=False)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model.", show_default=False)],
    data: Data,
    protocol: Annotated[
        str, typer.Option("-p", "--protocol", help="clean, subsets, rates, corruptions, demo.")
    ] = "subsets",
    html: Annotated[Path | None, typer.Option(help="Write a report that opens without a network.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the tidy table.")] = None,
) -> None:
    """Put a saved model through a protocol: every subset of its modalities, rates of missing slots, corruptions.

    Of a built-in data set the test rows are used, of a file all rows.

    Examples:

    - `kintsugi evaluate model/ avdigits -p subsets`

    - `kintsugi evaluate model/ test.parquet -p "rates(0, 0.3, 0.6)" --html report.html`
    """
    from rich.console import Console
    from rich.table import Table as Shown

    from kintsugi.core.errors import ConfigError
    from kintsugi.data import datasets
    from kintsugi.data.table import Table
    from kintsugi.estimator import load
    from kintsugi.evaluation import evaluate as measure

    loaded = load(model)
    if data in datasets.list_datasets():
        rows: Dataset = datasets.load(data).split()[2]
    elif loaded.reading_ is None:
        raise ConfigError(f"{model} was trained on tensors, so it cannot read files; evaluate it in Python")
    else:
        rows = Table.from_reading(data, loaded.reading_, require_target=True)
    results = measure(loaded, rows, protocol, progress=None)
    metric = results.metrics[0]
    shown = Shown(title=f"{metric} on {len(rows)} rows of {rows.name}, with 95 % intervals over rows")
    for name in ("condition", metric, "interval"):
        shown.add_column(name, justify="left" if name == "condition" else "right")
    for _, row in results.table[results.table["metric"] == metric].iterrows():
        shown.add_row(row["condition"], f"{row['value']:.4f}", f"{row['low']:.4f} – {row['high']:.4f}")
    Console().print(shown)
    if csv is not None:
        results.to_csv(csv)
    if html is not None:
        results.to_html(html, command=" ".join(["kintsugi", *sys.argv[1:]]))


@app.command()
def methods(
    pattern: Annotated[str, typer.Argument(help="A key (shows its card), or a glob over keys and leaves.")] = "*",
    task: Annotated[str | None, typer.Option(help="Only methods that solve this task.")] = None,
) -> None:
    """The taxonomy as a tree; with a single key, the card of that method.

    Examples:

    - `kintsugi methods`

    - `kintsugi methods 'missing/*' --task regression`

    - `kintsugi methods mmin`
    """
    from rich.console import Console
    from rich.tree import Tree

    from kintsugi.core.errors import UnknownName
    from kintsugi.core.methods import METHODS, list_methods
    from kintsugi.core.methods import card as card_of

    console = Console()
    if pattern in METHODS:
        _card(console, pattern)
        return
    found = list_methods(pattern, task)
    if not found:
        raise UnknownName("method or leaf", pattern, METHODS)
    tree = Tree(f"[bold]methods[/bold] ({len(found)})")
    branches: dict[str, Any] = {"": tree}
    for key in sorted(found, key=lambda k: (card_of(k).leaf, k)):
        card, path = card_of(key), ""
        for part in card.leaf.split("/"):
            above, path = path, f"{path}/{part}" if path else part
            if path not in branches:
                branches[path] = branches[above].add(f"[cyan]{part}[/cyan]")
        branches[path].add(f"[bold]{key}[/bold]  {_plain(card.name)}, {_plain(card.venue)}")
    console.print(tree)


def _card(console: Any, key: str) -> None:
    from rich.table import Table

    from kintsugi.core.methods import METHODS, arguments, card

    said = card(key)
    table = Table(title=f"{said.name} ({key})", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    lines = {
        "paper": f"{said.paper}, {said.venue}",
        "leaf": said.leaf,
        "faithful": "\n".join(f"· {x}" for x in said.faithful),
        "simplified": "\n".join(f"· {x}" for x in said.simplified) or "nothing",
        "defaults from": said.defaults_from,
        "tested by": said.check,
        "survives": ", ".join(sorted(said.imperfection)),
        "tasks": ", ".join(sorted(said.tasks)),
        "modalities": f"{said.modalities[0]} to {said.modalities[1] or 'any number'}",
        "cost": said.cost,
        "arguments": ", ".join(f"{n}={v!r}" for n, v in arguments(METHODS[key]).items()),
    }
    for name, text in lines.items():
        table.add_row(name, _plain(text))
    console.print(table)


@app.command()
def datasets(
    name: Annotated[str | None, typer.Argument(help="A data set, to read about it.")] = None,
) -> None:
    """The data sets that come with the library, or that it knows how to read.

    Examples:

    - `kintsugi datasets`

    - `kintsugi datasets avdigits`
    """
    from rich.console import Console
    from rich.table import Table

    from kintsugi.data import datasets as known

    console = Console()
    if name is not None:
        console.print(known.describe_dataset(name), highlight=False, markup=False)
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for key in known.list_datasets():
        doc = known.describe_dataset(key).partition("\n\n")[2]
        table.add_row(f"[bold]{key}[/bold]", _plain(doc.partition("\n")[0]))
    console.print(table)


if __name__ == "__main__":
    main()
