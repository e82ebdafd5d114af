# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Mask files of all modes and names: read as Pillow shows them, or refused."""

import os
import re
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from mmpanet.datasets import convert_masks
from mmpanet.datasets.converters.mask_files import read_mask
from mmpanet.utils.errors import ConfigError, DataError

SIZE = (40, 50)


def labels(dtype=np.uint8, highest=2):
    mask = np.zeros(SIZE, dtype)
    mask[2:8, 3:10] = 1
    mask[10:30, 20:30] = highest
    return mask


def in_mode(mode):
    """The labels as an image of a mode."""
    gray = Image.fromarray(labels())
    if mode == '1':
        return Image.fromarray(labels() > 0)
    if mode in ('P', 'PA'):
        image = Image.frombytes('P', gray.size, labels().tobytes())
        image.putpalette([(37 * i) % 256 for i in range(768)])
        return image.convert(mode)
    if mode in ('I', 'F'):
        return gray.convert(mode)
    if mode == 'I;16':
        return Image.fromarray(labels(np.uint16, 300))
    return gray.convert(mode)


READ = [
    ('1', '.png', None),
    ('1', '.tif', None),
    ('1', '.bmp', None),
    ('L', '.png', None),
    ('L', '.tif', None),
    ('L', '.bmp', None),
    ('L', '.gif', None),
    ('LA', '.png', None),
    ('LA', '.tif', None),
    ('P', '.png', None),
    ('P', '.tif', None),
    ('P', '.bmp', None),
    ('I', '.tif', None),
    ('PA', '.tif', None),
    ('I;16', '.png', None),
    ('I;16', '.tif', None),
    ('F', '.tif', None),
    ('RGB', '.png', None),
    ('RGB', '.tif', None),
    ('RGB', '.bmp', None),
    ('RGBA', '.png', None),
    ('RGBA', '.tif', None),
    ('CMYK', '.tif', 'CMYK colors'),
    ('LAB', '.tif', 'LAB colors'),
    ('YCbCr', '.tif', '(YCbCr|truncated)'),  # Pillow 12 cannot read what it wrote
    ('P', '.gif', 'holds colors'),
]


@pytest.mark.parametrize('mode, suffix, refused', READ, ids=[f'{mode} {suffix}' for mode, suffix, _ in READ])
def test_modes_of_pillow(tmp_path, mode, suffix, refused):
    path = tmp_path / f'mask{suffix}'
    if mode == 'LAB':
        Image.new('LAB', SIZE[::-1]).save(path)
    elif mode == 'YCbCr':
        Image.new('YCbCr', SIZE[::-1]).save(path)
    else:
        in_mode(mode).save(path)
    if refused:
        with pytest.raises(DataError, match=f'^m: .*{refused}'):
            read_mask(path, 'm')
        return
    expected = {'1': labels() > 0, 'I;16': labels(np.uint16, 300)}.get(mode, labels())
    for source in (path, path.read_bytes()):
        np.testing.assert_array_equal(read_mask(source, 'm', SIZE), expected)


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('channels', [3, 4])
def test_gray_of_16_bits_in_color_channels(tmp_path, suffix, channels):
    """Pillow would read 300 as 1."""
    mask = labels(np.uint16, 300)
    pixels = np.dstack([mask] * 3 + [np.full_like(mask, 65535)] * (channels - 3))
    cv2.imwrite(str(tmp_path / f'm{suffix}'), pixels)
    np.testing.assert_array_equal(read_mask(tmp_path / f'm{suffix}', 'm'), mask)


def write_gray_png(path, values, bits):
    """A PNG of 1 to 8 bits per pixel, which OpenCV and Pillow do not write."""

    def chunk(kind, content):
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    height, width = values.shape
    levels = np.unpackbits(values[..., None], axis=2)[..., 8 - bits :].reshape(height, -1)
    rows = b''.join(b'\0' + row.tobytes() for row in np.packbits(levels, axis=1))
    head = struct.pack('>IIBBBBB', width, height, bits, 0, 0, 0, 0)
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
    )


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_numbers_of_few_bits_are_not_spread(tmp_path, bits):
    mask = labels(highest=2**bits - 1)
    write_gray_png(tmp_path / 'a.png', mask, bits)
    np.testing.assert_array_equal(read_mask(tmp_path / 'a.png', 'a.png'), mask)


