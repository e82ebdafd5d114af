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
from pathlib import Path

import pytest
import yaml

import mmpanet
from mmpanet import requirements

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'mask-rcnn_r18_panet_shapes.py'
PARTS = {'PANetNeck', 'AdaptiveFeaturePooling', 'PANetShared2FCBBoxHead', 'PANetShared4Conv1FCBBoxHead',
         'FCFusionMaskHead', 'PANetRoIHead'}


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


def test_import_registers_the_parts_and_leaves_the_stack_alone():
    report = json.loads(run(sys.executable, '-c', IMPORT_REPORT, cwd=ROOT).splitlines()[-1])
    assert report['changed'] == [] and report['replaced'] == []
    assert set(report['added']) >= PARTS
    assert all(origin.split('.')[0] == 'mmpanet' for origin in report['added'].values()), report['added']


def test_import_needs_no_torchvision():
    run(sys.executable, '-c', 'import sys; sys.modules["torchvision"] = None; import mmpanet', cwd=ROOT)


@pytest.mark.parametrize('beyond, message', [('0.9', 'was not tried with mmdet'), ('99', None)])
def test_a_newer_stack_is_warned_of_and_not_refused(monkeypatch, recwarn, beyond, message):
    monkeypatch.setitem(requirements.REQUIREMENTS, 'mmdet', ('0.1', beyond, 'pip install mmdet'))
    requirements.check_requirements()
    texts = [str(warning.message) for warning in recwarn if 'was not tried' in str(warning.message)]
    assert len(texts) == (message is not None) and all(message in text for text in texts)


@pytest.mark.parametrize('module, minimum, message', [
    ('mmdet', '99', r'needs mmdet>=99, and \S+ is installed: how to mend it'),
    ('no_such_module', '1.0', 'needs no_such_module>=1.0, which is not installed: how to mend it'),
])
def test_a_missing_or_old_package_is_refused_by_name(monkeypatch, module, minimum, message):
    monkeypatch.setitem(requirements.REQUIREMENTS, module, (minimum, '100', 'how to mend it'))
    with pytest.raises(ImportError, match=message):
        requirements.check_requirements()


# What mim reads

def test_config_names_are_unique():
    """mim finds a config by its file name alone."""
    names = Counter(path.name for path in (ROOT / 'configs').rglob('*.py'))
    assert [name for name, count in names.items() if count > 1] == []


def test_model_index_names_configs_that_exist():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    metafiles = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('metafile.yml'))
    assert sorted(index['Import']) == metafiles
    for metafile in map(ROOT.joinpath, metafiles):
        content = yaml.safe_load(metafile.read_text())
        for model in content['Models']:
            assert (ROOT / model['Config']).is_file(), model
            assert model['Name'] == Path(model['Config']).stem


# The wheel

@pytest.fixture(scope='module')
def distributions(tmp_path_factory):
    """An sdist of the checkout as git sees it, and the wheel that is built from that sdist."""
    pytest.importorskip('build')
    folder = tmp_path_factory.mktemp('dist')
    checkout = folder / 'checkout'
    if (ROOT / '.git').exists():
        files = run('git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard', cwd=ROOT).split('\0')
        for name in filter(None, files):
            if (ROOT / name).is_file():
                (checkout / name).parent.mkdir(parents=True, exist_ok=True)
                (checkout / name).write_bytes((ROOT / name).read_bytes())
    else:
        checkout = ROOT
    run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', folder, checkout, cwd=folder)
    [sdist], [wheel] = folder.glob('*.tar.gz'), folder.glob('*.whl')
    return sdist, wheel


def shipped(folder):
    """The files of a folder of the checkout that belong into a wheel."""
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob('*')
            if path.is_file() and '__pycache__' not in path.parts}


