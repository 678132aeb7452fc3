"""The site that `make docs` builds: these pages, those beside bundles and data, and the library's from its docstrings.

Its source folder is the repository's root, so that links between pages are the same here and in a checkout.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

import trct_monai

project = "trct_monai"
author = "the trct_monai authors"
project_copyright = author
version = release = trct_monai.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
root_doc = "docs/index"
source_suffix = {".md": "markdown", ".rst": "restructuredtext", ".ipynb": "markdown"}
include_patterns = [
    "*.md",
    "docs/**",
    "data/README.md",
    "benchmarks/README.md",
    "examples/*/README.md",
    "bundles/*/docs/README.md",
    "bundles/*/models/small/README.md",
]
exclude_patterns = ["docs/templates"]
templates_path = [str(Path(__file__).with_name("templates"))]

myst_heading_anchors = 4
default_role = "py:obj"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autosummary_ignore_module_all = True  # a name has its page where it is defined
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"trct_monai {release}"
html_copy_source = False


def read_notebook(app: Sphinx, page: str, source: list[str]) -> None:
    """A notebook as Markdown, its code as listings: outputs are not kept in the repository."""
    if Path(app.env.doc2path(page)).suffix == ".ipynb":
        cells = [("".join(cell["source"]), cell["cell_type"]) for cell in json.loads(source[0])["cells"]]
        source[0] = "\n\n".join(f"```python\n{text}\n```" if kind == "code" else text for text, kind in cells)


def resolve_public_name(app: Sphinx, env: Any, node: Any, text: nodes.Element) -> nodes.Element | None:
    """A link to a name that a package hands on, such as `trct_monai.losses.EdgeLoss`, leads to where it is defined."""
    module, _, name = node.get("reftarget", "").rpartition(".")
    if node.get("refdomain") != "py" or not module.startswith("trct_monai"):
        return None
    try:
        thing = getattr(import_module(module), name)
        target = f"{thing.__module__}.{thing.__qualname__}"
    except (ImportError, AttributeError):
        return None
    found: nodes.Element | None = env.get_domain("py").resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], target, node, text
    )
    return found


def setup(app: Sphinx) -> None:
    app.connect("source-read", read_notebook)
    app.connect("missing-reference", resolve_public_name)
