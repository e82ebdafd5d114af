# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Wrong command lines, and wrong checkpoints: of the swap, of the authors' models, of training and testing."""

import json
from pathlib import Path
from typing import Callable

import torch
from annotation_cases import CONFIG, trains_with, write_project
from corpus import LOGS, Case, tool

from mmpanet.checkpoints.official_rules import CONFIGS, rules

SWAP, OFFICIAL, RUN, SEEING, OTHERS = (
    'Swap',
    "The authors' checkpoints",
    'Training and testing',
    'Predictions and comparisons',
    'Other command lines',
)

FPN_CONFIG = CONFIG.replace("type='PANetNeck'", "type='FPN'")
RETINA = """
default_scope = 'mmdet'
model = dict(
    type='RetinaNet',
    backbone=dict(type='ResNet', depth=18, base_channels=4),
    neck=dict(type='FPN', in_channels=[4, 8, 16, 32], out_channels=8, num_outs=5),
    bbox_head=dict(type='RetinaHead', num_classes=2, in_channels=8, feat_channels=8))
"""


class Hostile:
    """A pickle that writes a file when it is read."""

    def __reduce__(self):
        return Path.write_text, (Path('hacked'), 'by a checkpoint')


def swaps(*words, config=RETINA, change: Callable[[Path], object] = lambda folder: None):
    def prepare(folder):
        if config is not None:
            (folder / 'config.py').write_text(config)
        change(folder)
        return tool('swap_neck', 'config.py', *words)

    return prepare


def saves(content, name='in.pth'):
    return lambda folder: torch.save(content, folder / name)


def writes(text, name='in.pth'):
    return lambda folder: (folder / name).write_text(text)


CHECKPOINTS = ('--checkpoint', 'in.pth', '--out-checkpoint', 'out.pth')


def official(kind='det', **changes) -> dict:
    """An official checkpoint whose tensors take no room; ``changes`` with None take one away."""
    model = {rule.official: torch.zeros(()).expand(rule.shape) for rule in rules(kind)}
    model.update({name.replace('__', '.'): value for name, value in changes.items()})
    return dict(model={name: value for name, value in model.items() if value is not None})


def converts(write: Callable[[Path], object], *words, target='out.pth'):
    def prepare(folder):
        write(folder)
        return tool('convert_official_checkpoint', 'in.pth', target, *words)

    return prepare


