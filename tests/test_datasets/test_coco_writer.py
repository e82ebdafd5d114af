# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import json
import os

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mmpanet.datasets.coco_writer import dataset_folder, encode_instance, read_recipe, write_annotations
from mmpanet.utils import files
from mmpanet.utils.errors import DataError

RECIPE = dict(generator='test', size=(2, 3))


def write(out_dir, recipe=RECIPE, force=False):
    """Write a dataset of one image; False if it was there."""
    with dataset_folder(out_dir, recipe, force) as folder:
        if folder is None:
            return False
        for split in ('train', 'val'):
            name = f'{split}.png'
            (folder / 'images' / name).write_text(str(recipe))
            image = dict(file_name=name, height=4, width=5, instances=[])
            write_annotations(folder / f'{split}.json', [image], ['thing'], dict(recipe=recipe))
    return True


def tree(folder):
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def test_encode_instance():
    mask = np.zeros((6, 8), bool)
    mask[1:5, 2:7] = True
    mask[2:4, 3:6] = False
    instance = encode_instance(mask, 3)
    assert instance['category_id'] == 3
    assert instance['iscrowd'] == 0
    assert instance['area'] == 20 - 6
    assert instance['bbox'] == [2, 1, 5, 4]
    decoded = mask_utils.decode(instance['segmentation'])
    np.testing.assert_array_equal(decoded, mask)
    json.dumps(instance)


def test_ids_start_at_one(tmp_path):
    instance = encode_instance(np.ones((4, 5)), 1)
    images = [
        dict(file_name='a.png', height=4, width=5, instances=[instance] * 2),
        dict(file_name='b.png', height=4, width=5, instances=[]),
        dict(file_name='c.png', height=4, width=5, instances=[instance]),
    ]
    write_annotations(tmp_path / 'x.json', images, ['p', 'q'], {})
    data = json.loads((tmp_path / 'x.json').read_text())
    assert [image['id'] for image in data['images']] == [1, 2, 3]
    assert 'instances' not in data['images'][0]
    assert [(a['id'], a['image_id']) for a in data['annotations']] == [(1, 1), (2, 1), (3, 3)]
    assert data['categories'] == [dict(id=1, name='p'), dict(id=2, name='q')]


def test_written_whole_and_recognized(tmp_path):
    out_dir = tmp_path / 'deep' / 'set'
    assert write(out_dir)
    assert read_recipe(out_dir) == dict(generator='test', size=[2, 3])
    before = tree(out_dir)
    assert not write(out_dir)
    assert tree(out_dir) == before
    assert [path.name for path in out_dir.parent.iterdir()] == ['set']
    # readable by others as any other new folder is
    (tmp_path / 'plain').mkdir()
    assert out_dir.stat().st_mode == (tmp_path / 'plain').stat().st_mode


def test_empty_folder_is_filled(tmp_path):
    out_dir = tmp_path / 'set'
    out_dir.mkdir()
    assert write(out_dir)
    assert read_recipe(out_dir)


