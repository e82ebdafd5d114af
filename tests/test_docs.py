# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The documentation: links lead somewhere, code is code, commands exist, the site is built, the notebook runs."""

import ast
import json
import re
import subprocess
import sys

import pytest
import torch
import yaml
from mmengine.config import Config
from repository import ROOT

import mmpanet
from mmdet.registry import HOOKS, MODELS, TRANSFORMS
from mmpanet.utils.model_building import without_downloads

DOCS = ROOT / 'docs'
NOTEBOOK = DOCS / 'tutorial.ipynb'
PAGES = sorted(
    [*ROOT.glob('*.md'), *DOCS.glob('*.md'), *(DOCS / 'api').glob('*.md'), *(ROOT / 'configs').glob('*/README.md')]
)
BLOCK = re.compile(r'^```([\w{}-]*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LINK = re.compile(r'\]\(([^)\s]+)\)')


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(language):
    return [(page, match[2]) for page in PAGES for match in BLOCK.finditer(page.read_text()) if match[1] == language]


def commands():
    """(page, words) of every command line in the pages, continuation lines joined, comments left out."""
    found = []
    for language in ('bash', 'shell'):
        for page, block in blocks(language):
            for line in block.replace('\\\n', ' ').splitlines():
                words = line.split('#')[0].split()
                if words:
                    found.append((page, words))
    return found


def anchor(heading):
    """The anchor of a heading, by the rule of GitHub and of MyST."""
    text = re.sub(r'[^\w\- ]', '', re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).lower())
    return text.strip().replace(' ', '-')


def anchors(page):
    text = BLOCK.sub('', page.read_text())
    return {anchor(heading) for heading in re.findall(r'^#+ (.*)$', text, re.MULTILINE)}


def text_of(page):
    if page.suffix == '.ipynb':
        return '\n'.join(''.join(cell['source']) for cell in json.loads(page.read_text())['cells'])
    return BLOCK.sub('', page.read_text())


def test_there_is_something_to_look_at():
    assert len(PAGES) > 15 and len(blocks('python')) > 5 and len(commands()) > 30


@pytest.mark.parametrize('page', [*PAGES, NOTEBOOK], ids=name_of)
def test_links_lead_somewhere(page):
    dead = []
    for link in LINK.findall(text_of(page)):
        if re.match(r'[a-z]+:', link):
            continue
        path, _, heading = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (heading and heading not in anchors(target)):
            dead.append(link)
    assert not dead


def test_every_page_is_in_the_index():
    toctrees = [match[2] for match in BLOCK.finditer((DOCS / 'index.md').read_text()) if match[1] == '{toctree}']
    listed = set(re.findall(r'^([\w/-]+)[*]?$', '\n'.join(toctrees), re.MULTILINE))
    pages = {page.stem for page in DOCS.glob('*.md')} - {'index'}
    assert pages <= listed, f'docs/index.md does not list {sorted(pages - listed)}'
    api = set(re.findall(r'^\w+$', (DOCS / 'api' / 'index.md').read_text(), re.MULTILINE))
    assert {page.stem for page in (DOCS / 'api').glob('*.md')} - {'index'} <= api


def code_of(page):
    """Everything on a page that is set as code, in blocks and in lines, without what is written by a command."""
    text = page.read_text()
    return [*re.findall(r'`([^`\n]+)`', BLOCK.sub('', text)), *(match[2] for match in BLOCK.finditer(text))]


def named_files(page):
    """The files of the repository that a page names: not those of its own results, and no placeholders such as NAME."""
    folders = r'(?:\.dev_scripts|configs|docs|mmpanet|requirements|tests|tools)'
    names = re.findall(rf'(?<![\w./-]){folders}/[\w./*{{}},-]*[\w*/}}]', '\n'.join(code_of(page)))
    return [name for name in names if not re.search(r'[A-Z]{2}|_build|\.mim', name) or 'README' in name]


def braces(name):
    """The names that a shell makes of one with braces, as in ``{a,b}.py``."""
    match = re.search(r'\{([^{}]*)\}', name)
    if match is None:
        return [name]
    return [one for word in match[1].split(',') for one in braces(name[: match.start()] + word + name[match.end() :])]


