"""Settings of Sphinx. Nothing here needs a network: ``sphinx-build -W -q -b html docs docs/_build/html``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "ext"))

import kintsugi  # noqa: E402

project = "Kintsugi"
author = "The Kintsugi authors"
copyright = "2026, The Kintsugi authors"
release = version = kintsugi.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "docstrings",
    "api_pages",
    "method_pages",
    "markdown_pages",
    "glossary_page",
]
source_suffix = {".rst": "restructuredtext"}
exclude_patterns = ["_build", "ext", "examples"]
language = "en"
smartquotes = False
nitpicky = True

# Types of other libraries cannot be looked up offline; names of our own can, and an unknown one breaks the build.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(torch|nn|np|numpy|NDArray|pd|pandas|torchmetrics|sklearn|typing|types|collections|os|pathlib|abc|sqlite3|subprocess|multiprocessing|inspect)\b.*",
    ),
    (r"py:.*", r"(annotated_types|pydantic|ast|_thread)\b.*"),
    (
        r"py:.*",
        r"(Tensor|Generator|Optimizer|Self|Path|Any|Callable|Mapping|Sequence|Iterator|Iterable|Unpack|NoneType|hash)",
    ),
    (r"py:.*", r"kintsugi\..*\.[TPF]"),  # type variables
    (r"py:class", r".*\[.*"),  # a generic type that was cut at its first comma
    (
        r"py:class",
        r"(Keep|Asked|About|Numbers|Order|Gt|Ge|Le|MinLen|FieldInfo|PydanticUndefined|(.*\.)?Annotated|Unit|Floats|Bools|.*\._\w+(\.\w+)?)",
    ),  # aliases of types, private names
]
suppress_warnings = ["ref.python"]  # two classes of one name: the link goes to either, and both say what they are

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autosummary_generate = False  # api_pages writes them: a function may be called as its module is
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 100
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"Kintsugi {release}"
html_static_path = ["_static"]
html_css_files = ["kintsugi.css"]
html_show_sourcelink = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#8a6100", "color-brand-content": "#8a6100"},
    "dark_css_variables": {"color-brand-primary": "#e5b94e", "color-brand-content": "#e5b94e"},
}
