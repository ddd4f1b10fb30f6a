"""Settings of the documentation site: `make docs` builds it in docs/_build/html.

A build makes no request to other hosts, and its pages load nothing from any: mathematics is written as
MathML, which browsers display by themselves, and `tools/docs/check_site.py` checks the result.
"""

import re
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

from vaekit import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

project = "vaekit"
author = "the authors of vaekit"
project_copyright = author
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "myst_nb",
]
exclude_patterns = ["_build"]
default_role = "literal"
html_theme = "furo"
html_title = f"vaekit {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_math_renderer = "mathml"
pygments_style = "tango"
copybutton_prompt_text = "$ "

# Links within the site are checked by every build, with anchors, and by the linkcheck builder; those to other
# hosts are checked for their form only, by tools/docs/check_site.py.
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
linkcheck_ignore = [r"https?://"]

# Docstrings are in Google's style; the types are those of the annotations.
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"

# Notebooks run at every build, so that their outputs are those of the present code.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True


def mathml(tex: str, displayed: bool) -> str:
    """MathML of LaTeX, spaced as TeX does it; a command that is not known fails the build."""
    text = tex2mathml(tex, as_block=displayed)
    text = re.sub(r"(<mi>[a-z]{2,}</mi>)(?!\s*<mo[^>]*>\()", r'\1<mspace width="0.17em"/>', text)
    return text.replace("<mo>‖</mo>", '<mo stretchy="false">‖</mo>')


def visit_math(self: "HTML5Translator", node: nodes.Element) -> None:
    self.body.append(mathml(node.astext(), displayed=False))
    raise nodes.SkipNode


def visit_displayed_math(self: "HTML5Translator", node: nodes.Element) -> None:
    self.body.append(f'<div class="math">{mathml(node.astext(), displayed=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: "Sphinx") -> None:
    """Register what this site adds to Sphinx."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displayed_math, None))
