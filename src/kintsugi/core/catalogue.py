"""Which methods there are, read from the text of their files: no method is imported before it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from kintsugi.core.card import WORLDS, Card
from kintsugi.core.card_text import CardText, cards_of, fault, read_cards, source_of
from kintsugi.core.errors import ConfigError, KintsugiError, UnknownName

HOME = Path(__file__).parent.parent / "methods"
GROUP = "kintsugi.methods"  # of entry points: ``key = "package.module:Class"``


@dataclass
class _Scan:
    """What one look at all files gave: key -> text of a card, file or entry point -> why it cannot be used."""

    entries: dict[str, CardText] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def read(self, file: Path, module: str) -> bool:
        """Take the cards of a file; one that is broken gives none. True: it holds cards, or is broken."""
        try:
            source = source_of(file)
            texts = cards_of(source, file, module)
            for text in texts:
                self._take(text)
            why = fault(file, source) if texts else ""
        except KintsugiError as error:
            texts, why = [], str(error)
        if why:
            self._drop(file, why)
        return bool(texts or why)

    def _take(self, text: CardText) -> None:
        for key in (text.card.key, *text.card.formerly):
            other = self.entries.get(key) or next((e for e in self.entries.values() if key in e.card.formerly), None)
            if other is None:
                continue
            if text.file.stem == key != other.file.stem:  # a copy of a file does not take its place
                self._drop(other.file, _taken(key, text.file))
            else:
                raise ConfigError(_taken(key, other.file))
        self.entries[text.card.key] = text

    def _drop(self, file: Path, why: str) -> None:
        self.problems[str(file)] = why
        self.entries = {key: text for key, text in self.entries.items() if text.file != file}


def _taken(key: str, file: Path) -> str:
    return f"the key {key!r} is that of {file}; choose another"


class Catalogue(Mapping[str, type[Any]]):
    """Key -> class of every method. A class is imported when it is first asked for, and its file alone.

    Methods are found in this library, in packages that name an entry point of the group ``kintsugi.methods``, in files that
    were given to :meth:`load_plugin`, and wherever a class was registered by its decorator.

    A file that cannot be read is a :attr:`problems` entry and harms no other.
    """

    def __init__(self, home: Path = HOME, package: str = "kintsugi.methods") -> None:
        self.home, self.package = home, package
        self._classes: dict[str, type[Any]] = {}
        self._plugins: dict[Path, _Plugin] = {}
        self._scan: _Scan | None = None
        self._lock = threading.RLock()  # one looks at the files, and others that ask meanwhile wait for what it finds

    # what there is ---------------------------------------------------------------------------------------------------
    @property
    def entries(self) -> dict[str, CardText]:
        """Key -> card, module and file of what was found by its text."""
        return self._looked().entries

    @property
    def problems(self) -> dict[str, str]:
        """File (or entry point) -> why no method of it can be used."""
        return dict(self._looked().problems)

    def _looked(self) -> _Scan:
        with self._lock:
            if self._scan is None:
                scan = _Scan()
                self._look_at_home(scan)
                _look_at_entry_points(scan)
                self._scan = scan  # only a whole one: an interruption leaves none
            return self._scan

    def _look_at_home(self, scan: _Scan) -> None:
        for file in sorted(self.home.rglob("*.py")):
            parts = file.relative_to(self.home).with_suffix("").parts
            if any(part.startswith(("_", ".")) for part in parts) or not file.is_file():
                continue
            if not all(part.isidentifier() for part in parts):
                scan.problems[str(file)] = "its name is none that Python can import; rename or remove it"
            elif not scan.read(file, ".".join((self.package, *parts))):
                scan.problems[str(file)] = (
                    "it registers no method; put @register(Card(...)) above a class, or begin its name with _"
                )

    def __getitem__(self, key: str) -> type[Any]:
        if key not in self._classes:
            key = self.current(key)
        if key not in self._classes:
            self._import(self._entry(key))
        return self._classes[key]

    def card(self, key: str) -> Card:
        """The card of a method; a method that was not imported yet stays so.

        Raises:
            UnknownName: there is no such method. ConfigError: its file cannot be used.
        """
        key = self.current(key)
        if key in self._classes:
            card: Card = self._classes[key].card
            return card
        return self._entry(key).card

    def current(self, key: str) -> str:
        """The key of today: some cards name keys that they had before."""
        if key in self._classes or key in self.entries:
            return key
        cards = [text.card for text in self.entries.values()] + [cls.card for cls in self._classes.values()]
        return next((card.key for card in cards if key in card.formerly), key)

    def _entry(self, key: str) -> CardText:
        if key in self.entries:
            return self.entries[key]
        for place, why in self.problems.items():
            if Path(place).stem == key or place.startswith(f"entry point {key} ="):
                raise ConfigError(f"method {key!r} cannot be used: {place}: {why}")
        raise UnknownName("method", key, self)

    def _import(self, text: CardText) -> None:
        key = text.card.key
        try:
            importlib.import_module(text.module)
        except KintsugiError:
            raise
        except (Exception, SystemExit) as error:  # whatever is wrong with one file
            raise ConfigError(f"method {key!r} cannot be used: {text.file}: {_because(error, text.file)}") from error
        if key not in self._classes:
            raise ConfigError(
                f"{text.file} holds the card of {key!r} but registers no such method; put @register above its class"
            )

    def __contains__(self, key: object) -> bool:
        return key in self._classes or key in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes.keys() | self.entries.keys()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def names(self, pattern: str = "*", task: str | None = None, premise: str | None = None) -> list[str]:
        """Keys whose key or leaf (``missing/*``) matches the glob, that solve the task, and whose card names the premise.

        Args:
            pattern: glob over keys, leaves and both. task: key. premise: one of ``kintsugi.core.card.WORLDS``.

        Raises:
            UnknownName: there is no such premise.
        """
        if premise is not None and premise not in WORLDS:
            raise UnknownName("premise", premise, WORLDS)
        cards = [self.card(key) for key in self]
        return [
            c.key for c in cards
            if any(fnmatchcase(name, pattern) for name in (c.key, c.leaf, f"{c.leaf}/{c.key}"))
            and (task is None or task in c.tasks) and (premise is None or premise in c.worlds)
        ]  # fmt: skip

    def of_module(self, module: str) -> list[str]:
        """Keys of the methods that a module registers, by name."""
        keys = {key for key, cls in self._classes.items() if cls.__module__ == module}
        return sorted(keys | {key for key, text in self.entries.items() if text.module == module})

    # what is added ---------------------------------------------------------------------------------------------------
    def add(self, cls: type[Any], card: Card) -> None:
        """A class under its card; called by :func:`~kintsugi.core.methods.register`.

        Raises:
            ConfigError: another class has this key, or the card in its file cannot be read without running the file.
        """
        module = sys.modules.get(cls.__module__)
        file = Path(getattr(module, "__file__", None) or "")
        entry = self.entries.get(card.key)
        other = self._classes.get(card.key)
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(f"two methods have the key {card.key!r}: {other!r} and {cls!r}; rename one of them")
        if entry is not None and entry.module != cls.__module__:
            raise ConfigError(
                f"the key {card.key!r} is that of {entry.file} already; give {cls!r} another one, and its file that name"
            )
        if entry is None and (file.is_relative_to(self.home) or file in self._plugins):
            raise ConfigError(
                f"the card of {card.key!r} cannot be read from the text of {file}: "
                f"{self.problems.get(str(file), 'write @register(Card(...)) with literals at the top of the file')}"
            )
        self._classes[card.key] = cls

    def load_plugin(self, path: str | Path) -> tuple[str, ...]:
        """Run a file of one's own that registers methods; their keys. The same file is run once.

        Only this call runs a file: no saved model, suite or result does.

        Raises:
            ConfigError: no such file, no card in it, a key that exists, it raises, or it has changed since it was run.
        """
        file = Path(path).expanduser().resolve()
        with self._lock:
            try:
                if file.suffix != ".py" or not file.is_file():
                    raise ConfigError("there is no such Python file; give one that registers methods")
                if file in self._plugins:
                    return self._plugins[file].unchanged(file)
                return self._load(file)
            except KintsugiError as error:
                raise ConfigError(f"plugin {path}: {error}") from error

    def _load(self, file: Path) -> tuple[str, ...]:
        module = _module_of(file)
        texts = read_cards(file, module)
        if not texts:
            raise ConfigError("it registers no method: it has no @register(Card(...)) at its top level")
        if module in sys.modules:
            raise ConfigError(f"another plugin is called {file.name} too; rename one of them")
        for text in texts:
            for key in (text.card.key, *text.card.formerly):
                today = self.current(key)
                if today in self:
                    entry = self.entries.get(today)
                    raise ConfigError(
                        _taken(key, Path(self._classes[today].__module__) if entry is None else entry.file)
                    )
        plugin = _Plugin(tuple(text.card.key for text in texts), source_of(file))
        self.entries.update({text.card.key: text for text in texts})
        self._plugins[file] = plugin
        try:
            _run(file, module)
            absent = [key for key in plugin.keys if key not in self._classes]
            if absent:
                raise ConfigError(f"it holds the card of {absent[0]!r} but registers no such method")
        except BaseException as error:
            self.forget_plugin(file)
            if isinstance(error, KintsugiError) or not isinstance(error, Exception | SystemExit):
                raise
            raise ConfigError(f"it cannot be used: {_because(error, file)}") from error
        return plugin.keys

    def forget_plugin(self, path: str | Path) -> None:
        """Take a plugin's methods back, so that the file can be run again after it was changed."""
        file = Path(path).expanduser().resolve()
        with self._lock:
            plugin = self._plugins.pop(file, None)
            for key in () if plugin is None else plugin.keys:
                self.entries.pop(key, None)
                self._classes.pop(key, None)
            sys.modules.pop(_module_of(file), None)

    @property
    def plugins(self) -> tuple[Path, ...]:
        """Files that were given to :meth:`load_plugin`; other processes of a run are given them too."""
        return tuple(self._plugins)


@dataclass(frozen=True)
class _Plugin:
    """The keys of a plugin, and its text when it was run."""

    keys: tuple[str, ...]
    text: str

    def unchanged(self, file: Path) -> tuple[str, ...]:
        """The keys, if the file is as it was."""
        if source_of(file) != self.text:
            raise ConfigError(
                "it has changed since it was run, and what was run is still in use; start Python anew, or call "
                "kg.methods.forget_plugin(file) first"
            )
        return self.keys


def _module_of(plugin: Path) -> str:
    return f"kintsugi_plugin_{plugin.stem}"


def _run(file: Path, module: str) -> None:
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[module] = made
    spec.loader.exec_module(made)


def _because(error: BaseException, file: Path) -> str:
    """An error of somebody's file in one line, with the place in that file."""
    if isinstance(error, ModuleNotFoundError):
        beside = error.name is not None and file.with_name(f"{error.name}.py").exists()
        more = (
            "; the file beside it is not found, since a plugin is one file: install both as a package" if beside else ""
        )
        return f"it needs the package {error.name!r}, which is not installed{more}"
    if isinstance(error, EOFError) or "marshal data" in str(error):
        return f"what Python keeps of it compiled is damaged ({error}); delete {file.parent / '__pycache__'}"
    place = ""
    if isinstance(error, SyntaxError):
        place = f" in line {error.lineno}"
    elif error.__traceback__ is not None:
        trace = error.__traceback__
        while trace.tb_next is not None:
            trace = trace.tb_next
        place = f" in line {trace.tb_lineno} of {Path(trace.tb_frame.f_code.co_filename).name}"
    return f"{type(error).__name__}{place}: {error}"


def _look_at_entry_points(scan: _Scan) -> None:
    """In the order of their names, so that two machines with the same packages find the same."""
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        module, _, name = (part.strip() for part in point.value.partition(":"))
        place = f"entry point {point.name} = {point.value!r}"
        file = _file_of(module)
        if file is None:
            scan.problems[place] = "there is no such module; install its package again, or remove it"
            continue
        if str(file) not in scan.problems and file not in {text.file for text in scan.entries.values()}:
            scan.read(file, module)
        entry = scan.entries.get(point.name)
        if str(file) in scan.problems:
            continue
        if entry is None or entry.file != file:
            scan.problems[place] = (
                f"{file} holds no card with key {point.name!r}; name an entry point by the key, and the module in which its "
                "class stands"
            )
        elif name and not re.search(rf"^(?:class\s+)?{re.escape(name)}\b", source_of(file), re.MULTILINE):
            scan.problems[place] = f"{file} has no {name} at its top level"
            scan.entries = {key: text for key, text in scan.entries.items() if key != point.name}


def _file_of(module: str) -> Path | None:
    """Where a module is written; no package of it is imported."""
    top, *rest = module.split(".")
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(top)
        for place in (spec.submodule_search_locations or []) if spec and rest else []:
            for file in (Path(place, *rest).with_suffix(".py"), Path(place, *rest, "__init__.py")):
                if file.is_file():
                    return file
        if spec and not rest and spec.origin and spec.origin.endswith(".py"):
            return Path(spec.origin)
    return None


METHODS = Catalogue()
card = METHODS.card
list_methods = METHODS.names
load_plugin = METHODS.load_plugin
forget_plugin = METHODS.forget_plugin
