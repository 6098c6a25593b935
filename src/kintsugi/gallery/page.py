"""The page: operators run on samples, put in order, and written at once or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kintsugi
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.core.schema import KINDS
from kintsugi.gallery import cards, samples
from kintsugi.gallery.damage import Found, Level, Strip, strip
from kintsugi.gallery.pieces import SMALL, Piece, described, piece, reach
from kintsugi.gallery.samples import Sample
from kintsugi.imperfect.operator import CROSS, OPERATORS, check_severity
from kintsugi.io.files import replace_file
from kintsugi.training.progress import Progress

if TYPE_CHECKING:
    from kintsugi.data.dataset import Dataset

TEMPLATE = "gallery.html.j2"
SEVERITIES = (1, 2, 3, 4, 5)
LABELS = 24  # rows whose labels are shown
TITLES = {
    "image": "Images", "video": "Video", "audio": "Audio", "text": "Text", "tabular": "Tables", "series": "Time series",
    "points": "Point clouds", "volume": "Volumes", "vector": "Vectors", CROSS: "Cross-modal",
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One row of one modality: clean, then damaged at each severity."""

    name: str
    cells: tuple[Piece, ...]


@dataclass(frozen=True)
class Shown:
    """An operator on a sample, ready for the page. tall: severities go down, not across."""

    strip: Strip
    lines: tuple[Line, ...]
    tall: bool

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.strip.levels

    @property
    def together(self) -> tuple[tuple[Piece, ...], ...]:
        """For each column what all rows have there: small pictures stand side by side."""
        return tuple(zip(*(line.cells for line in self.lines), strict=True))

    @property
    def small(self) -> bool:
        """Are these labels, or pictures so small that several fit into a column?"""
        first = [line.cells[0] for line in self.lines]
        if self.strip.labels:
            return True
        return bool(self.strip.sample.modality) and all(p.form == "picture" and p.pixels[0] <= SMALL for p in first)


@dataclass(frozen=True)
class Entry:
    """An operator: its card and what it did to the samples of its kind."""

    key: str
    operator: Any
    flags: list[tuple[str, str]]
    parameters: list[tuple[str, str, list[str]]]
    about: list[str]
    spec: str
    shown: tuple[Shown, ...]

    @property
    def failures(self) -> list[str]:
        """What went wrong, one sentence each."""
        return [
            f"{self.key}, severity {level.severity}, on {shown.strip.sample.name}: {level.failed}"
            for shown in self.shown
            for level in shown.strip.failures
        ]


@dataclass(frozen=True)
class Section:
    """All operators of a kind. empty: why none of them could be shown."""

    kind: str
    title: str
    samples: tuple[Sample, ...]
    entries: tuple[Entry, ...]


def gallery(
    *,
    data: Dataset | None = None,
    kinds: Sequence[str] | None = None,
    rows: int = 2,
    seed: int = 0,
    severities: Sequence[int] = SEVERITIES,
    progress: bool | None = False,
) -> list[Section]:
    """Run the operators on samples.

    Args:
        data: whose rows are damaged; default: built-in data and what comes with scikit-learn.
        kinds: kinds of operators, ``cross-modal`` among them; default: all that there is a sample of.
        rows: how many of each sample are shown.
        seed: of the rows that are drawn, and of the damage.
        severities: which of 1 to 5.
        progress: a bar on the error stream; None: if that is a terminal.

    Raises:
        UnknownName: no such kind.
        ConfigError: a kind that the data does not have, or a severity that is none.
        ImportError: an extra that a sample needs is not installed.
    """
    for severity in severities:
        check_severity("a gallery", severity)
    wanted = _kinds(kinds)
    found = samples.built_in(wanted) if data is None else samples.own(data, data.name)
    here = [kind for kind in wanted if kind in found]
    if not here or (kinds is not None and len(here) < len(wanted)):
        lacking = ", ".join(kind for kind in wanted if kind not in found)
        where = "there is no sample" if data is None else f"{data.name} has no modality"
        raise ConfigError(f"{where} of kind {lacking}; there is {', '.join(found)}")
    keys = [(kind, key) for kind in here for key in cards.of_kind(kind)]
    entries: dict[str, list[Entry]] = {kind: [] for kind in here}
    with Progress(progress, "gallery") as bar:
        bar.expect(len(keys), "operators")
        for kind, key in keys:
            bar.advance(key)
            strips = [strip(key, sample, severities, seed) for sample in found[kind]]
            entries[kind].append(_entry(key, [_shown(each, rows) for each in strips]))
    return [Section(kind, TITLES[kind], tuple(found[kind]), tuple(entries[kind])) for kind in here]


def _kinds(kinds: Sequence[str] | None) -> list[str]:
    there = cards.kinds()
    for kind in kinds or ():
        if kind not in (*KINDS, CROSS):
            raise UnknownName("kind of modality", kind, (*KINDS, CROSS))
        if kind not in there:
            raise ConfigError(f"there is no corruption of kind {kind} yet; there is {', '.join(there)}")
    return [kind for kind in there if not kinds or kind in kinds]


# what is shown --------------------------------------------------------------------------------------------------------
def _entry(key: str, shown: Sequence[Shown]) -> Entry:
    operator = OPERATORS[key]
    about = cards.paragraphs(cards.plain(cards.docstring(operator)))
    parameters = list(cards.parameter_rows(operator))
    return Entry(key, operator, cards.flags(operator), parameters, about, cards.example(key), tuple(shown))


