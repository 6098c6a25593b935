"""The command line. Heavy libraries are imported by the commands that need them, so that ``--help`` is quick."""

from __future__ import annotations

import io
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from kintsugi import __version__
from kintsugi.commands import bench, stores
from kintsugi.commands.check import check
from kintsugi.commands.describe import describe
from kintsugi.commands.golden import golden
from kintsugi.commands.init import init
from kintsugi.commands.new_method import new_method
from kintsugi.commands.plugins import Plugins

if TYPE_CHECKING:
    import pandas as pd

    from kintsugi.data.dataset import Dataset, Problems


class _Commands(TyperGroup):
    """Errors of the library are one message and exit status 2, an interruption is 130."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if self.get_command(ctx, name) is None:
            from kintsugi.core.errors import nearest

            ctx.fail(f"no such command {name!r}{nearest(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

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


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kintsugi {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What every command has; the text of --help is that of ``app``."""


def main() -> None:
    """Entry point. What a terminal cannot show stands there as ``?``: nothing is lost for the want of a dash."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a program that calls this may have put something else there
            stream.reconfigure(errors="replace")
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
    """Train and compare robust methods on digits that lose their image, sound or clue (about three and a half minutes).

    Prints a leaderboard with intervals, writes a report that opens without a network, saves the best model, predicts with it.

    Examples:

    - `kintsugi demo`

    - `kintsugi demo --methods mean_fusion,mmin --epochs 5 -o quick/`
    """
    from kintsugi.demo import METHODS, run

    chosen = METHODS if methods is None else tuple(m.strip() for m in methods.split(",") if m.strip())
    raise typer.Exit(run(out, chosen, epochs, seed, workers, _called()))


app.command()(describe)
app.command()(init)


@app.command()
def train(
    data: Data,
    columns: Annotated[
        Path | None, typer.Argument(help="YAML that says how to read the columns; none for a built-in set.")
    ] = None,
    columns_too: Annotated[
        Path | None, typer.Option("--columns", help="The same YAML, as describe takes it.", show_default=False)
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
    epochs: Annotated[int, typer.Option(help="Passes over the rows; with --updates rounds.", min=1)] = 20,
    updates: Annotated[
        int | None,
        typer.Option(help="Steps of the optimiser, as the budget in place of epochs.", min=1, show_default=False),
    ] = None,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better validation score.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Metric that chooses the epoch, such as auroc; default: the first of the task.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "cpu",
    plugins: Plugins = None,
) -> None:
    """Train a method on a table with holes and save the model.

    Its first lines say what each column was taken for. The YAML names the modalities and the target; `kintsugi init` drafts one:

    `modalities: {scan: {kind: image, column: scan_path, size: 64}, note: {kind: text, column: note}}`

    `target: outcome`

    Examples:

    - `kintsugi train cases.parquet columns.yaml -m mmin -o model/`

    - `kintsugi train avdigits -m late_fusion --missing 'mcar(0.3)' --set merge=mean`

    - `kintsugi train cases.parquet columns.yaml --metric auroc`
    """
    from rich.console import Console

    from kintsugi.commands import rows as rows_of
    from kintsugi.core.errors import ConfigError
    from kintsugi.estimator import estimator_for
    from kintsugi.imperfect import parse_mechanism

    if columns is not None and columns_too is not None:
        raise ConfigError(f"the YAML was given twice, as {columns} and as --columns {columns_too}")
    columns = columns_too if columns is None else columns
    _check_folder(out)
    settings = rows_of.settings(set_ or [], method)
    mechanism = None if missing is None else parse_mechanism(missing)
    rows, held = rows_of.training_rows(data, columns, val, seed)
    if mechanism is not None:
        rows, held = rows.with_missing(mechanism, seed=seed), held.with_missing(mechanism, seed=seed + 1)
    model = estimator_for(rows.schema.task)(
        method, params=settings, epochs=epochs, updates=updates, lr=lr, batch_size=batch_size, patience=patience,
        select=metric or True, seed=seed, device=_device(device), checkpoint=out / "checkpoint",
    )  # fmt: skip
    _show_columns(rows)
    model.fit(rows, held)
    model.save(out)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{rows!r}")
    for record in model.trainer_.history[-1:]:
        said = ", ".join(f"{k} {v:.4g}" for k, v in record.items() if isinstance(v, float))
        console.print(f"last epoch: {said}")
    _tell(rows.problems)
    if held.source is not rows.source:
        _tell(held.problems)
    console.print(f"saved in {out}; use it with: kintsugi predict {shlex.quote(str(out))} ROWS.parquet")


def _show_columns(rows: Dataset) -> None:
    """What each column in use was taken for, a line each."""
    from kintsugi.data.describe import column_lines, columns_of
    from kintsugi.data.table_source import TableSource

    if not isinstance(rows.source, TableSource):
        return
    typer.echo(f"{rows.source.name}: {len(rows.source.frame):,} rows; columns as they are read:")
    for line in column_lines(columns_of(rows), rows.source.frame):
        typer.echo(f"  {line}")


def _check_folder(out: Path) -> None:
    """Said before training, not after it, when the model could not be saved."""
    from kintsugi.core.errors import ConfigError
    from kintsugi.io.files import is_temporary
    from kintsugi.io.saved_models import strangers

    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; a saved model is a folder")
    inside = set(strangers(out))
    if inside == {"checkpoint"} and (out / "checkpoint").is_dir():
        names = (path.name for path in (out / "checkpoint").iterdir())
        inside = {name for name in names if name != "checkpoint.safetensors" and not is_temporary(name)}
    if inside:
        raise ConfigError(
            f"{out} is not empty and holds no saved model ({', '.join(sorted(inside)[:3])}); choose another folder"
        )


def _device(device: str) -> str:
    import torch

    from kintsugi.core.errors import ConfigError

    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda", "auto") or (number and not number.isdigit()):
        raise ConfigError(f"--device is cpu, cuda, cuda:0 or auto, not {device!r}")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device {device}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


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
    plugins: Plugins = None,
) -> None:
    """Predict for rows with holes; a row with nothing gets the training prior and says so in `used`.

    Text stands in a CSV file as it is: a spreadsheet takes a class that begins with `=`, `+`, `-` or `@` for a formula.

    Examples:

    - `kintsugi predict model/ new.parquet -o predictions.csv`

    - `kintsugi predict model/ new.csv --on-error missing`
    """
    from kintsugi.core.errors import ConfigError
    from kintsugi.data.table import Table
    from kintsugi.estimator import load, unlabelled

    if on_error not in (None, "raise", "missing"):
        raise ConfigError(f"--on-error is raise or missing, not {on_error!r}")
    _check_ending(out)
    loaded = load(model)
    if loaded.reading_ is None:
        raise ConfigError(f"{model} was trained on tensors, so it cannot read files; load it in Python")
    table = Table.from_reading(data, unlabelled(loaded.reading_), on_error=on_error)  # type: ignore[arg-type]
    frame = loaded.predict_frame(table)
    _tell(table.problems)
    _write(frame, out)


def _check_ending(out: Path | None) -> None:
    """Said before the work, not after it: no file gets a name that says it is something else."""
    from kintsugi.core.errors import ConfigError

    if out is not None and out.suffix and not out.name.lower().endswith((".csv", ".csv.gz", ".parquet")):
        raise ConfigError(f"{out} ends in {out.suffix!r}; predictions are written as .csv or .parquet")


def _write(frame: pd.DataFrame, out: Path | None) -> None:
    from kintsugi.io.files import replacing

    if out is None:
        typer.echo(
            frame.to_csv(index=False).encode(), nl=False
        )  # into a pipe as into a file, whatever the terminal's code
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as fresh:
        if out.suffix.lower() == ".parquet":
            frame.to_parquet(fresh)
        else:
            frame.to_csv(fresh, index=False)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model.", show_default=False)],
    data: Data,
    protocol: Annotated[
        str, typer.Option("-p", "--protocol", help="clean, subsets, rates, corruptions, standard, or a published one.")
    ] = "subsets",
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric, such as auroc; may be repeated. Default: those of the task.", show_default=False),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report that opens without a network.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the tidy table.")] = None,
    plugins: Plugins = None,
) -> None:
    """Put a saved model through a protocol: every subset of its modalities, rates of missing slots, corruptions.

    Of a built-in data set the test rows are used, of a file all rows. The last line is what a guess gets on the same rows that
    always gives the answer to a row with nothing: the class frequencies or the mean of the training rows.

    Examples:

    - `kintsugi evaluate model/ avdigits -p subsets`

    - `kintsugi evaluate model/ test.parquet -p "rates(0, 0.3, 0.6)" --html report.html`

    - `kintsugi evaluate model/ test.parquet --metric auroc --metric f1`
    """
    from rich.console import Console
    from rich.table import Table as Shown

    from kintsugi.commands.rows import built_in
    from kintsugi.core.errors import ConfigError
    from kintsugi.data import datasets
    from kintsugi.data.table import Table
    from kintsugi.estimator import load
    from kintsugi.evaluation import evaluate as measure

    loaded = load(model)
    if data in datasets.list_datasets() or not Path(data).exists():
        rows: Dataset = built_in(data).split()[2]
    elif loaded.reading_ is None:
        raise ConfigError(f"{model} was trained on tensors, so it cannot read files; evaluate it in Python")
    else:
        rows = Table.from_reading(data, loaded.reading_, require_target=True)
    results = measure(loaded, rows, protocol, metrics=metric or None, progress=None)
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        results.to_csv(csv)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        results.to_html(html, command=_called())
    names = results.metrics if metric else results.metrics[:1]
    _tell(rows.problems)
    title = _plain(f"{', '.join(names)} on {len(rows)} rows of {rows.name}, with 95 % intervals over rows")
    shown = Shown(title=title)
    shown.add_column("condition", overflow="fold")
    for name in (column for each in names for column in (each, "interval")):
        shown.add_column(name, justify="right", overflow="fold")
    for condition, lines in results.table.groupby("condition", sort=False):
        by_name = lines.set_index("metric")
        cells = ((row["value"], row["low"], row["high"]) for row in (by_name.loc[name] for name in names))
        numbers = (text for value, low, high in cells for text in (f"{value:.4f}", f"{low:.4f} – {high:.4f}"))
        shown.add_row(_plain(str(condition)), *numbers)
    guessed = (f"{float(results.guess(name).iloc[0]):.4f}" for name in names)
    shown.add_row("a guess (prior)", *(text for value in guessed for text in (value, "")))
    console = Console()
    console.print(shown)
    if metric and results.runs[0].positive:
        console.print(f"The positive class is {results.runs[0].positive}.", markup=False, highlight=False)


app.add_typer(bench.app, name="bench")
app.command()(stores.report)
app.command()(stores.compare)
app.command("new-method")(new_method)
app.command()(check)
app.command()(golden)


@app.command()
def methods(
    pattern: Annotated[str, typer.Argument(help="A key (shows its card), or a glob over keys and leaves.")] = "*",
    task: Annotated[str | None, typer.Option(help="Only methods that solve this task.")] = None,
    premise: Annotated[
        str | None,
        typer.Option(help="Only methods that rest on this premise: redundant, neighbours, … (see their cards)."),
    ] = None,
    plugins: Plugins = None,
) -> None:
    """The taxonomy as a tree; with a single key, the card of that method.

    Examples:

    - `kintsugi methods`

    - `kintsugi methods 'missing/*' --task regression`

    - `kintsugi methods --premise redundant`

    - `kintsugi methods mmin`
    """
    from kintsugi.core.catalogue import METHODS

    if METHODS.current(pattern) in METHODS:
        from rich.console import Console

        from kintsugi.commands.listings import method_card

        method_card(Console(), METHODS.current(pattern))
    else:
        from kintsugi.commands.method_list import method_tree

        method_tree(pattern, task, premise)


@app.command()
def cite(
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Methods.", show_default=False)],
    plugins: Plugins = None,
) -> None:
    """BibTeX entries of the papers of methods, ready for a file of references.

    Examples:

    - `kintsugi cite mmin smil >> references.bib`
    """
    from kintsugi.core.citations import citation

    typer.echo("\n\n".join(dict.fromkeys(citation(key).bibtex for key in keys)))


@app.command()
def corruptions(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND|KEY",
            help="A key (shows its card), a kind such as image or cross-modal, or a glob; default: all.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """What inputs can be corrupted with, by kind of modality; with a key, parameters per severity, source and definition.

    A corruption is written `KEY(MODALITY, SEVERITY)`, severity 1 (mild) to 5 (severe); several are joined by `+`. See
    them at work with `kintsugi gallery`.

    Examples:

    - `kintsugi corruptions`

    - `kintsugi corruptions audio`

    - `kintsugi corruptions gaussian_noise`

    - `kintsugi corruptions '*noise*'`
    """
    from rich.console import Console

    from kintsugi.commands.listings import corruption_card, corruption_table
    from kintsugi.imperfect.operator import OPERATORS

    console = Console()
    if name is not None and name in OPERATORS:
        corruption_card(console, name)
    else:
        corruption_table(console, name)


@app.command()
def gallery(
    out: Annotated[Path, typer.Argument(help="The HTML file to write.", show_default=False)],
    data: Annotated[
        str | None,
        typer.Option(
            help="A built-in data set, or a Parquet or CSV file with --columns; default: samples of every kind.",
            show_default=False,
        ),
    ] = None,
    columns: Annotated[
        Path | None, typer.Option(help="YAML that says how to read the columns of a file.", show_default=False)
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Kinds, separated by commas, such as image,cross-modal; default: all.", show_default=False),
    ] = None,
    rows: Annotated[int, typer.Option(help="Rows of each sample that are shown.", min=1, max=12)] = 2,
    seed: Annotated[int, typer.Option(help="Of the rows that are drawn, and of the damage.")] = 0,
    severities: Annotated[str, typer.Option(help="Which of 1 to 5, separated by commas.")] = "1,2,3,4,5",
) -> None:
    """Every corruption at every severity beside the clean sample, in one HTML file that opens without a network.

    Pictures, sound to play, text with the changes marked, curves, tables; with parameters, sources and the measured
    damage. An operator that fails is shown as failed, and the exit status is 1.

    Examples:

    - `kintsugi gallery gallery.html`

    - `kintsugi gallery sounds.html --kind audio,text --rows 3`

    - `kintsugi gallery mine.html --data cases.parquet --columns columns.yaml --severities 1,3,5`
    """
    from kintsugi.commands.gallery import numbers, write

    levels, kinds = numbers(severities), None if kind is None else [k.strip() for k in kind.split(",") if k.strip()]
    failures = write(out, data, columns, kinds, rows, seed, levels, _called())
    for failed in failures:
        typer.echo(f"failed: {failed}", err=True)
    raise typer.Exit(1 if failures else 0)


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
