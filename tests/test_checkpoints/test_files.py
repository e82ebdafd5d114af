# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Checkpoints are read as data, by every way into mmpanet and mmengine, and hostile ones are refused."""

import errno
import io
import pickle
import shutil
import tarfile
import tracemalloc
import zipfile
from collections import OrderedDict
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import BOMBS, CALLS, PICKLES, REBUILD, instructions, is_a_pickle, make_folder, save_pickle, storage
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OneCycleLR
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from tiny_training import make_data, run_tool, write_config
from torch import nn

from mmdet.apis import DetInferencer
from mmdet.models import SemiBaseDetector
from mmdet.registry import MODELS
from mmpanet.apis import load_inferencer
from mmpanet.checkpoints import loader
from mmpanet.checkpoints.files import LEGACY_MAGIC, LEGACY_VERSION, load_untrusted, save_checkpoint
from mmpanet.checkpoints.matching import weights_mismatch
from mmpanet.checkpoints.official_conversion import convert_file
from mmpanet.checkpoints.publishing import publish
from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import CheckpointError

FORMATS = [dict(), dict(_use_new_zipfile_serialization=False), dict(pickle_protocol=4), dict(pickle_protocol=5)]
FORMAT_NAMES = ['zip', 'before torch 1.6', 'protocol 4', 'protocol 5']


def same(read, written):
    """Equal in values and types, all the way down."""
    if isinstance(written, torch.Tensor):
        assert (read.dtype, read.shape, read.stride()) == (written.dtype, written.shape, written.stride())
        assert type(read) is type(written) and read.requires_grad == written.requires_grad
        assert torch.equal(read, written)
    elif isinstance(written, np.ndarray):
        assert read.dtype == written.dtype and (read == written).all()
    elif isinstance(written, HistoryBuffer):
        same(read.data, written.data)
        assert read.statistics('mean') == written.statistics('mean')
    else:
        assert type(read) is type(written)
        if isinstance(written, dict):
            assert list(read) == list(written)
            assert getattr(read, '_metadata', None) == getattr(written, '_metadata', None)
            same(list(read.values()), list(written.values()))
        elif isinstance(written, (list, tuple)):
            assert len(read) == len(written)
            for one, other in zip(read, written):
                same(one, other)
        else:
            assert read == written


