# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What is shipped, what importing it changes, and that mim works from the installed wheel."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from repository import ROOT

import mmpanet
from mmpanet.utils import requirements

CONFIG = 'mask-rcnn_r18_panet_shapes.py'
PARTS = {
    'PANetNeck',
    'AdaptiveFeaturePooling',
    'PANetShared2FCBBoxHead',
    'PANetShared4Conv1FCBBoxHead',
    'FCFusionMaskHead',
    'PANetRoIHead',
}


def run(*command, cwd=None, **kwargs):
    result = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, **kwargs)
    assert result.returncode == 0, f'{command} failed:\n{result.stdout[-3000:]}\n{result.stderr[-5000:]}'
    return result.stdout


# Importing

IMPORT_REPORT = '''
import json, sys, warnings
warnings.simplefilter('ignore')
from mmdet.utils import register_all_modules
register_all_modules(init_default_scope=False)
import mmcv.ops, mmengine.runner
from mmengine.registry import Registry

STACK = ('mmdet', 'mmcv', 'mmengine')
modules = {name: module for name, module in sys.modules.items() if name.split('.')[0] in STACK}

def attributes():
    """Every attribute of the stack's modules and of the classes they define, by identity."""
    found = {}
    for name, module in modules.items():
        for key, value in list(vars(module).items()):
            found[name, key] = value
            if isinstance(value, type) and value.__module__ == name:
                found.update({(name, key, member): item for member, item in list(vars(value).items())})
    return found

def registered():
    registries = {id(value): value for value in before.values() if isinstance(value, Registry)}
    return {(registry.scope, registry.name, key): part.__module__
            for registry in registries.values() for key, part in registry.module_dict.items()}

before = attributes()
registered_before = registered()
import mmpanet
after, registered_after = attributes(), registered()

IGNORED = {'__abstractmethods__', '_abc_impl', '__subclasshook__', '__warningregistry__'}
print(json.dumps(dict(
    changed=[key for key, value in before.items()
             if key[-1] not in IGNORED and (key not in after or after[key] is not value)],
    added={key[-1]: origin for key, origin in registered_after.items() if key not in registered_before},
    replaced=[key for key, origin in registered_before.items() if registered_after.get(key) != origin])))
'''


def test_import_registers_the_parts_and_loaders_and_leaves_the_rest_of_the_stack_alone():
    report = json.loads(run(sys.executable, '-c', IMPORT_REPORT, cwd=ROOT).splitlines()[-1])
    # Checkpoints are read as data, by mmengine's own way to register loaders; see mmpanet/checkpoints/loader.py.
    assert report['changed'] == [['mmengine.runner.checkpoint', 'CheckpointLoader', '_schemes']]
    assert report['replaced'] == []
    assert set(report['added']) >= PARTS
    assert all(origin.split('.')[0] == 'mmpanet' for origin in report['added'].values()), report['added']


@pytest.mark.skipif(find_spec('torchvision') is None, reason='it is not installed, so all tests show it')
def test_import_needs_no_torchvision():
    run(sys.executable, '-c', 'import sys; sys.modules["torchvision"] = None; import mmpanet', cwd=ROOT)


@pytest.mark.parametrize('beyond, message', [('0.9', 'was not tested with mmdet'), ('99', None)])
def test_a_newer_stack_is_warned_of_and_not_refused(monkeypatch, recwarn, beyond, message):
    monkeypatch.setitem(requirements.REQUIREMENTS, 'mmdet', ('0.1', beyond, 'pip install mmdet'))
    requirements.check_requirements()
    texts = [str(warning.message) for warning in recwarn if 'was not tested' in str(warning.message)]
    assert len(texts) == (message is not None) and all(message in text for text in texts)


@pytest.mark.parametrize(
    'module, minimum, message',
    [
        ('mmdet', '99', r'needs mmdet>=99, and \S+ is installed: how to mend it'),
        ('no_such_module', '1.0', 'needs no_such_module>=1.0, which is not installed: how to mend it'),
    ],
)
def test_a_missing_or_old_package_is_refused_by_name(monkeypatch, module, minimum, message):
    monkeypatch.setitem(requirements.REQUIREMENTS, module, (minimum, '100', 'how to mend it'))
    with pytest.raises(ImportError, match=message):
        requirements.check_requirements()


# What mim reads


def test_config_names_are_unique():
    """mim finds a config by its file name alone."""
    names = Counter(path.name for path in (ROOT / 'configs').rglob('*.py'))
    assert [name for name, count in names.items() if count > 1] == []


