"""Which methods there are, read from the text of their files: no method is imported before it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from kintsugi.core.card import Card
from kintsugi.core.card_text import CardText, fault, read_cards
from kintsugi.core.errors import ConfigError, KintsugiError, UnknownName

HOME = Path(__file__).parent.parent / "methods"
GROUP = "kintsugi.methods"  # of entry points: ``key = "package.module:Class"``


class Catalogue(Mapping[str, type[Any]]):
    """Key -> class of every method. A class is imported when it is first asked for, and its file alone.

    Methods are found in this library, in packages that name an entry point of the group ``kintsugi.methods``, in files that
    were given to :meth:`load_plugin`, and wherever a class was registered by its decorator.

    A file that cannot be read is a :attr:`problems` entry and harms no other.
    """

    def __init__(self, home: Path = HOME, package: str = "kintsugi.methods") -> None:
        self.home, self.package = home, package
        self._classes: dict[str, type[Any]] = {}
        self._plugins: dict[Path, tuple[str, ...]] = {}
        self._found: dict[str, CardText] | None = None
        self._problems: dict[str, str] = {}

    # what there is ---------------------------------------------------------------------------------------------------
    @property
    def entries(self) -> dict[str, CardText]:
        """Key -> card, module and file of what was found by its text."""
        if self._found is None:
            self._found = {}
            for file in sorted(self.home.rglob("*.py")):
                if not file.name.startswith("_"):
                    parts = file.relative_to(self.home).with_suffix("").parts
                    self._read(file, ".".join((self.package, *parts)))
            self._read_entry_points()
        return self._found

    @property
    def problems(self) -> dict[str, str]:
        """File (or entry point) -> why no method of it can be used."""
        self.entries  # noqa: B018 - which finds them
        return dict(self._problems)

    def _read(self, file: Path, module: str) -> None:
        assert self._found is not None
        before = len(self._found)
        try:
            for text in read_cards(file, module):
                other = self._found.get(text.card.key)
                if other is not None:
                    raise ConfigError(f"the key {text.card.key!r} is that of {other.file} already; choose another")
                self._found[text.card.key] = text
            why = fault(file)
            if not why and len(self._found) == before:
                why = "it registers no method; put @register(Card(...)) above a class, or begin its name with _"
        except KintsugiError as error:
            why = str(error)
        if why:
            self._problems[str(file)] = why
            for key in [key for key, text in self._found.items() if text.file == file]:
                del self._found[key]

    def _read_entry_points(self) -> None:
        assert self._found is not None
        for point in entry_points(group=GROUP):
            module = point.value.partition(":")[0].strip()
            file = _file_of(module)
            name = f"entry point {point.name} = {point.value!r}"
            if file is None:
                self._problems[name] = "there is no such module; install its package again, or remove it"
            elif file not in {text.file for text in self._found.values()} and str(file) not in self._problems:
                self._read(file, module)
            if file is not None and str(file) not in self._problems and point.name not in self._found:
                self._problems[name] = f"{file} holds no card with key {point.name!r}; the name has to be a key"

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
        for file, why in self._problems.items():
            if Path(file).stem == key or file.startswith(f"entry point {key} ="):
                raise ConfigError(f"method {key!r} cannot be used: {file}: {why}")
        raise UnknownName("method", key, self)

    def _import(self, text: CardText) -> None:
        key = text.card.key
        try:
            importlib.import_module(text.module)
        except KintsugiError:
            raise
        except Exception as error:  # whatever is wrong with one file
            raise ConfigError(f"method {key!r} cannot be used: {text.file}: {_because(error)}") from error
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

    def names(self, pattern: str = "*", task: str | None = None) -> list[str]:
        """Keys whose key or leaf (``missing/*``) matches the glob, and that solve the task."""
        cards = [self.card(key) for key in self]
        return [
            c.key for c in cards
            if any(fnmatchcase(name, pattern) for name in (c.key, c.leaf, f"{c.leaf}/{c.key}"))
            and (task is None or task in c.tasks)
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
                f"{self._problems.get(str(file), 'write @register(Card(...)) with literals at the top of the file')}"
            )
        self._classes[card.key] = cls

    def load_plugin(self, path: str | Path) -> tuple[str, ...]:
        """Run a file of one's own that registers methods; their keys. The same file is run once.

        Only this call runs a file: no saved model, suite or result does.

        Raises:
            ConfigError: no such file, no card in it, a key that exists, or it raises.
        """
        file = Path(path).resolve()
        if file in self._plugins:
            return self._plugins[file]
        if not file.is_file():
            raise ConfigError(f"plugin {path}: there is no such file; give a Python file that registers methods")
        module = f"kintsugi_plugin_{file.stem}"
        texts = read_cards(file, module)
        if not texts:
            raise ConfigError(f"plugin {path} registers no method: it has no @register(Card(...)) at its top level")
        if module in sys.modules:
            raise ConfigError(f"plugin {path}: another plugin is called {file.name} too; rename one of them")
        for text in texts:
            if text.card.key in self:
                owner = self.entries[text.card.key].file if text.card.key in self.entries else self[text.card.key]
                raise ConfigError(f"plugin {path}: the key {text.card.key!r} is that of {owner}; choose another")
        self.entries.update({text.card.key: text for text in texts})
        keys = tuple(text.card.key for text in texts)
        self._plugins[file] = keys
        try:
            _run(file, module)
            absent = [key for key in keys if key not in self._classes]
            if absent:
                raise ConfigError(f"plugin {path} holds the card of {absent[0]!r} but registers no such method")
        except BaseException as error:
            self.forget_plugin(file)
            if isinstance(error, KintsugiError) or not isinstance(error, Exception):
                raise
            raise ConfigError(f"plugin {path} cannot be used: {_because(error)}") from error
        return keys

    def forget_plugin(self, path: str | Path) -> None:
        """Take a plugin's methods back."""
        file = Path(path).resolve()
        for key in self._plugins.pop(file, ()):
            self.entries.pop(key, None)
            self._classes.pop(key, None)
        sys.modules.pop(f"kintsugi_plugin_{file.stem}", None)

    @property
    def plugins(self) -> tuple[Path, ...]:
        """Files that were given to :meth:`load_plugin`; other processes of a run are given them too."""
        return tuple(self._plugins)


def _run(file: Path, module: str) -> None:
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[module] = made
    spec.loader.exec_module(made)


def _because(error: Exception) -> str:
    """An error of somebody's file in one line, with the place in that file."""
    if isinstance(error, ModuleNotFoundError):
        return f"it needs the package {error.name!r}, which is not installed"
    place = ""
    if isinstance(error, SyntaxError):
        place = f" in line {error.lineno}"
    elif error.__traceback__ is not None:
        trace = error.__traceback__
        while trace.tb_next is not None:
            trace = trace.tb_next
        place = f" in line {trace.tb_lineno} of {Path(trace.tb_frame.f_code.co_filename).name}"
    return f"{type(error).__name__}{place}: {error}"


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