@pytest.fixture
def content():
    """A checkpoint of a training, and all other kinds of data that a checkpoint may hold."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    hub = MessageHub('test_files')
    for loss in (3.0, np.float32(1.0), torch.tensor(0.5)):
        hub.update_scalar('train/loss', loss)
    for name, value in dict(
        array=np.arange(6, dtype=np.float32).reshape(2, 3), number=np.float64(0.25), names=np.array(['ab', 'c'])
    ).items():
        hub.update_info(name, value)
    base = torch.rand(4, 5)
    schedulers = [
        OneCycleLR(torch.optim.SGD(model.parameters(), 0.1), eta_max=0.2, total_steps=9, anneal_strategy=strategy)
        for strategy in ('cos', 'linear')
    ]
    return dict(
        param_schedulers=[scheduler.state_dict() for scheduler in schedulers],
        meta=dict(
            text='Müller',
            numbers=(1, 2.5, 10**30, True, None),
            sets=({1}, frozenset([2])),
            bytes=[b'\xff', bytearray(b'x')],
            z=1j,
        ),
        torch=[torch.Size([1, 2]), torch.device('cuda:1'), torch.float16],
        state_dict=model.state_dict(),
        optimizer=optimizer.state_dict(),
        message_hub=hub.state_dict(),
        views=[base, base.t(), base[1:3, ::2], base[0, 0], torch.empty(0, 3), nn.Parameter(torch.ones(2))],
        types=[base.to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.complex64, torch.bool, torch.uint8)],
    )


@pytest.mark.parametrize('how', FORMATS, ids=FORMAT_NAMES)
def test_what_is_read_is_what_was_written(content, how, tmp_path):
    torch.save(content, tmp_path / 'a.pth', **how)
    read = load_untrusted(tmp_path / 'a.pth')
    same(read, content)
    addresses = {tensor.untyped_storage().data_ptr() for tensor in read['views'][:4]}
    assert len(addresses) == 1  # they share their memory again
    if '_use_new_zipfile_serialization' not in how:
        same(load_untrusted(io.BytesIO((tmp_path / 'a.pth').read_bytes())), content)


@pytest.mark.parametrize('how', FORMATS, ids=FORMAT_NAMES)
def test_tensors_that_are_conjugated_or_negated_when_read(how, tmp_path):
    """torch writes the bytes of the tensor behind them, and a flag."""
    number = torch.tensor([1 + 2j, 3 - 1j])
    written = dict(conj=number.conj(), neg=number.clone().conj().imag)
    assert written['conj'].is_conj() and written['neg'].is_neg()
    torch.save(written, tmp_path / 'a.pth', **how)
    read = load_untrusted(tmp_path / 'a.pth')
    assert read['conj'].tolist() == [1 - 2j, 3 + 1j] and read['neg'].tolist() == [-2, 1]


@pytest.mark.skipif(not hasattr(torch, 'uint16'), reason='needs a torch whose dtypes have no storage of their own')
def test_dtypes_without_a_storage_of_their_own(tmp_path):
    torch.save(dict(a=torch.arange(5).to(torch.uint16)[1:]), tmp_path / 'a.pth')
    read = load_untrusted(tmp_path / 'a.pth')['a']
    assert read.dtype == torch.uint16 and read.to(torch.int64).tolist() == [1, 2, 3, 4]


def test_map_location(tmp_path):
    torch.save(dict(a=torch.ones(2)), tmp_path / 'a.pth')
    seen = []

    def locate(storage, location):
        seen.append(location)
        return storage

    for where in ('cpu', None, torch.device('cpu'), dict(cpu='cpu'), locate):
        assert load_untrusted(tmp_path / 'a.pth', where)['a'].tolist() == [1, 1]
    assert seen == ['cpu']
    # As a computer with a GPU writes it.
    tensor = (REBUILD, b'(', storage(location='cuda:0'), 0, (4,), (1,), False, None, b't', b'R')
    save_pickle(tmp_path / 'gpu.pth', instructions(b'}', 'a', *tensor, b's'))
    for where in ('cpu', torch.device('cpu'), {'cuda:0': 'cpu'}):
        read = load_untrusted(tmp_path / 'gpu.pth', where)['a']
        assert read.device.type == 'cpu' and read.tolist() == [1, 1, 1, 1]
    load_untrusted(tmp_path / 'gpu.pth', lambda storage, location: seen.append(location) or storage)
    assert seen == ['cpu', 'cuda:0']


@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.', 'module._orig_mod.', 'module.module.'])
def test_names_of_wrappers_are_left_out(prefix, tmp_path):
    """In one place, so that all tools read the same: mmengine leaves out one ``module.`` only."""
    state_dict = nn.Sequential(nn.BatchNorm2d(2)).state_dict()
    wrapped = OrderedDict((prefix + name, value) for name, value in state_dict.items())
    wrapped._metadata = OrderedDict((f'{prefix}{name}'.rstrip('.'), v) for name, v in state_dict._metadata.items())
    for checkpoint in (dict(state_dict=wrapped), wrapped, dict(model=wrapped)):
        torch.save(checkpoint, tmp_path / 'a.pth')
        read = load_untrusted(tmp_path / 'a.pth')
        read = read.get('state_dict', read.get('model', read))
        assert list(read) == list(state_dict)
        assert read._metadata['0'] == dict(version=2)
    torch.save(dict(state_dict={'module.a': torch.ones(1), 'b': torch.ones(1)}), tmp_path / 'a.pth')
    assert list(load_untrusted(tmp_path / 'a.pth')['state_dict']) == ['module.a', 'b']


@pytest.mark.parametrize('how', FORMATS, ids=FORMAT_NAMES)
@pytest.mark.parametrize('name', CALLS)
def test_hostile_content_is_refused(name, how, tmp_path):
    traces = tmp_path / 'traces'
    torch.save(dict(state_dict={}, meta=CALLS[name](traces)), tmp_path / 'a.pth', **how)
    with pytest.raises(CheckpointError, match='a.pth: is not read, because it holds'):
        load_untrusted(tmp_path / 'a.pth')
    assert not traces.exists()


@pytest.mark.parametrize('name', PICKLES)
def test_hostile_instructions_are_refused(name, tmp_path):
    traces = tmp_path / 'traces'
    content = PICKLES[name](traces)
    assert is_a_pickle(content)
    save_pickle(tmp_path / 'a.pth', content)
    before = dict(vars(HistoryBuffer)), HistoryBuffer._statistics_methods.copy()
    with pytest.raises(CheckpointError, match='a.pth: is (not read|no checkpoint)') as error:
        load_untrusted(tmp_path / 'a.pth')
    assert 'damaged' not in str(error.value)
    assert not traces.exists()
    assert (dict(vars(HistoryBuffer)), HistoryBuffer._statistics_methods) == before


@pytest.mark.parametrize('name', BOMBS)
def test_small_files_cannot_fill_the_memory(name, tmp_path):
    save_pickle(tmp_path / 'a.pth', BOMBS[name])
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match='a.pth: is (not read|no checkpoint|cut off)'):
            load_untrusted(tmp_path / 'a.pth')
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_lists_in_the_older_format_are_those_of_storages(tmp_path):
    """Lists that hold one another would be compared for years."""
    parts = pickle.dumps(LEGACY_MAGIC, 2), pickle.dumps(LEGACY_VERSION, 2), pickle.dumps(dict(little_endian=True), 2)
    chain = b']q\x000' + b''.join(b'](h%ch%ceq%c0' % (i, i, i + 1) for i in range(60)) + b'h%c' % 60
    (tmp_path / 'a.pth').write_bytes(b''.join(parts) + pickle.dumps({}, 2) + instructions(b'](', chain, chain, b'e'))
    with pytest.raises(CheckpointError, match='a.pth: is no checkpoint .*list of storages'):
        load_untrusted(tmp_path / 'a.pth')


def test_a_zip_archive_whose_files_share_their_bytes(tmp_path):
    torch.save(dict(a=torch.ones(10**5)), tmp_path / 'a.pth')
    content = (tmp_path / 'a.pth').read_bytes()
    with zipfile.ZipFile(tmp_path / 'a.pth', 'a') as archive:
        shared = next(info for info in archive.infolist() if info.filename.endswith('/data/0'))
        for key in range(1, 4):
            info = copy(shared)
            info.filename = info.filename[:-1] + str(key)
            archive.filelist.append(info)
            archive.NameToInfo[info.filename] = info
        archive._didModify = True
    assert (tmp_path / 'a.pth').stat().st_size < 2 * len(content)
    with pytest.raises(CheckpointError, match='files are larger than itself'):
        load_untrusted(tmp_path / 'a.pth')


def test_a_wide_tensor_is_a_view(tmp_path):
    """As ``torch.save`` writes ``x.expand(...)``, also one that is to be negated."""
    wide = dict(plain=torch.ones(1).expand(10**12), neg=(1j * torch.ones(1)).expand(10**12).conj().imag)
    torch.save(wide, tmp_path / 'a.pth')
    read = load_untrusted(tmp_path / 'a.pth')
    assert {name: (value.shape, value[-1].item()) for name, value in read.items()} == dict(
        plain=((10**12,), 1), neg=((10**12,), -1)
    )


def test_histories_of_older_versions_have_no_statistics(tmp_path, monkeypatch):
    with monkeypatch.context() as older:  # mmengine before 0.7.3
        fields = ('max_length', '_log_history', '_count_history')
        older.setattr(HistoryBuffer, '__getstate__', lambda self: {name: vars(self)[name] for name in fields})
        torch.save(dict(a=HistoryBuffer([1.0, 3.0], [1, 1])), tmp_path / 'a.pth')
    assert load_untrusted(tmp_path / 'a.pth')['a'].statistics('mean') == 2


def test_statistics_of_a_history_do_not_change_those_of_the_class(tmp_path):
    """Its own ``__setstate__`` would let a checkpoint exchange them for the process."""
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    HistoryBuffer._statistics_methods['mean'] = HistoryBuffer.max
    try:
        torch.save(dict(a=history), tmp_path / 'a.pth')
    finally:
        HistoryBuffer._statistics_methods['mean'] = HistoryBuffer.mean
    assert load_untrusted(tmp_path / 'a.pth')['a'].statistics('mean') == 2
    assert HistoryBuffer([1.0, 3.0], [1, 1]).statistics('mean') == 2


def torch_script(path):
    torch.jit.save(torch.jit.script(nn.ReLU()), str(path))


def old_tar(path):
    with tarfile.open(path, 'w') as archive:
        for name in ('storages', 'tensors', 'pickle'):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b'none'))


def compressed(path):
    torch.save(dict(a=torch.zeros(1000)), path)
    with zipfile.ZipFile(path) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def another_zip(path):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.txt', 'none')


@pytest.mark.parametrize(
    'write, message',
    [
        (torch_script, 'holds a TorchScript program'),
        (old_tar, 'is no checkpoint of torch.save'),
        (compressed, 'is no checkpoint of torch.save .*compressed'),
        (another_zip, 'is no checkpoint of torch.save .*data.pkl'),
        (lambda path: path.write_text('404: not found'), 'is no checkpoint of torch.save'),
        (lambda path: path.write_bytes(b''), 'is empty'),
        (lambda path: path.mkdir(), 'cannot be read: Is a directory'),
        (lambda path: None, 'cannot be read: No such file'),
        (lambda path: torch.save([1], path), 'holds a list'),
    ],
)
def test_other_files_are_not_called_damaged(write, message, tmp_path):
    write(tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=f'a.pth: .*{message}|a.pth: {message}') as error:
        load_untrusted(tmp_path / 'a.pth')
    assert 'damaged' not in str(error.value)


@pytest.mark.parametrize('how', FORMATS[:2], ids=FORMAT_NAMES[:2])
def test_damaged_files_are_called_damaged(how, tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(a=torch.zeros(1000)), path, **how)
    content = path.read_bytes()
    path.write_bytes(content[:-1500])
    with pytest.raises(CheckpointError, match='is cut off or damaged'):
        load_untrusted(path)
    if not how:  # the older format has no checksums
        changed = bytearray(content)
        changed[len(content) // 2] ^= 1
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match='is cut off or damaged.*CRC'):
            load_untrusted(path)


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """Data, the config of a small PANet and that of the same model with an FPN."""
    folder = tmp_path_factory.mktemp('project')
    data = make_data(folder / 'shapes', num_train=2, num_val=1, empty_fraction=0.0)
    config = write_config(folder / 'tiny.py', data)
    fpn = write_config(folder / 'fpn.py', data, "model['neck']['type'] = 'FPN'\n")
    model = MODELS.build(Config.fromfile(config).model)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1, iter=1)), folder / 'good.pth')
    return folder, config, fpn


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """URLs end in files of this folder."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))

    def download(url, path, *args, **kwargs):
        shutil.copy(tmp_path / url.rpartition('/')[2], path)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)