@pytest.mark.parametrize('mode', ['1', 'L', 'I;16'])
def test_a_tiff_whose_white_is_zero_is_refused(tmp_path, mode):
    """Pillow inverts 1 and 8 bits of it, and leaves 16 as they are."""
    image = Image.fromarray(labels(np.uint16 if mode == 'I;16' else np.uint8))
    if mode != 'I;16':
        image = image.convert(mode)
    image.save(tmp_path / 'a.tif')
    data = bytearray((tmp_path / 'a.tif').read_bytes())
    entry = data.index(struct.pack('<HHI', 262, 3, 1))
    data[entry + 8 : entry + 10] = struct.pack('<H', 0)
    (tmp_path / 'a.tif').write_bytes(data)
    with pytest.raises(DataError, match='a.tif: its PhotometricInterpretation is 0'):
        read_mask(tmp_path / 'a.tif', 'a.tif')


def test_gray_levels_of_a_gif_are_kept(tmp_path):
    """Pillow numbers the colors of a GIF anew: what was 7 and 200 are the indices 0 and 1."""
    mask = np.full(SIZE, 7, np.uint8)
    mask[5:9] = 200
    Image.fromarray(mask).save(tmp_path / 'm.gif')
    with Image.open(tmp_path / 'm.gif') as image:
        assert np.unique(np.array(image)).tolist() != [7, 200] or image.mode == 'L'
    np.testing.assert_array_equal(read_mask(tmp_path / 'm.gif', 'm'), mask)