def cut(folder):
    torch.save(official(), folder / 'in.pth')
    content = (folder / 'in.pth').read_bytes()
    (folder / 'in.pth').write_bytes(content[: len(content) // 2])


def of_mmdet(folder):
    names = (rule.ours for rule in rules('det'))
    torch.save(dict(state_dict={name: torch.zeros(1) for name in names}), folder / 'in.pth')


def tests(change: Callable[[Path], object], *words):
    def prepare(folder):
        write_project(folder)
        change(folder)
        return tool('test', 'config.py', 'in.pth', '--work-dir', LOGS, *words)

    return prepare


def predicts(*words, change: Callable[[Path], object] = lambda folder: None, name='image_demo'):
    def prepare(folder):
        write_project(folder)
        change(folder)
        return tool(name, 'config.py', 'in.pth', *words)

    return prepare


def compares(*words, name='compare_runs', **files):
    def prepare(folder):
        for file, content in files.items():
            (folder / f'{file}.json').write_text(json.dumps(content))
        return tool(name, *words)

    return prepare


TRUTH = dict(images=[dict(id=1, file_name='1.png')], annotations=[], categories=[dict(id=1, name='disc')])
PREDICTIONS = ('truth.json', 'images', 'one.json', 'two.json')
OTHER_WEIGHTS = saves(dict(state_dict={'backbone.stem.weight': torch.zeros(4, 3, 3, 3)}))
LOAD = ('--cfg-options', 'load_from=in.pth')

CASES = [
    Case(SWAP, 'no config to swap', swaps('--out', 'new.py', config=None), 1, ('config.py', 'config', 'no such file')),
    Case(
        SWAP,
        'a config with a syntax error',
        swaps('--out', 'new.py', config='model = = 1\n'),
        1,
        ('config.py', 'line', 'syntax'),
    ),
    Case(
        SWAP,
        'a config without a model',
        swaps('--out', 'new.py', config='lr = 0.1\n'),
        1,
        ('config', 'has no', 'model'),
    ),
    Case(
        SWAP,
        'a model without a neck',
        swaps('--out', 'new.py', config=RETINA.replace('    neck=', '    pyramid=')),
        1,
        ('model', 'nothing to swap', 'has a neck'),
    ),
    Case(
        SWAP,
        'a neck that is swapped already',
        swaps('--out', 'new.py', config=RETINA.replace("'FPN'", "'PANetNeck'")),
        1,
        ('model.neck', 'PANetNeck already', 'nothing to swap'),
    ),
    Case(
        SWAP,
        'a neck without a top-down path',
        swaps('--out', 'new.py', config=RETINA.replace("'FPN'", "'ChannelMapper'")),
        1,
        ('model.neck', 'ChannelMapper stays', 'no top-down path'),
    ),
    Case(
        SWAP,
        'a neck that nobody registers',
        swaps('--out', 'new.py', config=RETINA.replace("'FPN'", "'MyFPN'")),
        1,
        ('model.neck', 'MyFPN', 'installed and named in custom_imports'),
    ),
    Case(
        SWAP,
        'a number of samples without RoI heads',
        swaps('--out', 'new.py', '--sampling-ratio', 4),
        2,
        ('--sampling-ratio', '--roi-head', '--roi-head-only'),
    ),
    Case(
        SWAP,
        'an import that is not installed',
        swaps('--out', 'new.py', config="custom_imports = dict(imports=['my_package'])\n" + RETINA),
        1,
        ('config.py', 'my_package', 'not installed'),
    ),
    Case(
        SWAP,
        'an unknown config of a package',
        lambda folder: tool('swap_neck', 'mmdet::retinanet/retinanet.py', '--out', 'new.py'),
        1,
        ('mmdet', 'retinanet/retinanet.py', 'has no such config'),
    ),
    Case(
        SWAP,
        'an unknown package',
        lambda folder: tool('swap_neck', 'mmnothing::a.py', '--out', 'new.py'),
        1,
        ('mmnothing::a.py', "'mmnothing'", 'not installed'),
    ),
    Case(
        SWAP,
        'the RoI head of a model without one',
        swaps('--out', 'new.py', '--roi-head'),
        1,
        ('model .RetinaNet.', 'has no roi_head', 'without --roi-head'),
    ),
    Case(
        SWAP,
        'the RoI head of a kind that reads its features',
        swaps('--out', 'new.py', '--roi-head', config=FPN_CONFIG.replace("'PANetRoIHead'", "'GridRoIHead'")),
        1,
        ('model.roi_head', 'type=GridRoIHead', 'without --roi-head'),
    ),
    Case(
        SWAP,
        'the new config is the old one',
        swaps('--out', 'config.py'),
        1,
        ('config.py', 'the config to swap itself', 'another name'),
    ),
    Case(
        SWAP, 'the new config is no Python file', swaps('--out', 'new.yml'), 1, ('new.yml', 'must be', r'a \.py file')
    ),
    Case(
        SWAP,
        'the folder of the new config is a file',
        swaps('--out', 'notes/new.py', change=writes('', 'notes')),
        1,
        ('notes/new.py', 'notes', 'folder'),
    ),
    Case(SWAP, 'no checkpoint to swap', swaps(*CHECKPOINTS), 1, ('in.pth', 'there is no', 'checkpoint')),
    Case(
        SWAP,
        'a checkpoint that is text',
        swaps(*CHECKPOINTS, change=writes('404: not found')),
        1,
        ('in.pth', 'is no checkpoint', 'torch.save'),
    ),
    Case(
        SWAP,
        'a checkpoint that runs code',
        swaps(*CHECKPOINTS, change=saves(dict(state_dict=Hostile()))),
        1,
        ('in.pth', r'write_text|pathlib', 'only tensors and plain data'),
    ),
    Case(
        SWAP,
        'a checkpoint of another model',
        swaps(*CHECKPOINTS, change=OTHER_WEIGHTS),
        1,
        ('in.pth', 'no weight', "this config's model"),
    ),
    Case(
        SWAP,
        'a checkpoint of other shapes',
        swaps(
            *CHECKPOINTS, change=saves(dict(state_dict={'neck.lateral_convs.0.conv.weight': torch.zeros(8, 64, 1, 1)}))
        ),
        1,
        ('in.pth', r'neck.lateral_convs.0.conv.weight.*\[8, 64, 1, 1\]', r'\[8, 4, 1, 1\]'),
    ),
    Case(
        SWAP,
        'the new checkpoint is the old one',
        swaps('--checkpoint', 'in.pth', '--out-checkpoint', 'in.pth', change=OTHER_WEIGHTS),
        1,
        ('in.pth', 'itself', 'another name'),
    ),
    Case(
        SWAP,
        'the folder of the new checkpoint is a file',
        swaps('--checkpoint', 'in.pth', '--out-checkpoint', 'in.pth/out.pth', change=OTHER_WEIGHTS),
        1,
        ('in.pth/out.pth', 'in.pth is not a folder', 'cannot be written'),
    ),
    Case(
        SWAP,
        'the new checkpoint is a folder',
        swaps('--checkpoint', 'in.pth', '--out-checkpoint', '.', change=OTHER_WEIGHTS),
        1,
        (r'\.', 'is a folder', 'cannot be written'),
    ),
    Case(
        SWAP,
        'a checkpoint that is a list',
        swaps(*CHECKPOINTS, change=saves([1, 2])),
        1,
        ('in.pth', 'holds a list', 'is a dict'),
    ),
    Case(
        SWAP,
        'a negative sampling ratio',
        swaps('--out', 'new.py', '--roi-head', '--sampling-ratio', '-1', config=FPN_CONFIG),
        1,
        ('sampling_ratio', '=-1', 'at least 1, or 0'),
    ),
    Case(
        SWAP,
        'an image for the comparison that is not there',
        swaps('--verify', '--image', 'cat.jpg'),
        1,
        ('cat.jpg', 'there is no', 'image'),
    ),
    Case(
        SWAP,
        'a checkpoint to write and none to read',
        swaps('--out-checkpoint', 'out.pth'),
        2,
        ('--out-checkpoint', 'needs', '--checkpoint'),
    ),
    Case(SWAP, 'nothing is asked for', swaps(), 2, ('nothing to do', '--out', '--dry-run or --verify')),
    Case(
        SWAP,
        'an unknown fusion',
        swaps('--out', 'new.py', '--fusion', 'mean'),
        2,
        ('--fusion', "'mean'", 'sum.*concat.*weighted'),
        'argparse',
    ),
    Case(
        SWAP,
        'an unknown argument of the swap',
        swaps('--outt', 'new.py'),
        2,
        ('--outt', 'unrecognized|nothing to do', ''),
        'argparse',
    ),
    Case(
        OFFICIAL,
        'no official checkpoint',
        converts(lambda folder: None),
        2,
        ('in.pth', 'cannot be read', 'No such file'),
    ),
    Case(
        OFFICIAL,
        'an official checkpoint that is cut off',
        converts(cut),
        2,
        ('in.pth', 'cut off or damaged', 'get it again'),
    ),
    Case(
        OFFICIAL,
        'an official checkpoint that is a web page',
        converts(writes('<html>')),
        2,
        ('in.pth', 'is no checkpoint', 'torch.save'),
    ),
    Case(
        OFFICIAL,
        'an official checkpoint that runs code',
        converts(saves(dict(model=Hostile()))),
        2,
        ('in.pth', 'write_text|pathlib', 'only tensors and plain data'),
    ),
    Case(
        OFFICIAL,
        'an official checkpoint that is a list',
        converts(saves([torch.zeros(1)])),
        2,
        ('in.pth', 'holds a list', 'is a dict'),
    ),
    Case(
        OFFICIAL,
        'an official checkpoint without a model',
        converts(saves(dict(optimizer={}, step=1))),
        2,
        ('in.pth', "holds 'optimizer', 'step'", "under 'model'"),
    ),
    Case(
        OFFICIAL,
        'an official checkpoint that lacks a tensor',
        converts(saves(official(Box_Outs__cls_score__bias=None))),
        2,
        ('in.pth', "'Box_Outs.cls_score.bias' missing", ', '.join(CONFIGS)),
    ),
    Case(
        OFFICIAL,
        'an official checkpoint with a tensor too many',
        converts(saves(official(Keypoint_Outs__weight=torch.zeros(1)))),
        2,
        ('in.pth', "'Keypoint_Outs.weight' unknown", ', '.join(CONFIGS)),
    ),
    Case(
        OFFICIAL,
        'an official checkpoint of other classes',
        converts(saves(official(Box_Outs__cls_score__bias=torch.zeros(21)))),
        2,
        ("'Box_Outs.cls_score.bias'", r'\(21,\)', r'\(81,\) was expected'),
    ),
    Case(
        OFFICIAL,
        'an official checkpoint with a number among its tensors',
        converts(saves(official(Box_Outs__cls_score__bias=3))),
        2,
        ("'Box_Outs.cls_score.bias'", 'is int', 'should be a tensor'),
    ),
    Case(
        OFFICIAL,
        "a checkpoint of mmdet's for the way there",
        converts(of_mmdet),
        2,
        ('in.pth', "holds 'state_dict'", '--reverse'),
    ),
    Case(
        OFFICIAL,
        'an official checkpoint for the way back',
        converts(saves(official()), '--reverse'),
        2,
        ('in.pth', "holds 'model'", 'leave --reverse out'),
    ),
    Case(
        OFFICIAL,
        'an official checkpoint onto itself',
        converts(saves(official()), target='in.pth'),
        2,
        ('in.pth', 'overwritten', 'another target'),
    ),
    Case(
        OFFICIAL,
        'an official checkpoint to a folder that is not there',
        converts(saves(official()), target='nowhere/out.pth'),
        2,
        ('nowhere', 'no such', 'folder to write to'),
    ),
    Case(RUN, 'no config to train', lambda folder: tool('train', 'config.py'), 1, ('config.py', 'no such', 'file')),
    Case(
        RUN,
        'a config to train with a syntax error',
        trains_with(writes('model = = 1\n', 'config.py')),
        1,
        ('config.py', 'line', 'syntax'),
    ),
    Case(
        RUN,
        'a config to train that imports what is not installed',
        trains_with(writes("custom_imports = dict(imports=['my_package'])\n", 'config.py')),
        1,
        ('config.py', 'Failed to import my_package', 'not installed'),
    ),
    Case(
        RUN,
        'a config of an unknown kind',
        lambda folder: (writes('', 'config.txt')(folder), tool('train', 'config.txt'))[1],
        1,
        ('config.txt', 'Only', 'py/yml/yaml/json'),
    ),
    Case(
        RUN,
        'a wrong argument on the command line',
        trains_with(lambda folder: None, '--cfg-options', 'model.neck.fusion=mean'),
        1,
        ('fusion', "='mean'", "'sum', 'concat', 'weighted'"),
    ),
    Case(
        RUN,
        'weights to start from that are of another model',
        trains_with(OTHER_WEIGHTS, *LOAD),
        1,
        ('in.pth', r'of another model.*it has no backbone.conv1.weight', r'\(4, 3, 7, 7\)'),
    ),
    Case(
        RUN,
        'weights to test that are of another model',
        tests(OTHER_WEIGHTS),
        1,
        ('in.pth', r'of another model.*it has no backbone.conv1.weight', r'\(4, 3, 7, 7\)'),
    ),
    Case(
        RUN,
        'weights to test of other shapes',
        tests(saves(dict(state_dict={'backbone.conv1.weight': torch.zeros(64, 3, 7, 7)}))),
        1,
        ('in.pth', r'backbone.conv1.weight is \(64, 3, 7, 7\)', r'\(4, 3, 7, 7\)'),
    ),
    Case(
        RUN,
        'annotations to test on without categories',
        tests(lambda folder: (folder / 'val.json').write_text(json.dumps(dict(images=[], annotations=[])))),
        1,
        ('val.json', "'images', 'annotations'", 'images, annotations and categories'),
    ),
    Case(
        RUN,
        'predictions into a file of another kind',
        tests(OTHER_WEIGHTS, '--out', 'predictions.json'),
        2,
        ('--out', "'predictions.json'", r'\.pkl or \.pickle'),
    ),
    Case(RUN, 'no checkpoint to test', tests(lambda folder: None), 1, ('in.pth', 'No such file', 'cannot be read')),
    Case(
        RUN,
        'an unknown launcher',
        trains_with(lambda folder: None, '--launcher', 'kubernetes'),
        2,
        ('--launcher', "'kubernetes'", 'none.*pytorch.*slurm.*mpi'),
        'argparse',
    ),
    Case(
        RUN,
        'an unknown argument of the training',
        trains_with(lambda folder: None, '--epochs', '3'),
        2,
        ('--epochs 3', 'unrecognized'),
        'argparse',
    ),
    Case(
        SEEING,
        'an image to predict that is not there',
        predicts('none.png'),
        1,
        ('image_demo', 'none.png', 'no such file or folder'),
    ),
    Case(
        SEEING,
        'a file to predict that is no image',
        predicts('config.py'),
        1,
        ('config.py', 'is no image or video', r'\.jpg.*\.mp4'),
    ),
    Case(
        SEEING,
        'a folder to predict without images',
        predicts('empty', change=lambda folder: (folder / 'empty').mkdir()),
        1,
        ('empty', 'no image or video in this folder', r'\.jpg.*\.mp4'),
    ),
    Case(SEEING, 'no checkpoint to predict with', predicts('images'), 1, ('checkpoint', 'in.pth', 'No such file')),
    Case(
        SEEING,
        'a checkpoint of another model to predict with',
        predicts('images', change=OTHER_WEIGHTS),
        1,
        ('in.pth', 'of another model.*it has no backbone.conv1.weight', r'\(4, 3, 7, 7\)'),
    ),
    Case(
        SEEING,
        'a checkpoint to predict with that holds code',
        predicts('images', change=saves(Hostile())),
        1,
        ('in.pth', 'holds pathlib.Path', 'only tensors and plain data'),
    ),
    Case(
        SEEING,
        'a threshold above one',
        predicts('images', '--score-thr', '50'),
        2,
        ('--score-thr', "'50'", 'from 0 to 1'),
    ),
    Case(
        SEEING,
        'a device that is none',
        predicts('images', '--device', 'gpu', change=OTHER_WEIGHTS),
        1,
        ('--device', "'gpu'", 'such as'),
    ),
    Case(
        SEEING,
        'levels of a video',
        predicts(
            'clip.mp4',
            name='level_distribution',
            change=lambda folder: (writes('', 'clip.mp4')(folder), OTHER_WEIGHTS(folder)),
        ),
        1,
        ('clip.mp4', 'is no image', r'\.jpg'),
    ),
    Case(
        SEEING,
        'a run to compare that is not there',
        compares('work_dirs/none'),
        1,
        ('compare_runs', 'work_dirs/none', 'no such folder'),
    ),
    Case(
        SEEING,
        'a run to compare without logs',
        lambda folder: ((folder / 'run').mkdir(), tool('compare_runs', 'run'))[1],
        1,
        ('run', 'has logged anything', 'scalars.json'),
    ),
    Case(
        SEEING,
        'predictions to compare without masks',
        compares(
            *PREDICTIONS,
            name='compare_predictions',
            truth=TRUTH,
            one=[dict(image_id=1, category_id=1, score=1.0, bbox=[0, 0, 1, 1])],
            two=[],
        ),
        1,
        ('one.json', "no 'segmentation'", 'segm.json'),
    ),
    Case(
        SEEING,
        'predictions to compare of other images',
        compares(
            *PREDICTIONS,
            name='compare_predictions',
            truth=TRUTH,
            one=[],
            two=[dict(image_id=7, score=1.0, category_id=1, segmentation=dict(size=[4, 4], counts=[16]))],
        ),
        1,
        ('two.json', 'image_id=7', 'not in truth.json'),
    ),
    Case(
        SEEING,
        'annotations to compare with that are none',
        compares(*PREDICTIONS, name='compare_predictions', truth=[1], one=[], two=[]),
        1,
        ('truth.json', 'no annotations', 'COCO format'),
    ),
    Case(
        OTHERS,
        'a report on no run',
        lambda folder: tool('report_run', 'work_dirs/none'),
        1,
        ('work_dirs/none', 'there is no', 'folder'),
    ),
    Case(
        OTHERS,
        'a report on a run without an evaluation',
        lambda folder: ((folder / 'run').mkdir(), tool('report_run', 'run'))[1],
        1,
        ('run', 'no run', 'COCO metrics'),
    ),
    Case(
        OTHERS,
        'data of a config that is not there',
        lambda folder: tool('check_dataset', 'config.py'),
        1,
        ('config.py', 'no such', 'file'),
    ),
    Case(
        OTHERS,
        'an unknown split',
        lambda folder: tool('check_dataset', 'config.py', '--splits', 'dev'),
        2,
        ('--splits', "'dev'", 'train.*val.*test'),
        'argparse',
    ),
]
