# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The site: ``make docs``, or ``sphinx-build -W docs docs/_build/html`` with requirements/docs.txt installed."""

import json
import logging
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmengine.logging import MMLogger  # noqa: E402

from mmpanet import __version__  # noqa: E402

MMLogger.get_instance('mmengine').setLevel(logging.ERROR)

project = 'mmpanet'
author = 'mmpanet contributors'
copyright = author
version = release = __version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode', 'sphinx.ext.mathjax']
exclude_patterns = ['_build', 'results/*.md']  # tables that the pages hold already
myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 4

autodoc_typehints = 'none'  # types stand in the docstrings
autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True, 'show-inheritance': True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # the fields of a NamedTuple are listed twice otherwise

html_theme = 'furo'
html_title = f'mmpanet {version}'
html_theme_options = {'navigation_with_keys': True}
pygments_style = 'friendly'

# Pages that lie elsewhere in the repository, where its readers look for them: they are copied when the site is built.
COPIED = {
    ROOT / 'configs' / 'panet' / 'README.md': 'copied/panet.md',
    ROOT / 'configs' / 'ablation' / 'README.md': 'copied/ablation.md',
    ROOT / 'configs' / 'cityscapes' / 'README.md': 'copied/cityscapes.md',
    ROOT / 'CONTRIBUTING.md': 'copied/contributing.md',
    ROOT / 'CHANGELOG.md': 'copied/changelog.md',
    ROOT / 'docs' / 'tutorial.ipynb': 'copied/tutorial.md',
}
# A folder of the repository, as a link's target, is the page about it.
PAGES = {
    ROOT / 'configs' / 'official': ROOT / 'docs' / 'official.md',
    **{path.parent: path for path in COPIED if path.name == 'README.md'},
}
LINK = re.compile(r'(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)')


def copy_pages(app):
    for source, target in COPIED.items():
        path = Path(app.srcdir, target)
        path.parent.mkdir(exist_ok=True)
        text = source.read_text(encoding='utf-8')
        if source.suffix == '.ipynb':
            text = notebook_page(json.loads(text))
        text = relink(text, source.parent, path.parent)
        if not path.is_file() or path.read_text(encoding='utf-8') != text:  # else it is built anew every time
            path.write_text(text, encoding='utf-8')


def notebook_page(notebook):
    """A notebook as a page: its cells, without outputs."""
    cells = [(cell['cell_type'], ''.join(cell['source'])) for cell in notebook['cells']]
    download = 'This page is a notebook: [tutorial.ipynb](./tutorial.ipynb).'
    pages = [f'```python\n{source}\n```' if kind == 'code' else source for kind, source in cells]
    return '\n\n'.join([pages[0], download, *pages[1:]]) + '\n'


def relink(text, folder, new_folder):
    """Text of a page in ``folder``, as a page of the site in ``new_folder``: links to copied pages go to the copies."""

    def new_target(match):
        target = (folder / match[1]).resolve()
        target = PAGES.get(target, target)
        if target in COPIED and not match[1].startswith('./'):  # that is the file itself
            target = ROOT / 'docs' / COPIED[target]
        return relative(target, new_folder)

    return LINK.sub(new_target, text)


def relative(path, folder):
    common = max(
        (parent for parent in (folder, *folder.parents) if parent in (path, *path.parents)),
        key=lambda parent: len(parent.parts),
    )
    return '/'.join(['..'] * len(folder.relative_to(common).parts) + list(path.relative_to(common).parts))


def relink_page(app, name, content):
    page = Path(app.env.doc2path(name))
    # A pattern in a list of pages may stand for one that is still to be written.
    content[0] = re.sub(
        r'^(\w+)\*\n',
        lambda match: match[0] if [*page.parent.glob(match[1] + '*.md')] else '',
        content[0],
        flags=re.MULTILINE,
    )
    if page.suffix == '.md' and page.relative_to(app.srcdir).as_posix() not in COPIED.values():
        content[0] = relink(content[0], page.parent, page.parent)


def setup(app):
    app.connect('builder-inited', copy_pages)
    app.connect('source-read', relink_page)
