# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Wrong sources and arguments of the dataset converters and of the generator of `shapes`."""

import json
from pathlib import Path
from typing import Callable

import cv2
import numpy as np
from corpus import Case, tool
from PIL import Image

DSB, MASKS, LABELME, SHAPES = 'Data Science Bowl 2018', 'Mask images', 'LabelMe', 'Generated shapes'
OUT = 'dataset'


def write_image(path: Path, *shape: int, value=128, dtype=np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(shape, value, dtype))


def write_mask(path: Path, rows: slice, *shape: int) -> None:
    mask = np.zeros(shape or (16, 24), np.uint8)
    mask[rows] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), mask)


def dsb(change: Callable[[Path], object], *words, on_error='raise'):
    """Convert four samples of which the first, in the folder ``source/a``, is changed."""

    def prepare(folder):
        for name in 'abcd':
            write_image(folder / 'source' / name / 'images' / f'{name}.png', 16, 24, 3)
            for i in range(2):
                write_mask(folder / 'source' / name / 'masks' / f'{i}.png', slice(8 * i, 8 * i + 5))
        change(folder / 'source' / 'a')
        return tool('dataset_converters/dsb2018', 'source', OUT, '--on-error', on_error, *words)

    return prepare


def untouched(folder):
    """The source is right, the arguments are not."""


def masks(change: Callable[[Path], object] = untouched, *words):
    """Convert four images, of which the first is ``images/a.png`` and has the mask ``masks/a.png``."""

    def prepare(folder):
        for name in 'abcd':
            write_image(folder / 'images' / f'{name}.png', 16, 24, 3)
            mask = np.zeros((16, 24), np.uint8)
            mask[2:6, 3:9] = 1
            mask[9:14, 3:9] = 2
            (folder / 'masks').mkdir(exist_ok=True)
            cv2.imwrite(str(folder / 'masks' / f'{name}.png'), mask)
        change(folder)
        return tool('dataset_converters/masks', 'images', 'masks', OUT, '--on-error', 'raise', *words)

    return prepare


CLASSES = ('--kind', 'classes', '--classes', 'rod', 'ring')


def colors(folder):
    mask = np.zeros((16, 24, 3), np.uint8)
    mask[2:6, 3:9] = (0, 0, 255)
    cv2.imwrite(str(folder / 'masks' / 'a.png'), mask)


def of_pages(folder):
    pages = [Image.fromarray(np.full((16, 24), value, np.uint8)) for value in (1, 2)]
    (folder / 'masks' / 'a.png').unlink()
    pages[0].save(folder / 'masks' / 'a.tif', save_all=True, append_images=pages[1:])


def with_a_border(folder):
    mask = np.zeros((16, 24), np.float32)
    mask[2:6, 3:9], mask[9:14, 3:9], mask[0] = 1, 2, -1
    (folder / 'masks' / 'a.png').unlink()
    cv2.imwrite(str(folder / 'masks' / 'a.tif'), mask)


def text_for_mask(folder):
    (folder / 'masks' / 'a.png').rename(folder / 'masks' / 'a.txt')


def labelme(change: Callable[[dict], object] = untouched, *words, text=None):
    """Convert four LabelMe files, of which the first, ``source/a.json``, is changed or has another text."""

    def prepare(folder):
        for name in 'abcd':
            write_image(folder / 'source' / f'{name}.png', 16, 24, 3)
            shape = dict(label='rod', shape_type='polygon', points=[[2, 3], [14, 3], [14, 11]])
            data = dict(imagePath=f'{name}.png', imageHeight=16, imageWidth=24, shapes=[shape])
            if name == 'a':
                change(data)
            (folder / 'source' / f'{name}.json').write_text(
                text if name == 'a' and text is not None else json.dumps(data)
            )
        return tool('dataset_converters/labelme', 'source', OUT, '--on-error', 'raise', *words)

    return prepare


def first_shape(**changes):
    return lambda data: data['shapes'][0].update(changes)


def shapes(*words):
    return lambda folder: tool('dataset_converters/make_shapes', OUT, *words)


def into_other_files(folder):
    (folder / OUT).mkdir()
    (folder / OUT / 'thesis.tex').write_text('Years of work')
    return tool('dataset_converters/make_shapes', OUT)


def into_a_file(folder):
    (folder / OUT).write_text('Years of work')
    return tool('dataset_converters/make_shapes', OUT)