def test_link_is_followed(tmp_path):
    (tmp_path / 'big_disk').mkdir()
    link = tmp_path / 'set'
    link.symlink_to(tmp_path / 'big_disk')
    assert write(link)
    assert link.is_symlink()
    assert read_recipe(tmp_path / 'big_disk')


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize('there', [False, True])
def test_nothing_left_of_a_failure(tmp_path, error, there):
    out_dir = tmp_path / 'set'
    if there:
        write(out_dir)
    before = tree(tmp_path)
    with pytest.raises(error), dataset_folder(out_dir, dict(other=1), force=True) as folder:
        (folder / 'images' / 'half.png').write_text('half')
        raise error
    assert tree(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == int(there)


def test_other_recipe_needs_force(tmp_path):
    write(tmp_path / 'set')
    before = tree(tmp_path)
    other = dict(RECIPE, size=(2, 4))
    with pytest.raises(DataError, match=r'size is \[2, 3\], not \[2, 4\]'):
        write(tmp_path / 'set', other)
    assert tree(tmp_path) == before
    assert write(tmp_path / 'set', other, force=True)
    assert read_recipe(tmp_path / 'set')['size'] == [2, 4]
    assert len(list(tmp_path.iterdir())) == 1


def test_lost_image_is_noticed(tmp_path):
    write(tmp_path / 'set')
    (tmp_path / 'set' / 'images' / 'val.png').unlink()
    assert read_recipe(tmp_path / 'set') is None
    with pytest.raises(DataError, match='files are missing'):
        write(tmp_path / 'set')
    assert write(tmp_path / 'set', force=True)
    assert read_recipe(tmp_path / 'set')


@pytest.mark.parametrize('name', ['photos', 'train_corrected.json', 'images/mine.tif'])
def test_files_beside_a_dataset_are_never_removed(tmp_path, name):
    write(tmp_path / 'set')
    (tmp_path / 'set' / '.DS_Store').touch()
    assert write(tmp_path / 'set', dict(RECIPE, size=(2, 4)), force=True)
    (tmp_path / 'set' / name).mkdir()
    before = tree(tmp_path)
    with pytest.raises(DataError, match=f'holds {name!r} beside its dataset, which would be lost'):
        write(tmp_path / 'set', dict(RECIPE, size=(2, 5)), force=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize('force', [False, True])
def test_a_split_of_another_program_is_never_removed(tmp_path, force):
    write(tmp_path / 'set')
    (tmp_path / 'set' / 'train.json').write_text('{"info": {}, "images": [{"file_name": "a.png"}]}')
    (tmp_path / 'set' / 'images' / 'a.png').touch()
    before = tree(tmp_path)
    with pytest.raises(DataError, match="holds '(images/a.png|train.json)' beside its dataset, which would be lost"):
        write(tmp_path / 'set', force=force)
    assert tree(tmp_path) == before


@pytest.mark.parametrize('name', ['notes.txt', 'train.json'])
@pytest.mark.parametrize('there', [False, True])
def test_what_comes_into_the_folder_during_the_work_is_kept(tmp_path, name, there):
    if there:
        write(tmp_path / 'set')
    with pytest.raises(DataError, match=f"{name}' was written while the dataset was made"), dataset_folder(
        tmp_path / 'set', dict(RECIPE, size=(2, 5)), force=True
    ) as building:
        (building / 'train.json').write_text('{}')
        (tmp_path / 'set').mkdir(exist_ok=True)
        (tmp_path / 'set' / name).write_text('mine')
    assert (tmp_path / 'set' / name).read_text() == 'mine' and len(list(tmp_path.iterdir())) == 1


def test_a_mounted_folder_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / 'set').mkdir()
    monkeypatch.setattr(os.path, 'ismount', lambda path: True)
    with pytest.raises(DataError, match='a file system is mounted, .* give a folder below it'):
        write(tmp_path / 'set')


@pytest.mark.parametrize('name', ['thesis.txt', 'train.json'])
def test_foreign_folder_is_never_replaced(tmp_path, name):
    out_dir = tmp_path / 'set'
    out_dir.mkdir()
    (out_dir / name).write_text('{"info": {}, "images": []}')
    before = tree(tmp_path)
    with pytest.raises(DataError, match='holds other files'):
        write(out_dir, force=True)
    assert tree(tmp_path) == before


def test_file_in_the_way(tmp_path):
    (tmp_path / 'set').write_text('x')
    with pytest.raises(DataError, match='is not a folder'):
        write(tmp_path / 'set', force=True)


def test_old_dataset_survives_a_failed_rename(tmp_path, monkeypatch):
    out_dir = tmp_path / 'set'
    write(out_dir)
    before = tree(tmp_path)
    rename = files.os.rename
    calls = []

    def second_fails(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError('disk')
        rename(source, target)

    monkeypatch.setattr(files.os, 'rename', second_fails)
    with pytest.raises(OSError, match='disk'):
        write(out_dir, dict(other=1), force=True)
    assert tree(tmp_path) == before