@pytest.mark.parametrize('page', [page for page in PAGES if page.name != 'CHANGELOG.md'], ids=name_of)
def test_files_and_modules_exist(page):
    dead = [one for name in named_files(page) for one in braces(name) if not any(ROOT.glob(one))]
    for name in re.findall(r'(?<![\w.])mmpanet(?:\.[A-Za-z_]\w*)+', page.read_text()):
        module = ROOT
        for part in name.split('.'):
            module = module / part
        attribute = module.name
        owner = next(
            (path for path in (module.parent / '__init__.py', module.parent.with_suffix('.py')) if path.is_file()), None
        )
        is_module = module.is_dir() or module.with_suffix('.py').is_file()
        if not is_module and (owner is None or attribute not in owner.read_text()):
            dead.append(name)
    assert not dead


def test_python_is_python():
    for page, block in blocks('python'):
        try:
            ast.parse(block)
        except SyntaxError as error:
            pytest.fail(f'{name_of(page)}: {error}\n{block}')


@pytest.mark.parametrize(
    'page, block',
    [
        pytest.param(page, block, id=name_of(page))
        for page, block in blocks('python')
        if block.startswith("_base_ = 'mmdet::")
    ],
)
def test_configs_in_the_pages_are_built(page, block, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(block)
    cfg = Config.fromfile(path)
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    assert type(model.neck).__name__ == 'PANetNeck'


PARTS_OF_CONFIGS = ('model = dict', 'train_pipeline = ', 'custom_hooks = ', "_base_ = './")


@pytest.mark.parametrize(
    'page, block',
    [
        pytest.param(page, block, id=name_of(page))
        for page, block in blocks('python')
        if block.startswith(PARTS_OF_CONFIGS)
    ],
)
def test_parts_of_configs_in_the_pages_fit_the_whole(page, block, tmp_path):
    """Each is a child of the config in the README, whose names of types and arguments must all be known."""
    [whole] = [one for where, one in blocks('python') if where.name == 'README.md' and one.startswith('_base_')]
    (tmp_path / 'whole.py').write_text(whole)
    child = tmp_path / 'child.py'
    child.write_text("_base_ = './whole.py'\n" + re.sub(r'^_base_ = .*\n', '', block))
    cfg = Config.fromfile(child)
    cfg.model = without_downloads(cfg.model)
    model = MODELS.build(cfg.model)
    assert type(model.neck).__name__ == 'PANetNeck'
    if 'backbone=' in block:
        assert [len(one[0]) for one in model.backbone(torch.zeros(1, 3, 64, 64))] == cfg.model.neck.in_channels
    if 'classes = ' in block:
        assert model.roi_head.bbox_head.num_classes == model.roi_head.mask_head.num_classes == len(cfg.classes)
        for split in ('train', 'val', 'test'):
            dataset = cfg[f'{split}_dataloader'].dataset
            assert dataset.metainfo.classes == cfg.classes and dataset.ann_file in ('train.json', 'val.json')
    for step in cfg.train_pipeline:
        TRANSFORMS.build(step)
    for hook in cfg.get('custom_hooks', []):
        HOOKS.build(hook)


def make_targets():
    return set(re.findall(r'^([a-z-]+):.*## ', (ROOT / 'Makefile').read_text(), re.MULTILINE))


def options_of(tool):
    """What a tool's parser is given, its own and what it takes from the package."""
    source = tool.read_text()
    for _ in range(2):  # those of a tool may take theirs from others
        for module in set(re.findall(r'^from (mmpanet[\w.]*argument\w*) import', source, re.MULTILINE)):
            source += (ROOT / (module.replace('.', '/') + '.py')).read_text()
    return set(re.findall(r"'(--[\w-]+)'", source))


def test_commands_exist():
    configs = {path.name for path in (ROOT / 'configs').glob('*/*.py')}
    tools = {path.stem: path for path in (ROOT / 'tools').rglob('*.py')}
    wrong = []
    for page, words in commands():
        line = f'{name_of(page)}: {" ".join(words)}'
        words = [word for word in words if '=' not in word or word.startswith('--')]
        if not words:
            continue
        if words[0] == 'make':
            wrong += [line for word in words[1:] if word not in make_targets()]
        tool = None
        if len(words) > 1 and words[0] == 'python' and words[1].startswith('tools/'):
            tool = ROOT / words[1]
        elif words[:3] == ['mim', 'run', 'mmpanet']:
            tool = tools.get(words[3], ROOT / words[3])
        elif words[:3] in (['mim', 'train', 'mmpanet'], ['mim', 'test', 'mmpanet']) and words[3].endswith('.py'):
            wrong += [line] if words[3] not in configs else []
        if tool is not None:
            if not tool.is_file():
                wrong.append(line)
                continue
            used = {word.split('=')[0] for word in words[2:] if word.startswith('--')}
            wrong += [f'{line}: {option}' for option in used - options_of(tool)]
        wrong += [line for word in words if re.match(r'configs/.*\.py$', word) and not (ROOT / word).is_file()]
    assert not wrong, '\n'.join(wrong)


def test_the_readme_shows_what_the_pages_show():
    """AP with its spread stands in the tables of results, and seconds and parameters in those of the benchmark."""
    readme = (ROOT / 'README.md').read_text()
    spreads = re.findall(r'\d+\.\d ± \d\.\d', readme)
    pages = ''.join((DOCS / name).read_text() for name in ('results.md', 'results_tables.md'))
    assert len(spreads) > 10 and set(spreads) <= set(re.findall(r'\d+\.\d ± \d\.\d', pages))
    benchmark = (DOCS / 'benchmarks.md').read_text()
    inference, training = (
        benchmark.split(header)[1].split('\n\n')[0] for header in ('| inference | s |', '| training | s |')
    )
    avx2, zen4 = (part.split('\n\n')[0] for part in benchmark.split('| model | inference, s |')[1:])
    costs = readme.split('| model | per image: full AVX512 |')[1].split('\n\n')[0]
    for model in ('fpn', 'fpn-s2-fast', 'panet', 'panet-plain'):
        row = rf'^\| {model} \| (\d+\.\d+) \|'
        of_zen4, of_avx2 = (re.search(rf'{row} .*? \| (\d+\.\d+) \|', one, re.MULTILINE) for one in (zen4, avx2))
        seconds = [
            re.search(row, inference, re.MULTILINE)[1], of_zen4[1], of_avx2[1],
            re.search(row, training, re.MULTILINE)[1], of_zen4[2], of_avx2[2],
        ]  # fmt: skip
        assert f'| {" | ".join(f"{float(value):.2f}" for value in seconds)} |' in costs, model
    assert len(readme.splitlines()) <= 130


def test_citation_names_this_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert str(citation['version']) == mmpanet.__version__
    assert citation['license'] == 'Apache-2.0'
    assert re.search(rf'^## {re.escape(mmpanet.__version__)}\b', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)


def test_license():
    """The license itself, and its name in every module of the package."""
    text = (ROOT / 'LICENSE').read_text()
    assert 'Apache License' in text and 'Version 2.0, January 2004' in text
    header = '# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.\n'
    modules = [path for path in (ROOT / 'mmpanet').rglob('*.py') if '.mim' not in path.parts]
    without = [name_of(path) for path in modules if not path.read_text().startswith(header)]
    assert len(modules) > 20 and not without


def test_notebook_is_without_outputs():
    for cell in json.loads(NOTEBOOK.read_text())['cells']:
        assert not cell.get('outputs') and cell.get('execution_count') is None
        if cell['cell_type'] == 'code':
            ast.parse(''.join(cell['source']))


@pytest.mark.slow
def test_site_is_built_without_warnings(tmp_path):
    command = [
        sys.executable,
        '-m',
        'sphinx',
        '-q',
        '-W',
        '--keep-going',
        '-d',
        tmp_path / 'doctrees',
        DOCS,
        tmp_path / 'html',
    ]
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-5000:]
    html = (tmp_path / 'html' / 'api' / 'models.html').read_text()
    assert 'id="mmpanet.models.PANetNeck"' in html and 'id="mmpanet.models.PANetRoIHead"' in html
    assert (tmp_path / 'html' / 'copied' / 'tutorial.html').is_file()


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # The AP that the notebook's last line of the training shows, in a form to read.
    notebook.cells.append(
        nbformat.v4.new_code_cell(
            "print('AP50', *(float(metrics[f'val/coco/{name}'].current()) for name in ('bbox_mAP_50', 'segm_mAP_50')))"
        )
    )
    NotebookClient(
        notebook, timeout=600, kernel_name='python3', resources=dict(metadata=dict(path=str(tmp_path)))
    ).execute()
    pictures = [
        output for cell in notebook.cells for output in cell.get('outputs', []) if 'image/png' in output.get('data', {})
    ]
    assert len(pictures) == 1
    words = notebook.cells[-1].outputs[0]['text'].split()
    assert words[0] == 'AP50' and float(words[1]) > 0.4 and float(words[2]) > 0.3