def test_wheel_holds_the_package_and_what_mim_needs_and_no_more(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        names = set(wheel.namelist())
    in_mim = {name[len('mmpanet/.mim/'):] for name in names if name.startswith('mmpanet/.mim/')}
    assert in_mim <= shipped('configs') | shipped('tools') | {'model-index.yml'}
    assert {'model-index.yml', 'tools/train.py', 'tools/test.py', f'configs/shapes/{CONFIG}'} <= in_mim
    assert {name.split('/')[0] for name in names} == {'mmpanet', f'mmpanet-{mmpanet.__version__}.dist-info'}
    modules = {name for name in names if name.endswith('.py') and '/.mim/' not in name}
    assert modules <= shipped('mmpanet') and 'mmpanet/models/panet_neck.py' in modules


def test_sdist_holds_what_a_build_needs(distributions):
    with tarfile.open(distributions[0]) as sdist:
        names = {name.split('/', 1)[1] for name in sdist.getnames() if '/' in name}
    assert {'LICENSE', 'README.md', 'setup.py', 'setup.cfg', 'pyproject.toml', 'model-index.yml', 'tools/train.py',
            'requirements/runtime.txt', f'configs/shapes/{CONFIG}', 'tests/test_packaging.py'} <= names
    assert not any(name.startswith(('data/', 'work_dirs/', 'mmpanet/.mim')) for name in names)


def test_metadata(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        metadata = wheel.read(f'mmpanet-{mmpanet.__version__}.dist-info/METADATA').decode().split('\n\n')[0]
    lines = metadata.splitlines()
    assert f'Version: {mmpanet.__version__}' in lines and 'License: Apache-2.0' in lines
    required = {line.split(': ')[1].split(';')[0].strip() for line in lines
                if line.startswith('Requires-Dist') and 'extra ==' not in line}
    names = {name.split('<')[0].split('>')[0] for name in required}
    # mmcv must not be among them: pip would try to compile it, in isolation from torch, and fail
    assert names == {'torch', 'mmengine', 'mmdet', 'numpy'}
    assert {'mim', 'tests', 'docs'} == {line.split(': ')[1] for line in lines if line.startswith('Provides-Extra')}


# The installed wheel, outside the checkout

@pytest.fixture(scope='module')
def python(distributions, tmp_path_factory):
    """A Python that has the wheel installed and borrows everything else from the one that runs the tests."""
    pytest.importorskip('mim')
    env = tmp_path_factory.mktemp('env')
    run(sys.executable, '-m', 'venv', '--without-pip', env)
    [site_packages] = env.glob('lib/python*/site-packages')
    run(sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', '--target', site_packages,
        distributions[1])
    (site_packages / 'borrowed.pth').write_text(sysconfig.get_path('purelib') + '\n')
    return env / 'bin' / 'python'


@pytest.fixture(scope='module')
def mim(python, tmp_path_factory):
    """Runs mim in a folder of its own, with a few generated images in ``data/shapes``."""
    folder = tmp_path_factory.mktemp('user')
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    location = run(python, '-c', 'import mmpanet; print(mmpanet.__file__)', cwd=folder, env=env).strip()
    assert Path(location).is_relative_to(python.parents[1]), 'the tests must run the wheel, not the checkout'

    def call(*words):
        return run(python, '-W', 'ignore', '-m', 'mim', *words, cwd=folder, env=env)

    call('run', 'mmpanet', 'make_shapes', 'data/shapes', '--num-train', '4', '--num-val', '2', '--image-size', '128',
         '128')
    call.folder = folder
    return call


SHORT = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'train_dataloader.batch_size=2',
         'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
         'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
         'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']


def test_mim_run_and_search(mim):
    assert (mim.folder / 'data' / 'shapes' / 'val.json').is_file()
    assert f'configs/shapes/{CONFIG}' in mim('search', 'mmpanet')


@pytest.mark.slow
def test_mim_train_test_resume_and_gridsearch(mim):
    mim('train', 'mmpanet', CONFIG, '--work-dir', 'train', '--cfg-options', *SHORT)
    checkpoint = mim.folder / 'train' / 'epoch_1.pth'
    assert checkpoint.is_file()

    mim('test', 'mmpanet', CONFIG, '--checkpoint', checkpoint, '--work-dir', 'test', '--show-dir', 'pictures', '--out',
        'predictions.pkl', '--cfg-options', *SHORT)
    assert len(list(mim.folder.glob('test/*/pictures/*.*'))) == 2 and (mim.folder / 'predictions.pkl').is_file()
    mim('run', 'mmpanet', 'report_run', 'test')

    more = ['train_cfg.max_epochs=2', *SHORT[1:]]
    mim('train', 'mmpanet', CONFIG, '--work-dir', 'train', '--resume', '--cfg-options', *more)
    assert (mim.folder / 'train' / 'epoch_2.pth').is_file()
    assert 'resumed epoch: 1' in ''.join(path.read_text() for path in mim.folder.glob('train/*/*.log'))

    mim('gridsearch', 'mmpanet', CONFIG, '--work-dir', 'grid', '--search-args',
        '--optim_wrapper.optimizer.lr 1e-4 1e-3', '--cfg-options', *SHORT)
    assert len(list(mim.folder.glob('grid_search_*/epoch_1.pth'))) == 2
