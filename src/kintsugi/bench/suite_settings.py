"""Settings of a suite: values that go before those of the file, as ``--set`` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from kintsugi.bench.suite_file import LimitsEntry, SuiteFile, keyed, listed
from kintsugi.bench.suite_options import is_path, label_of, options_of, resolved
from kintsugi.bench.suite_trainer import trainer_fields
from kintsugi.core.errors import ConfigError, UnknownName


def apply_settings(
    values: Mapping[Any, Any], settings: Mapping[str, Any]
) -> tuple[dict[Any, Any], dict[str, tuple[Any, ...]]]:
    """The values with the settings in them, and the location that each setting set.

    Args:
        values: of the file; they stay as they are. settings: by dotted name.

    Raises:
        UnknownName: no such setting.
        ConfigError: a setting of a part of something that has none.
    """
    changed = deepcopy(dict(values))
    given: dict[str, tuple[Any, ...]] = {}
    for name, value in sorted(settings.items(), key=lambda item: "." in item[0]):  # whole keys first
        if name in SuiteFile.model_fields:
            changed[name], given[name] = value, (name,)
            continue
        head, _, rest = name.partition(".")
        if (head, rest) in ((h, f) for h, known in inner_settings().items() for f in known):
            inside = changed.setdefault(head, {})
            if not isinstance(inside, dict):
                raise ConfigError(f"--set {name}: {head} is {inside!r} and has no parts")
            inside[rest], given[name] = value, (head, rest)
            continue
        place, option = _dataset_option(changed, name)
        _set_option(changed["datasets"], place, option, value)
        given[name] = ("datasets", place, *((option,) if option in ("file", "columns") else ("options", option)))
    return changed, given


def inner_settings() -> dict[str, list[str]]:
    """Keys of the file whose parts are settings too, with these parts."""
    return {"trainer": list(trainer_fields()), "limits": list(LimitsEntry.model_fields)}


def _dataset_option(values: dict[Any, Any], name: str) -> tuple[int, str]:
    """Which data set, and which option of it, a setting means."""
    entries = listed(values.get("datasets")) or []
    values["datasets"] = entries
    found: dict[str, tuple[int, str]] = {}
    for place, entry in enumerate(entries):
        entry = keyed(entry)
        if isinstance(entry, dict):
            label, options = label_of(entry), options_of(str(entry.get("key", "")))
            for option in options if entry.get("key") else ("file", "columns"):
                found[f"{label}.{option}"] = (place, option)
    if name not in found:
        inner = [f"{head}.{one}" for head, known in inner_settings().items() for one in known]
        raise UnknownName("setting", name, [*SuiteFile.model_fields, *inner, *found])
    return found[name]


def _set_option(entries: list[Any], place: int, option: str, value: Any) -> None:
    entry = dict(keyed(entries[place]))
    if entry.get("key"):
        if is_path(entry["key"], option) and isinstance(value, str):
            value = resolved(Path(), value)
        options = entry.get("options")
        entry["options"] = {**(options if isinstance(options, dict) else {}), option: value}
    else:
        entry[option] = resolved(Path(), str(value))
    entries[place] = entry