def test_model_index_names_every_config():
    """``mim search mmpanet`` lists what the metafiles list."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    metafiles = {
        str(path.relative_to(ROOT)): yaml.safe_load(path.read_text())
        for path in (ROOT / 'configs').rglob('metafile.yml')
    }
    assert sorted(index['Import']) == sorted(metafiles)
    collections = {entry['Name'] for content in metafiles.values() for entry in content.get('Collections', [])}
    models = [model for content in metafiles.values() for model in content['Models']]
    assert {model['In Collection'] for model in models} == collections
    assert all(model['Name'] == Path(model['Config']).stem for model in models)
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts}
    assert {model['Config'] for model in models} == configs


# The wheel


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    """A copy of the checkout as git sees it, to build and install from."""
    if not (ROOT / '.git').exists():
        return ROOT
    folder = tmp_path_factory.mktemp('checkout')
    files = run('git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard', cwd=ROOT).split('\0')
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope='module')
def distributions(checkout, tmp_path_factory):
    """An sdist, and the wheel that is built from that sdist."""
    pytest.importorskip('build')
    folder = tmp_path_factory.mktemp('dist')
    run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', folder, checkout, cwd=folder)
    [sdist], [wheel] = folder.glob('*.tar.gz'), folder.glob('*.whl')
    return sdist, wheel


def shipped(folder):
    """The files of a folder of the checkout that belong into a wheel."""
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


def test_wheel_holds_the_package_and_what_mim_needs_and_no_more(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        names = set(wheel.namelist())
    in_mim = {name[len('mmpanet/.mim/') :] for name in names if name.startswith('mmpanet/.mim/')}
    # The second copy is for onedl-mim, which looks beside the first file of pip's sorted RECORD.
    metadata = f'mmpanet-{mmpanet.__version__}.dist-info'
    first_folder = sorted([f'{metadata}/INSTALLER', *names])[0].split('/')[0]
    assert {name[len(first_folder) + 6 :] for name in names if name.startswith(f'{first_folder}/.mim/')} == in_mim
    assert in_mim == shipped('configs') | shipped('tools') | {'model-index.yml'}
    assert {'model-index.yml', 'tools/train.py', 'tools/test.py', f'configs/shapes/{CONFIG}'} <= in_mim
    assert {name.split('/')[0] for name in names} == {'mmpanet', metadata}
    modules = {name for name in names if name.endswith('.py') and '/.mim/' not in name}
    assert modules == {name for name in shipped('mmpanet') if '/.mim/' not in name}


def test_sdist_holds_what_a_build_needs(distributions):
    with tarfile.open(distributions[0]) as sdist:
        names = {name.split('/', 1)[1] for name in sdist.getnames() if '/' in name}
    assert {
        'LICENSE',
        'README.md',
        'setup.py',
        'setup.cfg',
        'pyproject.toml',
        'model-index.yml',
        'tools/train.py',
        'requirements/runtime.txt',
        f'configs/shapes/{CONFIG}',
        'tests/test_packaging.py',
    } <= names
    assert not any(name.startswith(('data/', 'work_dirs/', 'mmpanet/.mim')) for name in names)


def test_metadata(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        metadata = wheel.read(f'mmpanet-{mmpanet.__version__}.dist-info/METADATA').decode().split('\n\n')[0]
    lines = metadata.splitlines()
    assert f'Version: {mmpanet.__version__}' in lines and 'License: Apache-2.0' in lines
    required = {
        line.split(': ')[1].split(';')[0].strip()
        for line in lines
        if line.startswith('Requires-Dist') and 'extra ==' not in line
    }
    names = {name.split('<')[0].split('>')[0] for name in required}
    # mmcv must not be among them: pip would try to compile it, in isolation from torch, and fail.
    # mmdet and mmengine must not either: pip would install OpenMMLab's packages over the modules of the forks.
    assert names == {'torch', 'filelock', 'numpy', 'tabulate'}
    extras = {line.split(': ')[1] for line in lines if line.startswith('Provides-Extra')}
    assert extras == {'openmmlab', 'onedl', 'mim', 'tests', 'docs', 'deploy'}


# The installed wheel, outside the checkout


def make_environment(folder):
    """A Python and its site-packages that borrow everything from the environment that runs the tests."""
    run(sys.executable, '-m', 'venv', '--without-pip', folder)
    [site_packages] = folder.glob('lib/python*/site-packages')
    (site_packages / 'borrowed.pth').write_text(sysconfig.get_path('purelib') + '\n')
    return folder / 'bin' / 'python', site_packages


@pytest.fixture(scope='module')
def python(distributions, tmp_path_factory):
    """A Python that has the wheel installed."""
    pytest.importorskip('mim')
    python, site_packages = make_environment(tmp_path_factory.mktemp('env'))
    run(
        sys.executable,
        '-m',
        'pip',
        'install',
        '--quiet',
        '--no-deps',
        '--no-index',
        '--target',
        site_packages,
        distributions[1],
    )
    return python


@pytest.fixture(scope='module')
def mim(python, tmp_path_factory):
    """Runs mim in a folder of its own, with a few generated images in ``data/shapes``."""
    folder = tmp_path_factory.mktemp('user')
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    code = "import importlib.util; print(importlib.util.find_spec('mmpanet').origin)"
    location = run(python, '-c', code, cwd=folder, env=env).strip()
    assert python.parents[1] in Path(location).parents, 'the tests must run the wheel, not the checkout'

    def call(*words):
        return run(python, '-W', 'ignore', '-m', 'mim', *words, cwd=folder, env=env)

    call(
        'run',
        'mmpanet',
        'make_shapes',
        'data/shapes',
        '--num-train',
        '4',
        '--num-val',
        '2',
        '--image-size',
        '128',
        '128',
    )
    call.folder = folder
    call.python = lambda code: run(python, '-W', 'ignore', '-c', code, cwd=folder, env=env)
    return call


SHORT = [
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
]


def test_mim_run_and_search(mim):
    assert (mim.folder / 'data' / 'shapes' / 'val.json').is_file()
    assert f'configs/shapes/{CONFIG}' in mim('search', 'mmpanet')


INFER = """
import importlib.util, pathlib
from mmdet.apis import DetInferencer
package = pathlib.Path(importlib.util.find_spec('mmpanet').origin).parent
inferencer = DetInferencer(str(package / '.mim/configs/shapes' / {config!r}), 'train/epoch_1.pth', device='cpu')
image = next(pathlib.Path('data/shapes').rglob('*.png'), None) or next(pathlib.Path('data/shapes').rglob('*.jpg'))
print(len(inferencer(str(image), no_save_vis=True)['predictions']))
"""


@pytest.mark.slow
def test_mim_train_test_resume_and_gridsearch(mim):
    mim('train', 'mmpanet', CONFIG, '--work-dir', 'train', '--cfg-options', *SHORT)
    checkpoint = mim.folder / 'train' / 'epoch_1.pth'
    assert checkpoint.is_file()

    mim(
        'test',
        'mmpanet',
        CONFIG,
        '--checkpoint',
        checkpoint,
        '--work-dir',
        'test',
        '--show-dir',
        'pictures',
        '--out',
        'predictions.pkl',
        '--cfg-options',
        *SHORT,
    )
    assert len(list(mim.folder.glob('test/*/pictures/*.*'))) == 2 and (mim.folder / 'predictions.pkl').is_file()
    mim('run', 'mmpanet', 'report_run', 'test')
    assert mim.python(INFER.format(config=CONFIG)).splitlines()[-1] == '1'

    more = ['train_cfg.max_epochs=2', *SHORT[1:]]
    mim('train', 'mmpanet', CONFIG, '--work-dir', 'train', '--resume', '--cfg-options', *more)
    assert (mim.folder / 'train' / 'epoch_2.pth').is_file()
    assert 'resumed epoch: 1' in ''.join(path.read_text() for path in mim.folder.glob('train/*/*.log'))

    mim(
        'gridsearch',
        'mmpanet',
        CONFIG,
        '--work-dir',
        'grid',
        '--search-args',
        '--optim_wrapper.optimizer.lr 1e-4 1e-3',
        '--cfg-options',
        *SHORT,
    )
    assert len(list(mim.folder.glob('grid_search_*/epoch_1.pth'))) == 2


# The editable install that `make` makes


@pytest.mark.slow
def test_editable_install_is_seen_by_mim_and_leaves_without_a_trace(checkout, tmp_path):
    pytest.importorskip('mim')
    python, site_packages = make_environment(tmp_path / 'env')
    run(python, checkout / 'tools' / 'install' / 'editable.py', cwd=tmp_path)
    location = run(python, '-c', 'import mmpanet; print(mmpanet.__file__)', cwd=tmp_path).strip()
    assert Path(location).resolve() == checkout / 'mmpanet' / '__init__.py'
    assert CONFIG in run(python, '-W', 'ignore', '-m', 'mim', 'search', 'mmpanet', cwd=tmp_path)
    # Again: pip takes out what the first time left, the link too.
    run(python, checkout / 'tools' / 'install' / 'editable.py', cwd=tmp_path)
    run(python, '-m', 'pip', 'uninstall', '--yes', 'mmpanet', cwd=tmp_path)
    assert not list(site_packages.glob('*mmpanet*'))
    assert (checkout / 'mmpanet' / '__init__.py').is_file()