def pretrained(config, path):
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(path))
    MODELS.build(cfg.model).init_weights()


def resume(config, path, folder):
    run_tool('train', config, '--work-dir', folder / 'run', '--resume', path)


WAYS = {
    'train.py --resume': lambda config, fpn, path, folder: resume(config, path, folder),
    'load_from': lambda config, fpn, path, folder: run_tool(
        'train', config, '--work-dir', folder / 'run', '--cfg-options', f'load_from={path}'
    ),
    'test.py': lambda config, fpn, path, folder: run_tool('test', config, path, '--work-dir', folder / 'run'),
    'test.py with a URL': lambda config, fpn, path, folder: run_tool(
        'test', config, f'https://example.org/{path.name}', '--work-dir', folder / 'run'
    ),
    'image_demo.py': lambda config, fpn, path, folder: run_tool('image_demo', config, path, path.parent),
    'inferencer': lambda config, fpn, path, folder: load_inferencer(Config.fromfile(config), path, 'cpu'),
    "mmdet's inferencer": lambda config, fpn, path, folder: DetInferencer(str(config), str(path), device='cpu'),
    'swap_neck.py': lambda config, fpn, path, folder: run_tool(
        'swap_neck', fpn, '--checkpoint', path, '--out-checkpoint', folder / 'out.pth'
    ),
    'publish': lambda config, fpn, path, folder: publish(path, folder / 'out.pth'),
    'convert': lambda config, fpn, path, folder: convert_file(path, folder / 'out.pth'),
    'Pretrained': lambda config, fpn, path, folder: pretrained(config, path),
    'Pretrained with a URL': lambda config, fpn, path, folder: pretrained(config, f'http://example.org/{path.name}'),
    'load_checkpoint': lambda config, fpn, path, folder: load_checkpoint(nn.Linear(1, 1), str(path)),
    'export_onnx.py': lambda config, fpn, path, folder: run_tool(
        'export_onnx', config, path, '--out', folder / 'graphs'
    ),
}


