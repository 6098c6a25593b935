"""Where everything of a suite's file is, so that an error says its place: a file and a line, or a setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kintsugi.core.errors import ConfigError, KintsugiError
from kintsugi.io.yaml_lines import line


class Located(ConfigError):
    """An error that says where already."""


class Places:
    """Where everything of a file is, for errors.

    Args:
        name: of the file. node: its root. given: dotted setting -> the location that it set.
    """

    def __init__(self, name: str, node: Any, given: Mapping[str, tuple[Any, ...]]) -> None:
        self.name, self.node, self.given = name, node, given

    def said(self, *location: Any) -> str:
        """The setting that a value comes from, or the file and the line."""
        for setting, place in self.given.items():
            if location[: len(place)] == place:
                return ": ".join(
                    [f"--set {setting}", *([_dotted(location[len(place) :])] if location[len(place) :] else [])]
                )
        return f"{self.name}, line {line(self.node, location)}: {_dotted(location)}"

    @contextmanager
    def at(self, *location: Any) -> Iterator[None]:
        """Errors inside get this place."""
        try:
            yield
        except Located:
            raise
        except KintsugiError as error:
            raise self.wrong(str(error), *location) from error

    def wrong(self, what: str, *location: Any) -> Located:
        """An error with this place, to raise."""
        return Located(f"{self.said(*location)}: {what}")


def _dotted(location: Sequence[Any]) -> str:
    return ".".join(map(str, location))
