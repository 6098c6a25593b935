"""The file of a new method, written from a template: a small working method of its kind, with a card to fill in."""

from __future__ import annotations

import keyword
import re
import shlex
from pathlib import Path
from string import Template

from kintsugi.core.card import LEAVES, Card
from kintsugi.core.catalogue import METHODS
from kintsugi.core.errors import ConfigError, UnknownName
from kintsugi.io.files import replace_file
from kintsugi.testing.style_tools import checkout, owner_of_name, tidy

KINDS = ("model", "restorer", "strategy", "monitor")
SLUG = re.compile(r"[a-z][a-z0-9_]{1,39}")
PLACEHOLDER = "say: "  # what a text of a template begins with, until its author writes it
BIBTEX = """\
@inproceedings{%s,
  author = {Family, Given and Family, Given},
  title = {Title as Published},
  booktitle = {Venue},
  year = {2024},
}"""


def write_method(key: str, leaf: str, kind: str = "model", out: str | Path | None = None) -> Path:
    """Write the file of a new method, in the style of the project it goes to; nothing that exists is changed.

    Args:
        key: of the method: small letters, digits and underscores.
        leaf: its place in the taxonomy, such as ``missing/alignment``.
        kind: model, restorer, strategy or monitor.
        out: the file; default: its place in the source checkout.

    Raises:
        UnknownName: no such leaf or kind. ConfigError: the key is no slug, is taken or is the name of a module, the file
            exists, or there is no source checkout and ``out`` is not given.
    """
    if keyword.iskeyword(key):
        raise ConfigError(f"{key!r} is a keyword of Python, so no module can be called so; choose another key")
    if not SLUG.fullmatch(key):
        raise ConfigError(f"{key!r} is no key: write 2 to 40 small letters, digits and underscores, the first a letter")
    if leaf not in LEAVES:
        raise UnknownName("leaf", leaf, LEAVES)
    if kind not in KINDS:
        raise UnknownName("kind of method", kind, KINDS)
    taken = owner_of_name(key)
    if taken:
        raise ConfigError(f"{key!r} is the name of {taken}, which would be imported in its place; choose another key")
    owner = METHODS.current(key)
    if owner in METHODS:
        place = METHODS.entries[owner].file if owner in METHODS.entries else METHODS[owner]
        before = "" if owner == key else f", which was called {key} before"
        raise ConfigError(f"there is a method {owner!r}{before}: {place}; choose another key")
    file = _place(key, leaf, out)
    if file.exists():
        raise ConfigError(f"{file} exists; choose another key or another --out, or remove it")
    template = Template((Path(__file__).parent / "method_templates" / f"{kind}.txt").read_text(encoding="utf-8"))
    name = "".join(word.capitalize() for word in key.split("_"))
    imperfection = "corrupted at test" if leaf.startswith("corrupted/") else "missing at test"
    content = template.substitute(key=key, cls=name, leaf=leaf, imperfection=imperfection)
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, content.encode())
    tidy(file.resolve())
    return file


def _place(key: str, leaf: str, out: str | Path | None) -> Path:
    if out is not None:
        if Path(out).suffix != ".py":
            raise ConfigError(f"--out {out}: a method is a Python file; let its name end in .py")
        return Path(out)
    folder = checkout()
    if folder is None:
        raise ConfigError(
            "kintsugi is installed as a package here; say where the file is to be written by --out FILE.py"
        )
    return folder / "src" / "kintsugi" / "methods" / leaf / f"{key}.py"


def next_steps(key: str, file: Path) -> str:
    """What the author of a new method does next, with a BibTeX entry to paste."""
    inside = file.resolve().is_relative_to(METHODS.home)
    plugin = "" if inside else f" --plugin {shlex.quote(str(file))}"
    references = METHODS.home / "references.bib" if inside else file.with_name("references.bib")
    return "\n".join(
        [
            f"{file}: a small method that works; it is yours to change.",
            f"1. Write the method, its ablation and its claims, and every text of the card that begins with {PLACEHOLDER!r}.",
            f"2. Paste the paper's entry into {references}{', where its key stands in order' * inside}:",
            "",
            BIBTEX % key,
            "",
            f"3. See whether it keeps its promises:  kintsugi check {key}{plugin}",
            f"4. See how firmly its claims hold:     kintsugi check {key}{plugin} --seeds 5 --record",
            f"5. Note its numbers:                   kintsugi golden {key}{plugin} --renew",
        ]
    )


def placeholders(card: Card, *docstrings: str | None) -> list[str]:
    """Fields of a card that still say what their template does; ``docstring`` for a docstring that does."""
    texts = {name: value if isinstance(value, tuple) else (value,) for name, value in vars(card).items()}
    left = [name for name, values in texts.items() if any(_unwritten(value) for value in values)]
    return left + ["docstring"] * any(_unwritten(text) for text in docstrings)


def _unwritten(text: object) -> bool:
    return isinstance(text, str) and text.strip().lower().startswith(PLACEHOLDER)