def test_weights_that_the_model_renames_are_its_own():
    """mmdet loads the head of a two-stage detector's RPN into a detector of that head alone."""
    cfg = load_config('mmdet::rpn/rpn_r50_fpn_1x_coco.py')
    cfg.model.backbone.update(depth=18, init_cfg=None)
    cfg.model.neck.in_channels = [64, 128, 256, 512]
    model = MODELS.build(cfg.model)
    state = {name.replace('bbox_head.', 'rpn_head.'): value + 1 for name, value in model.state_dict().items()}
    assert not weights_mismatch(model, state)
    del state['rpn_head.rpn_cls.bias']
    assert 'of another model' in weights_mismatch(model, state)


@pytest.mark.parametrize('way', WAYS)
def test_every_way_refuses_hostile_checkpoints(way, project, downloads, tmp_path):
    """It is a good checkpoint in every other respect."""
    folder, config, fpn = project
    traces = tmp_path / 'traces'
    checkpoint = load_untrusted(folder / 'good.pth')
    (tmp_path / 'images').mkdir()
    shutil.copy(next((folder / 'shapes' / 'images').iterdir()), tmp_path / 'a.png')
    torch.save(dict(**checkpoint, extra=make_folder(traces)), tmp_path / 'hostile.pth')
    with pytest.raises((CheckpointError, SystemExit, ValueError), match='not read, because it holds .*mkdir'):
        WAYS[way](config, fpn, tmp_path / 'hostile.pth', tmp_path)
    assert not traces.exists() and not (tmp_path / 'out.pth').exists()


