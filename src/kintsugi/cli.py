"""The command line. Heavy libraries are imported by the commands that need them, so that ``--help`` is quick."""

from __future__ import annotations

import contextlib
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    import pandas as pd

    from kintsugi.data.dataset import Dataset, Problems


class _Commands(TyperGroup):
    """Errors of the library are one message and exit status 2, an interruption is 130."""

    def invoke(self, ctx: Any) -> Any:
        from kintsugi.core.errors import KintsugiError

        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_: typer.echo(f"warning: {message}", err=True)
                return super().invoke(ctx)
        except KintsugiError as error:
            _fail(str(error), 2)
        except ImportError as error:
            if "kintsugi-ml[" not in str(error):
                raise
            _fail(str(error), 2)
        except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
            _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 2)
        except BrokenPipeError:
            raise  # typer ends quietly
        except OSError as error:
            _fail(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), 1)
        except KeyboardInterrupt as stop:  # here, since typer would end without a word
            _fail("\n".join(["stopped", *getattr(stop, "__notes__", [])]), 130)


app = typer.Typer(
    name="kintsugi",
    cls=_Commands,
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
    """Entry point."""
    app()


def _fail(message: str, status: int) -> NoReturn:
    from rich.console import Console

    Console(stderr=True).print(f"[bold red]error:[/bold red] {_plain(message)}", soft_wrap=True, highlight=False)
    sys.exit(status)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _called() -> str:
    """The command that a report says it was made by, as a shell reads it."""
    return shlex.join(["kintsugi", *sys.argv[1:]])


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
    raise typer.Exit(run(out, chosen, epochs, seed, workers, _called()))


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

    _check_folder(out)
    settings = _settings(set_ or [], method)
    mechanism = None if missing is None else parse_mechanism(missing)
    rows, held = _training_rows(data, columns, val, seed)
    if mechanism is not None:
        rows, held = rows.with_missing(mechanism, seed=seed), held.with_missing(mechanism, seed=seed + 1)
    face = Regressor if rows.schema.task.key == "regression" else Classifier
    model = face(
        method, params=settings, epochs=epochs, lr=lr, batch_size=batch_size, patience=patience, seed=seed,
        device=_device(device), checkpoint=out / "checkpoint",
    )  # fmt: skip
    model.fit(rows, held)
    _sweep(out / "checkpoint")
    model.save(out)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{rows!r}")
    for record in model.trainer_.history[-1:]:
        said = ", ".join(f"{k} {v:.4g}" for k, v in record.items() if isinstance(v, float))
        console.print(f"last epoch: {said}")
    _tell(rows.problems)
    if held.source is not rows.source:
        _tell(held.problems)
    console.print(f"saved in {out}; use it with: kintsugi predict {out} ROWS.parquet")


def _check_folder(out: Path) -> None:
    """Said before training, not after it, when the model could not be saved."""
    from kintsugi.core.errors import ConfigError

    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; a saved model is a folder")
    if out.exists() and not (out / "model.json").exists():
        inside = [found for found in out.iterdir() if found != out / "checkpoint"]
        others = [found.name for found in (*inside, *(out / "checkpoint").glob("*")) if "checkpoint." not in found.name]
        if others:
            raise ConfigError(
                f"{out} is not empty and holds no saved model ({', '.join(sorted(others)[:3])}); choose another folder"
            )


def _sweep(folder: Path) -> None:
    """What a kill in the middle of a write left there would keep the model from being saved."""
    for left in folder.glob(".checkpoint.*"):
        left.unlink()
    with contextlib.suppress(OSError):  # not there, or not empty
        folder.rmdir()


def _device(device: str) -> str:
    import torch

    from kintsugi.core.errors import ConfigError

    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda", "auto") or (number and not number.isdigit()):
        raise ConfigError(f"--device is cpu, cuda, cuda:0 or auto, not {device!r}")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device {device}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def _training_rows(data: str, columns: Path | None, val: str | None, seed: int) -> tuple[Dataset, Dataset]:
    from kintsugi.core.errors import ConfigError
    from kintsugi.data.splits import split_rows
    from kintsugi.data.table import Table

    rows = _read(data, columns)
    first, second = (rows, None) if rows.source.split is None else rows.split()[:2]
    if val is not None:
        if rows.reading is None:
            raise ConfigError(f"{data} is no table, so --val cannot be read as it is; leave --val out")
        return first, Table.from_reading(val, rows.reading, require_target=True)
    if second is None or not len(second):  # no split column, or it names no row val
        kept, held, _ = split_rows(first, 0.15, 0.0, seed=seed)
        first, second = first.subset(kept), first.subset(held)
    return first, second


def _read(data: str, columns: Path | None) -> Dataset:
    from kintsugi.core.errors import ConfigError
    from kintsugi.data import datasets
    from kintsugi.data.columns import read_columns
    from kintsugi.data.table import Table

    if columns is None:
        if data in datasets.list_datasets() or not Path(data).exists():
            return _built_in(data)
        raise ConfigError(f"{data}: say how to read its columns in a YAML file; see kintsugi train --help")
    options = read_columns(columns)
    text = Path(data).suffix.lower() in (".csv", ".tsv")
    return (Table.from_csv if text else Table.from_parquet)(data, **options)


def _built_in(name: str) -> Dataset:
    import inspect

    from kintsugi.core.errors import ConfigError, nearest
    from kintsugi.data import datasets

    known = datasets.list_datasets()
    if name not in known:
        raise ConfigError(f"{name} is neither a file nor a built-in data set{nearest(name, known)}")
    options = inspect.signature(datasets.DATASETS[name]).parameters.values()
    needed = [option.name for option in options if option.default is option.empty]
    if needed:
        raise ConfigError(
            f"data set {name} needs {', '.join(needed)}; load it in Python: "
            f"kintsugi.datasets.load({name!r}, {needed[0]}=…); see kintsugi datasets {name}"
        )
    return datasets.load(name)


def _settings(pairs: list[str], method: str) -> dict[str, Any]:
    import yaml

    from kintsugi.core.errors import ConfigError, UnknownName
    from kintsugi.core.methods import METHODS, arguments

    known = arguments(METHODS[method])
    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, word = (part.strip() for part in pair.partition("="))
        if not sign or not name:
            raise ConfigError(f"--set takes NAME=VALUE, not {pair!r}")
        if name not in known:
            raise UnknownName(f"argument of {method}", name, known)
        try:
            value = yaml.safe_load(word)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {pair}: {word!r} is not YAML") from error
        if isinstance(value, str):
            with contextlib.suppress(ValueError):  # YAML takes 1e-3 for text
                value = float(value)
        if isinstance(known[name], (bool, int, float)) and not isinstance(value, (bool, int, float)):
            raise ConfigError(f"--set {pair}: {name} is like {known[name]!r}, not {word!r}")
        found[name] = value
    return found


def _tell(problems: Problems, most: int = 20) -> None:
    """Cells that could not be used, on the error stream."""
    for problem in list(problems)[:most]:
        typer.echo(f"absent: row {problem.row}, {problem.modality}: {problem.where}: {problem.reason}", err=True)
    if len(problems) > most:
        typer.echo(f"absent: {len(problems) - most} more", err=True)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model.", show_default=False)],
    data: Annotated[
        Path,
        typer.Argument(help="Parquet or CSV file with the columns that the model was trained on.", show_default=False),
    ],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="CSV or Parquet file; default: the terminal.")] = None,
    on_error: Annotated[
        str | None,
        typer.Option(
            help="raise, or missing: treat unreadable cells as absent; default: as in training.", show_default=False
        ),
    ] = None,
) -> None:
    """Predict for rows with holes; a row with nothing gets the training prior and says so in `used`.

    Examples:

    - `kintsugi predict model/ new.parquet -o predictions.csv`

    - `kintsugi predict model/ new.csv --on-error missing`
    """
    from kintsugi.core.errors import ConfigError
    from kintsugi.data.table import Table
    from kintsugi.estimator import load, unlabelled

    if on_error not in (None, "raise", "missing"):
        raise ConfigError(f"--on-error is raise or missing, not {on_error!r}")
    loaded = load(model)
    if loaded.reading_ is None:
        raise ConfigError(f"{model} was trained on tensors, so it cannot read files; load it in Python")
    table = Table.from_reading(data, unlabelled(loaded.reading_), on_error=on_error)  # type: ignore[arg-type]
    frame = loaded.predict_frame(table)
    _tell(table.problems)
    _write(frame, out)


