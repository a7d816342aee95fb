"How Sphinx makes the book out of the pages that build.py wrote."
from docutils import nodes
from math_core import LatexToMathML

project, author, copyright = "vad", "the vad authors", "the vad authors, Apache-2.0"
extensions = ["myst_nb"]
suppress_warnings = ["myst.header"] # a chapter may go from a title to a smaller one

nb_execution_mode = "off" # outputs are shown as they are committed
nb_ipywidgets_js = {}     # no widget manager, which would come from a network
nb_merge_streams = True
nb_code_prompt_show, nb_code_prompt_hide = "▸ Imports and preparations", "▾ Imports and preparations"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_url_schemes = dict(http=None, https=None, page="{{path}}") # page: one that Sphinx did not make

html_theme = "furo"
html_title = "vad"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_math_renderer = "mathml"
html_use_index = html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_show_search_summary = False # it fetches pages, which a browser forbids to a page from disk
html_permalinks_icon = "#"
html_theme_options = dict(
    light_css_variables={"color-brand-primary": "#0b5cad", "color-brand-content": "#0b5cad"},
    dark_css_variables={"color-brand-primary": "#7cb7ff", "color-brand-content": "#7cb7ff"},
)


def as_mathml(displayed):
    "-> what writes an equation in the browsers' own language for them: no script, no fonts to load"
    def visit(translator, node):
        converter = LatexToMathML()
        translator.body.append(converter.convert_with_local_state(node.astext(), displaystyle=displayed))
        raise nodes.SkipNode
    return visit


def setup(app):
    app.add_html_math_renderer("mathml", (as_mathml(False), None), (as_mathml(True), None))
    return dict(parallel_read_safe=True, parallel_write_safe=True)
