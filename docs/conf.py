"""Settings of the documentation site: `make docs` builds it, offline, and every warning is an error."""

import sys
from pathlib import Path

from lfm_tasks import __version__

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "lfm-atlas"
author = "The lfm-atlas contributors"
project_copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "generated_reference",
]
exclude_patterns = ["_extensions"]
smartquotes = False  # --option stays --option

# Headings are link targets as on code hosts: page.md#some-heading.
myst_heading_anchors = 4
# tests/docs/test_notebooks.py runs the notebooks and compares what they print; the build shows the stored outputs.
nb_execution_mode = "off"
autodoc_typehints = "none"  # the sections of the docstrings name types and shapes
autodoc_member_order = "bysource"
# Single backticks in docstrings are links where the name can be imported, and names elsewhere.
default_role = "autolink"
numpydoc_show_class_members = False

nitpicky = True
nitpick_ignore_regex = [("py:obj", r"[\w.]+")]  # names in docstrings that can be imported and are not on the site

html_theme = "pydata_sphinx_theme"
html_title = "lfm-atlas"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto"}
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "logo": {"text": "lfm-atlas"},
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