def _shown(made: Strip, rows: int) -> Shown:
    clean = made.clean
    if clean is None:
        return Shown(made, (), False)
    if made.labels:
        return Shown(made, tuple(_labels(made)), False)
    cross = made.sample.modality == ""
    source = Found(made.sample) if cross else None
    shown = list(range(len(clean))) if made.sample.ordered else made.order()
    if cross:  # from the row that is always hit to the one that never is
        shown = [shown[i * (len(shown) - 1) // max(2 * rows - 1, 1)] for i in range(min(2 * rows, len(shown)))]
    shown = shown[: 2 * rows if cross else rows]
    lines = tuple(_line(made, name, row, source) for row in shown for name in made.modalities)
    kinds = {made.sample.data.schema[name].kind for name in made.modalities}
    return Shown(made, lines, kinds == {"text"})


def _line(made: Strip, name: str, row: int, source: Found | None) -> Line:
    sample, clean = made.sample, made.clean
    if clean is None:
        raise AssertionError("a line has clean rows")
    index = int(clean.index[row])
    said = f"{name} of row {index}" if source is not None or len(made.modalities) > 1 else f"row {index}"
    span = reach(name, row, clean, [level.after for level in made.levels])
    cells = [described(piece(sample, name, row, clean, None, span), f"{said}, clean")]
    for level in made.levels:
        if level.after is None:
            cells.append(Piece("failed", level.failed, note=level.failed))
            continue
        try:
            shown = piece(sample, name, row, clean, level.after, span)
        except (ValueError, TypeError, IndexError) as error:  # what came out cannot be drawn
            shown = Piece("failed", "", note=f"cannot be shown: {error}")
        if source is not None:
            shown = replace(shown, note=_origin(made, name, row, level, source) or shown.note)
        cells.append(described(shown, f"{said}, {made.key} at severity {level.severity}"))
    return Line(said, tuple(cells))


def _origin(made: Strip, name: str, row: int, level: Level, source: Found) -> str:
    """Where an input that is another one now comes from."""
    clean, after = made.clean, level.after
    if clean is None or after is None:
        return ""
    index, now = int(clean.index[row]), after.inputs[name][row]
    found = source.source(now)
    if not found:
        return ""
    if (name, index) in found:
        return "as it was"
    other, where = min(found, key=lambda each: (each[1] != index, each[0] != name))  # the nearest explanation
    task = made.sample.data.schema.task
    label = ""
    if hasattr(task, "names") and made.sample.data.target is not None:
        position = int((made.sample.data.index == where).nonzero()[0, 0])
        label = f", label {_label(made, made.sample.data.target[position])}"
    if where == index:
        return f"what was {other}"
    return f"{'' if other == name else f'{other} '}of row {where}{label}"


def _labels(made: Strip) -> Iterator[Line]:
    clean = made.clean
    if clean is None or clean.target is None:
        return
    for row in range(min(LABELS, len(clean))):
        before = _label(made, clean.target[row])
        said = f"label of row {int(clean.index[row])}"
        cells = [Piece("label", f"{said}: {before}", words=(("equal", before),))]
        for level in made.levels:
            if level.after is None or level.after.target is None:
                cells.append(Piece("failed", level.failed, note=level.failed))
                continue
            now = _label(made, level.after.target[row])
            kind = "equal" if now == before else "insert"
            cells.append(Piece("label", f"{said} at severity {level.severity}: {now}", words=((kind, now),)))
        yield Line(said, tuple(cells))


def _label(made: Strip, target: Any) -> str:
    names: tuple[str, ...] = getattr(made.sample.data.schema.task, "names", ())
    if names and target.ndim == 0:
        return names[int(target)]
    if names:
        return ", ".join(n for n, on in zip(names, target.tolist(), strict=True) if on) or "none"
    return ", ".join(f"{float(v):.4g}" for v in target.reshape(-1))


# writing --------------------------------------------------------------------------------------------------------------
def write_gallery(
    path: str | os.PathLike[str],
    *,
    data: Dataset | None = None,
    kinds: Sequence[str] | None = None,
    rows: int = 2,
    seed: int = 0,
    severities: Sequence[int] = SEVERITIES,
    command: str | None = None,
    progress: bool | None = None,
) -> list[str]:
    """Write the gallery: one file that opens without a network. An interruption leaves no half of it.

    Args:
        path: of the HTML file. data, kinds, rows, seed, severities, progress: see :func:`gallery`.
        command: how to make it again, as a shell would read it.

    Returns:
        What failed, one sentence an operator and severity; the page shows it too.

    Raises:
        ImportError: Jinja2, Pillow or soundfile is not installed.
        ConfigError: the path is a folder, or see :func:`gallery`.
    """
    target = Path(path)
    if target.is_dir():
        raise ConfigError(f"{target} is a folder; a gallery is one file, such as {target / 'gallery.html'}")
    template = _template()
    sections = gallery(data=data, kinds=kinds, rows=rows, seed=seed, severities=severities, progress=progress)
    failures = [failed for section in sections for entry in section.entries for failed in entry.failures]
    page = template.render(
        sections=sections,
        failures=failures,
        severities=list(severities),
        seed=seed,
        rows=rows,
        count=sum(len(section.entries) for section in sections),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=kintsugi.__version__,
        command=command,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, page.encode())
    return failures


def _template() -> Any:
    try:
        import jinja2
        import PIL.Image  # noqa: F401  pictures
    except ImportError as error:
        raise ImportError(
            f"a gallery needs {error.name}, which is not installed: pip install 'kintsugi-ml[report]'"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(TEMPLATE)