def save_signed(path, array):
    """A TIFF of signed values, by the tags that say so."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[339] = 2
    bits = array.dtype.itemsize * 8
    mode = {8: 'L', 16: 'I;16', 32: 'I'}[bits]
    raw = array.view(f'u{array.dtype.itemsize}') if bits < 32 else array
    Image.frombytes(mode, array.shape[::-1], raw.tobytes()).save(path, tiffinfo=info)


@pytest.mark.parametrize('dtype', [np.int8, np.int16, np.int32, np.float32, np.float64])
def test_a_border_of_minus_one_is_no_object(tmp_path, dtype):
    mask = labels().astype(dtype)
    mask[0] = -1
    path = tmp_path / 'truth' / 'a.tif'
    for name in 'ab':
        (tmp_path / 'photos').mkdir(exist_ok=True)
        (tmp_path / 'truth').mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / 'photos' / f'{name}.png'), np.zeros((*SIZE, 3), np.uint8))
        cv2.imwrite(str(tmp_path / 'truth' / f'{name}.tif'), labels())
    if dtype in (np.float32, np.float64):
        cv2.imwrite(str(path), mask)
    else:
        save_signed(path, mask)
    np.testing.assert_array_equal(read_mask(path, 'm'), mask)
    arguments = (tmp_path / 'photos', tmp_path / 'truth', tmp_path / 'out', 'objects')
    with pytest.raises(DataError, match='^truth/a.tif: holds the negative value -1; .*--ignore-values -1'):
        convert_masks(*arguments, val_fraction=0.5, on_error='raise')
    converted = convert_masks(*arguments, val_fraction=0.5, ignore_values=[-1])
    assert converted.counts == dict(train=(1, 2), val=(1, 2))


@pytest.mark.parametrize('value', [0.5, np.nan, np.inf, 1e20])
def test_fractions_are_refused(tmp_path, value):
    mask = labels().astype(np.float32)
    mask[0, 0] = value
    cv2.imwrite(str(tmp_path / 'm.tif'), mask)
    with pytest.raises(DataError, match='^m: holds float32 values such as .*; a mask holds whole numbers'):
        read_mask(tmp_path / 'm.tif', 'm')


def test_transparency(tmp_path):
    """It is ignored where it says the same as the values, and else there are two truths."""
    values = labels() * np.uint8(255)
    alphas = {True: (values > 0) * np.uint8(255), False: np.uint8(255) * (np.arange(SIZE[1]) < 9)}
    for agrees, alpha in alphas.items():
        Image.fromarray(np.dstack([values] * 3 + [np.broadcast_to(alpha, SIZE)])).save(tmp_path / 'm.png')
        if agrees:
            np.testing.assert_array_equal(read_mask(tmp_path / 'm.png', 'm'), values)
        else:
            with pytest.raises(DataError, match='partly transparent'):
                read_mask(tmp_path / 'm.png', 'm')
    black = np.zeros(SIZE, np.uint8)
    Image.fromarray(np.dstack([black] * 3 + [values])).save(tmp_path / 'm.png')
    with pytest.raises(DataError, match='partly transparent'):
        read_mask(tmp_path / 'm.png', 'm')


@pytest.mark.parametrize('suffix', ['.tif', '.gif', '.png'])
def test_pages(tmp_path, suffix):
    frames = [Image.fromarray(labels() * np.uint8(i)) for i in (60, 90, 120)]
    frames[0].save(tmp_path / f'm{suffix}', save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r'^m: holds 3 pages'):
        read_mask(tmp_path / f'm{suffix}', 'm')


@pytest.mark.parametrize('kind', ['JPEG', 'WEBP'])
def test_what_is_named_png_and_is_lossy(tmp_path, kind):
    Image.fromarray(labels() * np.uint8(100)).save(tmp_path / 'm.png', kind)
    with pytest.raises(DataError, match=f'^m: holds {kind} data, which changes values'):
        read_mask(tmp_path / 'm.png', 'm')


def test_jpeg_inside_a_tiff(tmp_path):
    Image.fromarray(labels() * np.uint8(100)).save(tmp_path / 'm.tif', compression='jpeg')
    with pytest.raises(DataError, match='^m: holds TIFF data, which changes values'):
        read_mask(tmp_path / 'm.tif', 'm')


# Finding masks by name


@pytest.fixture
def folders(tmp_path):
    """Four photos, and no masks yet."""
    images, masks = tmp_path / 'photos', tmp_path / 'truth'
    for name in ('a', 'b', 'sub/c', 'd'):
        for folder in (images, masks):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(images / f'{name}.jpg'), np.full((*SIZE, 3), 90, np.uint8))
    return images, masks


def add_masks(folders, pattern='{}.png', names=('a', 'b', 'sub/c', 'd')):
    for name in names:
        Image.fromarray(labels()).save(folders[1] / pattern.format(name))


def convert(folders, **kwargs):
    return convert_masks(*folders, folders[0].parent / 'out', 'objects', **dict(dict(val_fraction=0.25), **kwargs))


def objects(converted):
    return sum(count for _, count in converted.counts.values())


@pytest.mark.parametrize('pattern', ['{}.PNG', '{}.Tif', '{}.TIFF', '{}.BMP', '{}.GIF', '{}.gif'])
@pytest.mark.parametrize('empty', [False, True])
def test_suffixes_in_any_case(folders, pattern, empty):
    add_masks(folders, pattern)
    converted = convert(folders, empty_without_mask=empty)
    assert objects(converted) == 8 and converted.problems == [] == converted.notes


def test_ones_in_several_parts_are_noted(folders):
    """Such as a picture of one bit, black and white, of several cells."""
    add_masks(folders)
    cells = np.zeros(SIZE, bool)
    cells[2:4, 2:4] = cells[-4:-2, -4:-2] = True
    Image.fromarray(cells).save(folders[1] / 'a.png')
    converted = convert(folders)
    assert objects(converted) == 7
    assert [note for note in converted.notes if note.startswith('1 masks hold the value 1 alone, in several parts')]


def test_images_may_lie_in_a_folder_inside_of_that_of_the_masks(folders):
    images, masks = folders
    add_masks(folders)
    images.rename(masks / 'photos')
    converted = convert_masks(masks / 'photos', masks, masks.parent / 'out', 'objects')
    assert objects(converted) == 8


def test_names_in_another_case(folders):
    add_masks(folders, names=('A', 'B', 'd'))
    (folders[1] / 'SUB').mkdir()
    add_masks(folders, names=('SUB/C',))
    assert objects(convert(folders)) == 8


def test_names_that_differ_by_case_alone_are_kept_apart(folders):
    cv2.imwrite(str(folders[0] / 'A.jpg'), np.full((*SIZE, 3), 90, np.uint8))
    add_masks(folders)
    converted = convert(folders)
    assert objects(converted) == 8
    assert len(converted.problems) == 1 and converted.problems[0].startswith('truth/A.png: no such mask')


def test_accents_as_macos_writes_them(folders):
    cv2.imwrite(str(folders[0] / 'Mu\u0308ller.jpg'), np.full((*SIZE, 3), 90, np.uint8))
    add_masks(folders, names=('a', 'b', 'sub/c', 'd', 'M\u00fcller'))
    assert objects(convert(folders)) == 10


@pytest.mark.parametrize('name', ['a.jpg', 'a.JPEG', 'a.npy', 'a.webp', 'a.pgm'])
def test_a_wrong_suffix_is_never_no_mask(folders, name):
    add_masks(folders, names=('b', 'sub/c', 'd'))
    (folders[1] / name).write_bytes(b'x')
    converted = convert(folders, empty_without_mask=True)
    assert len(converted.problems) == 1
    assert re.match(rf'truth/{name}: .*a mask is one of .png, .tif, .tiff, .bmp, .gif', converted.problems[0])
    assert '1 of 4 samples are left out' in converted.notes


@pytest.mark.parametrize('name', ['a.png.gz', 'a.nii.gz', 'a.ome.tif', 'A.Ome.TIFF'])
@pytest.mark.parametrize('empty', [False, True])
def test_several_suffixes_are_never_no_mask(folders, name, empty):
    add_masks(folders, names=('b', 'sub/c', 'd'))
    (folders[1] / name).write_bytes(b'x')
    converted = convert(folders, empty_without_mask=empty)
    assert objects(converted) == 6
    assert len(converted.problems) == 1
    assert converted.problems[0].startswith(f'truth/{name}: is it the mask of this image? Then its name is a.png')


def test_names_with_dots(folders):
    for name in ('a.left', 'a.right'):
        cv2.imwrite(str(folders[0] / f'{name}.jpg'), np.full((*SIZE, 3), 90, np.uint8))
    add_masks(folders, names=('a.left', 'b', 'sub/c', 'd'))
    converted = convert(folders, empty_without_mask=True)
    assert objects(converted) == 8 and converted.problems == []
    assert converted.notes == ['2 images have no mask, and so no objects (empty_without_mask)']


def test_other_files_beside_a_mask_do_no_harm(folders):
    add_masks(folders)
    (folders[1] / 'a.json').write_text('{}')
    (folders[1] / 'a.jpg').write_bytes(b'a preview')
    converted = convert(folders)
    assert objects(converted) == 8 and converted.problems == []


def test_two_masks_of_an_image(folders):
    add_masks(folders)
    add_masks(folders, '{}.tif', names='a')
    converted = convert(folders)
    assert converted.problems == ['truth/a.png: a.tif is a mask of the same image; one is needed']


def test_masks_of_no_image_are_counted(folders):
    add_masks(folders, names=('b', 'sub/c', 'd', '01', '02'))
    converted = convert(folders, empty_without_mask=True)
    assert converted.notes == [
        '1 images have no mask, and so no objects (empty_without_mask)',
        '2 masks belong to no image, the first is truth/01.png',
    ]


def test_small_objects_are_counted(folders):
    add_masks(folders)
    converted = convert(folders, min_area=100)
    assert objects(converted) == 4
    assert converted.notes == ['4 objects of fewer than 100 pixels are left out (min_area)']


def test_files_of_operating_systems(folders):
    add_masks(folders)
    for name in ('._a.png', '.DS_Store', 'Thumbs.db', 'desktop.ini', '__MACOSX/._a.png', '__MACOSX/e.png'):
        for folder in folders:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b'litter')
    converted = convert(folders)
    assert objects(converted) == 8 and converted.problems == [] == converted.notes


@pytest.mark.parametrize('where', ['same', 'inside'])
def test_masks_among_the_images(folders, where):
    """They are not taken for images without objects."""
    images = folders[0]
    masks = images if where == 'same' else images / 'truth'
    (masks / 'sub').mkdir(parents=True, exist_ok=True)
    add_masks((images, masks), '{}_mask.png')
    converted = convert((images, masks), mask_suffix='_mask', empty_without_mask=True)
    assert objects(converted) == 8 and sum(count for count, _ in converted.counts.values()) == 4
    if where == 'same':
        with pytest.raises(ConfigError, match='is the folder of the images'):
            convert((images, masks))
        for name in ('a', 'sub/c'):  # the reader finds masks in upper or lower case
            mask = masks / f'{name}_mask.png'
            mask.rename(mask.with_name(mask.name.upper()))
        again = convert((images, masks), mask_suffix='_mask', empty_without_mask=True, force=True)
        assert objects(again) == 8 and sum(count for count, _ in again.counts.values()) == 4


@pytest.mark.parametrize('mask_suffix', ['', '_masks'])
def test_files_of_masks_beside_their_images(folders, mask_suffix):
    """What is read as a mask is no image, and an image is no mask that belongs to nothing."""
    images = folders[0]
    for name in ('a', 'sub/c'):
        (images / f'{name}{mask_suffix}').mkdir()
        for number, value in enumerate((1, 2)):
            Image.fromarray((labels() == value).astype(np.uint8)).save(
                images / f'{name}{mask_suffix}' / f'{number}.png'
            )
    converted = convert_masks(
        images, images, images.parent / 'out', 'files', mask_suffix=mask_suffix, empty_without_mask=True
    )
    assert sum(count for count, _ in converted.counts.values()) == 4 and objects(converted) == 4
    assert not converted.problems and not any('belong to no image' in note for note in converted.notes)
    if mask_suffix:
        (images / f'a{mask_suffix}').rename(images / f'A{mask_suffix.upper()}')
        again = convert_masks(
            images, images, images.parent / 'out', 'files', mask_suffix=mask_suffix, empty_without_mask=True, force=True
        )
        assert again.counts == converted.counts


def test_photos_that_are_turned_are_counted(folders):
    """Whether a mask was drawn on the turned photo cannot be seen where both have the same size."""
    add_masks(folders)
    for name, orientation, size in (('a', 3, SIZE[::-1]), ('b', 6, SIZE), ('d', 1, SIZE[::-1])):
        exif = Image.Exif()
        exif[274] = orientation
        Image.new('RGB', size).save(folders[0] / f'{name}.jpg', exif=exif)
        assert cv2.imread(str(folders[0] / f'{name}.jpg')).shape[:2] == SIZE
    converted = convert(folders)
    assert objects(converted) == 8 and converted.problems == []
    assert converted.notes == [
        '2 images are turned or mirrored by their EXIF data, as MMDetection loads them, and their masks have to be '
        'turned too; the first is a.jpg'
    ]


def test_photos_with_a_suffix_that_is_not_taken_are_counted(folders):
    add_masks(folders)
    Image.new('RGB', SIZE[::-1]).save(folders[0] / 'e.gif')
    (folders[0] / 'sub' / 'f.heic').write_bytes(b'x')
    notes = convert(folders).notes
    assert len(notes) == 1
    assert notes[0].startswith(f'2 files in {folders[0]} are not taken for images, the first is e.gif; taken are .jpg')


@pytest.mark.parametrize('key', ['images', 'masks'])
def test_out_dir_in_a_source(folders, key):
    add_masks(folders)
    source = folders[['images', 'masks'].index(key)]
    with pytest.raises(ConfigError, match=f"lies in {key} '.*', where its own files would be read"):
        convert_masks(*folders, source / 'out', 'objects')


@pytest.mark.skipif(sys.platform != 'linux', reason='other file systems take no such names')
def test_names_that_are_not_utf_8(folders):
    """As unpacked from an archive that was made on Windows."""
    add_masks(folders)
    for folder, suffix in zip(folders, (b'.jpg', b'.png')):
        os.rename(os.fsencode(folder) + b'/a' + suffix, os.fsencode(folder) + b'/\xfc' + suffix)
    converted = convert(folders)
    assert objects(converted) == 8 and converted.problems == [] == converted.notes
