# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Wrong configs, checkpoints, annotations, images and command lines: each fails, by name, and leaves nothing behind."""

import json
import re

import pytest
import torch
from all_cases import CASES
from annotation_cases import LOGS, good_data, write_project
from corpus import failure_of, tool
from mmengine.config import Config
from pycocotools import mask as mask_utils
from record import SNAPSHOT, entry
from repository import ROOT

from mmdet.datasets import CocoDataset
from mmpanet.checkpoints.files import load_untrusted
from mmpanet.datasets.checks import check_annotations, check_datasets, rle_runs

PAGE = ROOT / 'docs' / 'errors.md'
POINTER = '(tools/misc/check_dataset.py lists all;'
RECORDED = json.loads(SNAPSHOT.read_text(encoding='utf-8'))


def name_of(case):
    return re.sub(r'\W+', '-', case.what).strip('-')


@pytest.mark.parametrize('case', CASES, ids=name_of)
def test_fails_by_name_and_writes_nothing(case, tmp_path):
    failure = failure_of(case, tmp_path)
    assert failure.error == case.error, failure.message
    for words in case.words:
        assert re.search(words, failure.message, re.DOTALL), f'{words!r} is not in: {failure.message}'
    assert not failure.written
    if case.whose == 'mmpanet':  # the words of the stack change with its versions
        recorded = RECORDED.get(case.what)
        assert entry(case, failure) == recorded, 'if this is what you want: python tests/test_bad_input/record.py'


def test_eighty_and_more_in_words_of_our_own():
    ours = [case for case in CASES if case.whose == 'mmpanet']
    assert len(ours) >= 80
    # The key or file, what it holds, and what it takes
    assert all(len(case.words) == 3 for case in ours)


def test_snapshot_holds_the_corpus():
    assert list(RECORDED) == [case.what for case in CASES]


def test_page_of_messages_quotes_the_snapshot():
    """Each block of `docs/errors.md` is a message, without the line about another tool that ends refusals of data."""
    known = {'\n'.join(line for line in one['message'] if not line.startswith(POINTER)) for one in RECORDED.values()}
    quoted = re.findall(r'^```text\n(.*?)\n```$', PAGE.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL)
    assert len(quoted) == len(set(quoted)) == 20
    assert not [text for text in quoted if text not in known]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The data and the config that all cases of annotations start from, as the current folder."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    return tmp_path


def test_what_is_right_passes(project, capsys):
    """Or else the corpus would prove nothing."""
    tool('check_dataset', 'config.py', '--images')()
    assert capsys.readouterr().out.count('nothing wrong') == 3
    tool('train', 'config.py', '--work-dir', LOGS)()
    checkpoint = project / LOGS / 'epoch_1.pth'
    tool('test', 'config.py', checkpoint, '--work-dir', LOGS)()
    # A head for other classes starts anew, and the rest from the checkpoint.
    state_dict = load_untrusted(checkpoint)['state_dict']
    state_dict.pop('roi_head.bbox_head.fc_cls.weight')
    torch.save(dict(state_dict=state_dict), 'part.pth')
    tool('train', 'config.py', '--work-dir', LOGS, '--cfg-options', 'load_from=part.pth')()


@pytest.mark.parametrize('state', ['optimizer', 'param_schedulers'])
def test_a_checkpoint_without_the_state_of_a_training_is_not_resumed(project, state):
    """As the best ones of mmengine are. The schedule would begin anew, without a message."""
    with open('config.py', 'a') as config:
        config.write("param_scheduler = [dict(type='MultiStepLR', milestones=[1])]\n")
    tool('train', 'config.py', '--work-dir', LOGS)()
    checkpoint = load_untrusted(project / LOGS / 'epoch_1.pth')
    del checkpoint[state]
    torch.save(checkpoint, 'best.pth')
    with pytest.raises(SystemExit, match=f"best.pth: has no '{state}', .* load_from='best.pth' instead of --resume"):
        tool('train', 'config.py', '--work-dir', LOGS, '--resume', 'best.pth')()


def test_labels_of_a_checkpoint_are_those_of_the_test(project):
    tool('train', 'config.py', '--work-dir', LOGS)()
    checkpoint = load_untrusted(project / LOGS / 'epoch_1.pth')
    assert tuple(checkpoint['meta']['dataset_meta']['classes']) == ('disc', 'ring')
    checkpoint['meta']['dataset_meta']['classes'] = ('ring', 'disc')
    torch.save(checkpoint, 'other.pth')
    with pytest.raises(SystemExit, match=r"other.pth: test_dataloader\.dataset\.metainfo\.classes .* 'ring', 'disc'"):
        tool('test', 'config.py', 'other.pth', '--work-dir', LOGS)()


def test_what_mmdet_does_without_the_check(project):
    """The reason for it: a missing class shifts the labels, a damaged polygon is no object."""
    data = good_data()
    data['categories'][0]['name'] = 'disk'
    (project / 'train.json').write_text(json.dumps(data))
    dataset = CocoDataset(
        ann_file='train.json', metainfo=dict(classes=('disc', 'ring')), data_prefix=dict(img='images/'), pipeline=[]
    )
    labels = [instance['bbox_label'] for instance in dataset.get_data_info(0)['instances']]
    assert labels == [0]  # 'disc', and it is the ring
    tool('train', 'config.py', '--work-dir', LOGS, '--cfg-options', 'check_annotations=False')()


def test_objects_without_a_pixel_are_told_and_do_no_harm(project):
    data = good_data()
    data['annotations'][0]['bbox'] = [2.0, 3.0, 0.0, 8.0]
    data['annotations'][1]['area'] = 0
    (project / 'train.json').write_text(json.dumps(data))
    left_out = check_datasets(Config.fromfile('config.py'), 'train', 'val')
    assert [
        re.sub(r'.*: annotations: (.*) have .*(bbox|area).* (annotations\S+) .*', r'\1 \2 \3', text)
        for text in left_out
    ] == ['1 of 4 bbox annotations[0]', '1 of 4 area annotations[1]']


def test_all_faults_are_found_at_once(project):
    data = good_data()
    for i, annotation in enumerate(data['annotations']):
        annotation.update([dict(bbox=[0, 0, -1, 1]), dict(image_id=5), dict(category_id=5), dict(area=-1)][i])
    (project / 'train.json').write_text(json.dumps(data))
    findings = check_annotations('train.json', ('disc', 'ring'), masks=True)
    assert [re.search(r'(\w+) is', fault)[1] for fault in findings.faults] == [
        'bbox',
        'image_id',
        'category_id',
        'area',
    ]


def test_a_test_set_may_come_without_annotations(project):
    data = good_data()
    data.pop('annotations')
    (project / 'val.json').write_text(json.dumps(data))
    assert check_annotations('val.json', ('disc', 'ring'), objects=False) == ([], [])
    assert 'annotations' in check_annotations('val.json', ('disc', 'ring')).faults[0]


def test_runs_of_rle_against_pycocotools():
    for size in ((1, 1), (7, 5), (64, 48), (300, 301)):
        for share in (0.0, 0.03, 0.5, 1.0):
            mask = (torch.rand(size) < share).byte().numpy()
            rle = mask_utils.encode(mask.copy(order='F'))
            runs = rle_runs(rle['counts'].decode())
            assert runs.sum() == mask.size and (runs >= 0).all()
            again = mask_utils.frPyObjects(dict(size=list(size), counts=runs.tolist()), *size)
            assert again['counts'] == rle['counts']