def test_a_config_inside_of_a_checkpoint_is_not_run(project, tmp_path):
    """MMDetection 2.x wrote it. mmengine runs it to look for ``gpu_ids`` when a training resumes."""
    folder, config, _ = project
    run_tool('train', config, '--work-dir', tmp_path / 'run')
    checkpoint = load_untrusted(tmp_path / 'run' / 'epoch_2.pth')
    checkpoint['meta']['config'] = f"import os\nos.mkdir('{tmp_path}/traces')\n"
    checkpoint['meta'].update(epoch=1)
    torch.save(checkpoint, tmp_path / 'hostile.pth')
    resume(config, tmp_path / 'hostile.pth', tmp_path)
    assert not (tmp_path / 'traces').exists()
    checkpoint['meta'] = 'text'
    torch.save(checkpoint, tmp_path / 'text.pth')
    with pytest.raises(CheckpointError, match="text.pth: holds a str under 'meta', where a checkpoint has a dict"):
        load_untrusted(tmp_path / 'text.pth')


def test_files_of_one_name_from_several_places(downloads, tmp_path, monkeypatch):
    """Each URL has a file of its own. A file that lies there without a note of its URL is taken, as torch takes it."""
    for number, folder in enumerate(('a', 'b')):
        (tmp_path / folder).mkdir()
        torch.save(dict(a=torch.tensor(number)), tmp_path / folder / 'epoch_12.pth')
    (tmp_path / 'hub' / 'checkpoints').mkdir(parents=True)
    torch.save(dict(a=torch.tensor(7)), tmp_path / 'hub' / 'checkpoints' / 'swin_tiny.pth')
    monkeypatch.setattr(
        torch.hub,
        'download_url_to_file',
        lambda url, path, **kwargs: shutil.copy(tmp_path / url.partition('//h/')[2].partition('?')[0], path),
    )
    read = CheckpointLoader.load_checkpoint
    assert [read(f'https://h/{folder}/epoch_12.pth')['a'] for folder in 'abab'] == [0, 1, 0, 1]
    assert read('https://h/a/epoch_12.pth?id=1')['a'] == 0
    assert read('https://h/nowhere/swin_tiny.pth')['a'] == 7
    names = sorted(path.name for path in (tmp_path / 'hub' / 'checkpoints').iterdir())
    assert len(names) == 7 and {'epoch_12.pth', 'epoch_12.pth.url', 'swin_tiny.pth'} <= set(names)