CASES = [
    Case(
        DSB,
        'no folder of samples',
        lambda folder: tool('dataset_converters/dsb2018', 'source', OUT),
        1,
        ('source', "'source'", 'is not a folder'),
    ),
    Case(
        DSB,
        'a folder without samples',
        dsb(lambda a: [path.rename(a.parent.parent / path.name) for path in list(a.parent.iterdir())]),
        1,
        ('source', "'source'", 'no samples'),
    ),
    Case(
        DSB,
        'val_fraction is 0',
        dsb(untouched, '--val-fraction', '0'),
        1,
        ('val_fraction', 'is 0', '0 to 1, exclusive'),
    ),
    Case(
        DSB,
        'val_fraction is above 1',
        dsb(untouched, '--val-fraction', '1.5'),
        1,
        ('val_fraction', 'is 1.5', '0 to 1, exclusive'),
    ),
    Case(
        DSB,
        'val_fraction leaves nothing to validate on',
        dsb(untouched, '--val-fraction', '0.01'),
        1,
        ('val_fraction', '0.01', 'none is left for val'),
    ),
    Case(
        DSB,
        'a sample without masks',
        dsb(lambda a: (a / 'masks').rename(a / 'truth')),
        1,
        ('a/masks', 'no such', 'folder'),
    ),
    Case(
        DSB,
        'a sample of two images',
        dsb(lambda a: write_image(a / 'images' / 'b.png', 16, 24, 3)),
        1,
        ('a/images', '2 images', 'not one'),
    ),
    Case(
        DSB,
        'a sample whose image is text',
        dsb(lambda a: (a / 'images' / 'a.png').write_text('404')),
        1,
        ('a/images/a.png', 'not readable', 'as an image'),
    ),
    Case(
        DSB,
        'a sample whose image has 16 bits',
        dsb(lambda a: write_image(a / 'images' / 'a.png', 16, 24, value=4000, dtype=np.uint16)),
        1,
        ('a/images/a.png', '16 bits per channel', 'not 8 .uint8'),
    ),
    Case(
        DSB,
        'a mask of another size than its image',
        dsb(lambda a: write_mask(a / 'masks' / '1.png', slice(0, 3), 24, 16)),
        1,
        ('a/masks/1.png', '24 x 16', 'its image is 16 x 24'),
    ),
    Case(
        DSB,
        'masks that overlap',
        dsb(lambda a: write_mask(a / 'masks' / '1.png', slice(4, 9))),
        1,
        ('a/masks/1.png', 'overlaps', '0.png'),
    ),
    Case(
        DSB,
        'an empty mask',
        dsb(lambda a: write_mask(a / 'masks' / '1.png', slice(0, 0))),
        1,
        ('a/masks/1.png', 'empty', 'mask'),
    ),
    Case(
        DSB,
        'an unknown way to treat errors',
        dsb(untouched, on_error='ignore'),
        2,
        ('--on-error', "'ignore'", 'skip.*raise'),
        'argparse',
    ),
    Case(
        MASKS,
        'no folder of images to go with masks',
        masks(lambda f: (f / 'images').rename(f / 'pictures'), *CLASSES),
        1,
        ('images', "'images'", 'is not a folder'),
    ),
    Case(
        MASKS,
        'an image without a mask',
        masks(lambda f: (f / 'masks' / 'a.png').unlink(), *CLASSES),
        1,
        ('a.png', 'masks', 'no mask|no such'),
    ),
    Case(
        MASKS,
        'a mask image of another size',
        masks(lambda f: write_image(f / 'masks' / 'a.png', 24, 16, value=1), *CLASSES),
        1,
        ('masks/a.png', '24 x 16', 'its image is 16 x 24'),
    ),
    Case(
        MASKS,
        'a mask image of two pages',
        masks(of_pages, *CLASSES),
        1,
        ('masks/a.tif', 'holds 2 pages', 'save each page as an image'),
    ),
    Case(
        MASKS,
        'a mask image with a border of -1',
        masks(with_a_border, *CLASSES),
        1,
        ('masks/a.tif', 'the negative value -1', '--ignore-values -1'),
    ),
    Case(
        MASKS,
        'a file of the name of a mask that is none',
        masks(text_for_mask, *CLASSES, '--empty-without-mask'),
        1,
        ('masks/a.txt', 'a mask is one of', '.png, .tif'),
    ),
    Case(
        MASKS,
        'a mask image in colors',
        masks(colors, *CLASSES),
        1,
        ('masks/a.png', 'colors', 'one number per pixel, or indices of a palette'),
    ),
    Case(
        MASKS,
        'a value that is no class',
        masks(untouched, '--kind', 'classes', '--classes', 'rod'),
        1,
        ('masks/a.png', 'holds 2', r'there are 1 \(rod\)'),
    ),
    Case(
        MASKS,
        'a mask image that is text',
        masks(lambda f: (f / 'masks' / 'a.png').write_text('404'), *CLASSES),
        1,
        ('masks/a.png', 'not readable', 'as an image'),
    ),
    Case(
        MASKS,
        'more values than classes',
        masks(untouched, *CLASSES, '--values', '1', '2', '3'),
        1,
        ('values', r'\(1, 2, 3\)', 'each of 2 classes'),
    ),
    Case(
        MASKS,
        'class_divisor of 1',
        masks(untouched, '--kind', 'objects', '--class-divisor', '1'),
        1,
        ('class_divisor', 'is 1', '2 or more'),
    ),
    Case(MASKS, 'min_area of 0', masks(untouched, *CLASSES, '--min-area', '0'), 1, ('min_area', 'is 0', '1 or more')),
    Case(
        MASKS,
        'classes named twice',
        masks(untouched, '--kind', 'classes', '--classes', 'rod', 'rod'),
        1,
        ('classes', "'rod', 'rod'", 'each once'),
    ),
    Case(LABELME, 'a LabelMe file that is no JSON', labelme(text='{"shapes": ['), 1, ('a.json', 'char', 'not JSON')),
    Case(
        LABELME,
        'a JSON file that is none of LabelMe',
        labelme(text='{"images": []}'),
        1,
        ('a.json', 'not a LabelMe file', "list 'shapes'"),
    ),
    Case(
        LABELME,
        'a shape without a label',
        labelme(lambda data: data['shapes'][0].pop('label')),
        1,
        ('a.json', r'shapes\[0\]', "'label'"),
    ),
    Case(
        LABELME,
        'a label that is no class',
        labelme(first_shape(label='cat'), '--classes', 'rod'),
        1,
        (r'a.json: shapes\[0\]', "'cat'", 'there are rod'),
    ),
    Case(
        LABELME,
        'a polygon of two points in LabelMe',
        labelme(first_shape(points=[[2, 3], [14, 3]])),
        1,
        (r'a.json: shapes\[0\]', '2 points', '3 or more'),
    ),
    Case(
        LABELME,
        'a shape of an unknown type',
        labelme(first_shape(shape_type='spiral')),
        1,
        (r'a.json: shapes\[0\]', "shape_type is 'spiral'", 'not known'),
    ),
    Case(
        LABELME,
        'a LabelMe file of an image that is not there',
        labelme(lambda data: data.update(imagePath='e.png')),
        1,
        ('a.json', "'e.png'", "no image.*no 'imageData'"),
    ),
    Case(
        LABELME,
        'a LabelMe file of another size than its image',
        labelme(lambda data: data.update(imageWidth=16)),
        1,
        ('a.json', '16 x 16', "'a.png' is 16 x 24"),
    ),
    Case(
        LABELME,
        'the dataset in the folder of its source',
        lambda folder: (labelme()(folder), tool('dataset_converters/labelme', 'source', 'source/out'))[1],
        1,
        ('out_dir', "'source/out'", "lies in source 'source'"),
    ),
    Case(SHAPES, 'no images to train on', shapes('--num-train', '0'), 1, ('num_train', 'is 0', 'takes 1 or more')),
    Case(
        SHAPES,
        'images of negative size',
        shapes('--image-size', '-64', '64'),
        1,
        ('image_size', r'\(-64, 64\)', '32 to 4096'),
    ),
    Case(
        SHAPES, 'images too small', shapes('--image-size', '16', '64'), 1, ('image_size', r'\(16, 64\)', '32 to 4096')
    ),
    Case(
        SHAPES,
        'a shape that there is not',
        shapes('--classes', 'ring', 'cube'),
        1,
        ('classes', r"'cube'", 'one or more of ellipse'),
    ),
    Case(
        SHAPES,
        'fewest above most',
        shapes('--num-objects', '5', '2'),
        1,
        ('num_objects', r'\(5, 2\)', '1 <= fewest <= most'),
    ),
    Case(
        SHAPES,
        'objects larger than their image',
        shapes('--area', '100', '1e9'),
        1,
        ('area', r'1000000000.0', 'height . width = '),
    ),
    Case(
        SHAPES, 'objects without area', shapes('--area', '0', '100'), 1, ('area', r'\(0.0, 100.0\)', '16 <= smallest')
    ),
    Case(
        SHAPES,
        'nothing need be visible',
        shapes('--min-visible', '0'),
        1,
        ('min_visible', 'is 0.0', 'above 0, up to 1'),
    ),
    Case(
        SHAPES,
        'more than all images empty',
        shapes('--empty-fraction', '1.5'),
        1,
        ('empty_fraction', 'is 1.5', '0 to 1'),
    ),
    Case(SHAPES, 'a negative seed', shapes('--seed', '-1'), 1, ('seed', 'is -1', r'0 to 2\*\*32 - 1')),
    Case(SHAPES, 'no process', shapes('--workers', '0'), 1, ('workers', 'is 0', '1 or more')),
    Case(
        SHAPES,
        'a folder of other files',
        into_other_files,
        1,
        ('out_dir', "'dataset'", 'holds other files; give a new or an empty folder'),
    ),
    Case(SHAPES, 'a file in the place of the folder', into_a_file, 1, ('out_dir', "'dataset'", 'is not a folder')),
    Case(
        SHAPES,
        'a number of images in words',
        shapes('--num-train', 'many'),
        2,
        ('--num-train', "'many'", 'invalid int value'),
        'argparse',
    ),
]