def _write(frame: pd.DataFrame, out: Path | None) -> None:
    if out is None:
        typer.echo(frame.to_csv(index=False), nl=False)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() == ".parquet":
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
    if data in datasets.list_datasets() or not Path(data).exists():
        rows: Dataset = _built_in(data).split()[2]
    elif loaded.reading_ is None:
        raise ConfigError(f"{model} was trained on tensors, so it cannot read files; evaluate it in Python")
    else:
        rows = Table.from_reading(data, loaded.reading_, require_target=True)
    results = measure(loaded, rows, protocol, progress=None)
    metric = results.metrics[0]
    _tell(rows.problems)
    title = _plain(f"{metric} on {len(rows)} rows of {rows.name}, with 95 % intervals over rows")
    shown = Shown(title=title)
    for name in ("condition", metric, "interval"):
        shown.add_column(name, justify="left" if name == "condition" else "right", overflow="fold")
    for _, row in results.table[results.table["metric"] == metric].iterrows():
        shown.add_row(_plain(row["condition"]), f"{row['value']:.4f}", f"{row['low']:.4f} – {row['high']:.4f}")
    Console().print(shown)
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        results.to_csv(csv)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        results.to_html(html, command=_called())


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
    from kintsugi.core.schema import TASKS

    console = Console()
    if pattern in METHODS:
        _card(console, pattern)
        return
    if task is not None:
        TASKS[task]  # an unknown one is said here
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