def test_a_download_that_was_cut_off_is_not_kept(downloads, tmp_path):
    torch.save(dict(a=torch.ones(1000)), tmp_path / 'whole.pth')
    content = (tmp_path / 'whole.pth').read_bytes()
    (tmp_path / 'weights.pth').write_bytes(content[:2000])
    with pytest.raises(CheckpointError, match='is cut off or damaged'):
        CheckpointLoader.load_checkpoint('https://a/weights.pth')
    (tmp_path / 'weights.pth').write_bytes(content)
    assert CheckpointLoader.load_checkpoint('https://a/weights.pth')['a'].sum() == 1000
    kept = tmp_path / 'hub' / 'checkpoints' / 'weights.pth'
    torch.save(make_folder(tmp_path / 'traces'), kept)
    with pytest.raises(CheckpointError, match='not read, because it holds'):
        CheckpointLoader.load_checkpoint('https://a/weights.pth')
    assert kept.is_file()  # it is whole


@pytest.mark.parametrize('url', ['https://a.invalid:port/x.pth', 'https://a.invalid/my model.pth'])
def test_a_url_that_is_none(url, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    with pytest.raises(CheckpointError, match='cannot be downloaded'):
        CheckpointLoader.load_checkpoint(url)


def test_schemes_of_mmengine(downloads, tmp_path, monkeypatch):
    """Files by any scheme are read as data; there is no way to mmengine's own torch.load."""
    torch.save(dict(a=torch.ones(1)), tmp_path / 'resnet18-5c106cde.pth')
    torch.save(make_folder(tmp_path / 'traces'), tmp_path / 'resnet18-f37072fd.pth')
    monkeypatch.setattr(torch, 'load', None)
    urls = dict(resnet18='https://a/resnet18-f37072fd.pth')
    monkeypatch.setattr('mmengine.runner.checkpoint.get_torchvision_models', lambda: urls)
    loaders = set(CheckpointLoader._schemes.values())
    assert {loader.__module__ for loader in loaders} == {'mmpanet.checkpoints.loader'}
    assert CheckpointLoader.load_checkpoint('http://a/resnet18-5c106cde.pth')['a'] == 1
    with pytest.raises(CheckpointError, match='resnet18-f37072fd.pth: is not read'):
        CheckpointLoader.load_checkpoint('torchvision://resnet18')
    with pytest.raises(CheckpointError, match='torchvision://resnet17: mmengine knows no model'):
        CheckpointLoader.load_checkpoint('torchvision://resnet17')
    with pytest.raises(CheckpointError, match='pavi://a.pth: is not read from there'):
        CheckpointLoader.load_checkpoint('pavi://a.pth')
    assert not (tmp_path / 'traces').exists()


@pytest.mark.parametrize('is_main, sees_the_file_of_the_main_process', [(True, True), (False, True), (False, False)])
def test_downloads_of_a_distributed_run(downloads, tmp_path, monkeypatch, is_main, sees_the_file_of_the_main_process):
    """The first process downloads; another one waits, and downloads if it is on a machine with a disk of its own."""
    torch.save(dict(a=torch.ones(1)), tmp_path / 'weights.pth')
    here, events = tmp_path / 'hub/checkpoints/weights.pth', []
    download = torch.hub.download_url_to_file
    monkeypatch.setattr(torch.hub, 'download_url_to_file', lambda *args, **kw: (events.append('get'), download(*args)))
    monkeypatch.setattr(loader, 'is_main_process', lambda: is_main)

    def barrier():
        events.append('wait')
        if not is_main and sees_the_file_of_the_main_process:
            here.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / 'weights.pth', here)

    monkeypatch.setattr(loader, 'barrier', barrier)
    for _ in range(2):
        assert CheckpointLoader.load_checkpoint('http://a/weights.pth')['a'] == 1
    expected = ['get', 'wait'] if is_main else ['wait'] if sees_the_file_of_the_main_process else ['wait', 'get']
    assert events == [*expected, 'wait']


def test_a_full_disk_is_an_error_of_the_system_and_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / 'weights.pth'
    save_checkpoint(dict(a=torch.ones(2)), target)

    def full(path, content):
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch, pytest.raises(OSError, match='No space left on device'):
        patch.setattr(Path, 'write_bytes', full)
        save_checkpoint(dict(a=torch.zeros(3)), target)
    assert [path.name for path in tmp_path.iterdir()] == ['weights.pth']
    assert load_untrusted(target)['a'].tolist() == [1, 1]


def test_the_weights_of_a_detector_fit_student_and_teacher():
    class Semi(SemiBaseDetector):
        def __init__(self):
            nn.Module.__init__(self)
            self.student, self.teacher = nn.Linear(2, 3), nn.Linear(2, 3)

    detector = nn.Linear(2, 3).state_dict()
    assert not weights_mismatch(Semi(), detector)
    assert not weights_mismatch(Semi(), Semi().state_dict())
    assert 'of another model: 4 of the 4 parameters' in weights_mismatch(Semi(), nn.Linear(2, 4).state_dict(), False)


def test_statistics_of_bn_belong_to_the_weights():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False))
    state = model.state_dict()
    assert not weights_mismatch(model, state)
    # PyTorch before 0.4.1 did not count batches.
    assert not weights_mismatch(model, {name: value for name, value in state.items() if 'num_batches' not in name})
    for name in ('1.running_mean', '1.running_var'):
        without = {key: value for key, value in state.items() if key != name}
        assert f'without the statistics of BN layers: it has no {name}' in weights_mismatch(model, without)
        assert not weights_mismatch(model, without, all_of_them=False)
        other = weights_mismatch(model, {**state, name: torch.zeros(5)})
        assert f'{name} is (5,) in it, and the model takes (4,)' in other
