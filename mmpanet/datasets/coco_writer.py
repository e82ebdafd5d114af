# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Write an instance segmentation dataset in COCO format.

Every dataset of this package has the same layout::

    <out_dir>/
      images/      the image files
      train.json   COCO instances, masks as compressed RLE or as polygons
      val.json

The ``info`` of each JSON file holds the *recipe*: the name of the generator and its arguments. A folder is recognized
by its recipe. Ids of images, annotations and categories start at 1, because COCO's evaluation counts an object with
the id 0 as not found.
"""

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple, Union

import numpy as np
from pycocotools import mask as mask_utils

from mmpanet.utils.errors import DataError
from mmpanet.utils.files import atomic_folder

IMAGE_DIR = 'images'
SPLITS = ('train', 'val')
MARK_OF_MAKE = '.made'
LEFT_BY_FILE_MANAGERS = {'.DS_Store', 'Thumbs.db'}


def encode_instance(mask: np.ndarray, category_id: int) -> dict:
    """Make the COCO annotation of a binary mask.

    Args:
        mask (np.ndarray): (H, W), True or non-zero inside the object.
        category_id (int): Id of its category.

    Returns:
        dict: The annotation, without its own id and that of its image.
    """
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    segmentation = dict(size=[int(side) for side in rle['size']], counts=rle['counts'].decode('ascii'))
    return _annotation(rle, segmentation, category_id)


def encode_polygons(polygons: Sequence[np.ndarray], size: Tuple[int, int], category_id: int) -> dict:
    """Make the COCO annotation of an object that is the union of polygons.

    Args:
        polygons (Sequence[np.ndarray]): Each (V, 2) of x, y in pixels. Pixel (0, 0) covers [0, 1) x [0, 1).
        size (tuple[int]): Height and width of the image.
        category_id (int): Id of its category.

    Returns:
        dict: The annotation, without its own id and that of its image. Box and area are those of the pixels that
        pycocotools fills.
    """
    segmentation = [polygon.ravel().tolist() for polygon in polygons]
    rle = mask_utils.merge(mask_utils.frPyObjects(segmentation, *size))
    return _annotation(rle, segmentation, category_id)


def _annotation(rle: dict, segmentation: Union[dict, list], category_id: int) -> dict:
    return dict(
        category_id=category_id,
        iscrowd=0,
        bbox=mask_utils.toBbox(rle).tolist(),
        area=int(mask_utils.area(rle)),
        segmentation=segmentation,
    )


def write_annotations(path: Path, images: Iterable[dict], classes: Sequence[str], info: dict) -> None:
    """Write the annotation file of one split.

    Args:
        path (Path): The JSON file.
        images (Iterable[dict]): One dict per image with ``file_name``, ``height``, ``width`` and ``instances``, a list
            of annotations from :func:`encode_instance` or :func:`encode_polygons`. Ids are given in this order.
        classes (Sequence[str]): Names of the categories, in the order of their ids.
        info (dict): The value of ``info``.
    """
    image_list: List[dict] = []
    annotations: List[dict] = []
    for image_id, image in enumerate(images, start=1):
        image = dict(image)
        for instance in image.pop('instances'):
            annotations.append(dict(id=len(annotations) + 1, image_id=image_id, **instance))
        image_list.append(dict(id=image_id, **image))
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, start=1)]
    with open(path, 'w', encoding='utf-8', newline='\n') as file:
        json.dump(
            dict(info=info, images=image_list, annotations=annotations, categories=categories),
            file,
            separators=(',', ':'),
        )
        file.write('\n')


def read_recipe(out_dir: Path, complete: bool = True) -> Optional[Dict]:
    """Read the recipe of a dataset, None if the folder has none.

    Args:
        out_dir (Path): The folder of the dataset.
        complete (bool): Return None for a dataset that has lost one of its files. Defaults to True.
    """
    recipe = None
    for split in SPLITS:
        try:
            with open(out_dir / f'{split}.json', encoding='utf-8') as file:
                data = json.load(file)
            recipe = data['info']['recipe']
            names = [image['file_name'] for image in data['images']]
        except (OSError, ValueError, KeyError, TypeError):
            if complete:
                return None
            continue
        if complete and not all((out_dir / IMAGE_DIR / name).is_file() for name in names):
            return None
    return recipe


@contextmanager
def dataset_folder(out_dir: Path, recipe: dict, force: bool = False) -> Iterator[Optional[Path]]:
    """Yield a folder to build a dataset in. It replaces ``out_dir`` at the end of the ``with`` block.

    If the block raises, ``out_dir`` stays as it was.

    Args:
        out_dir (Path): The folder of the dataset.
        recipe (dict): The generator and its arguments, as JSON can hold them.
        force (bool): Replace a dataset with another recipe. A folder that was not written by this package is never
            replaced. Defaults to False.

    Yields:
        Path | None: The folder to build in, with an empty ``images/``, or None if ``out_dir`` already holds the
        dataset of this recipe.

    Raises:
        DataError: If ``out_dir`` holds other files, or another dataset and ``force`` is not given, or if it cannot be
            replaced because a file system is mounted there. Also if files come into it during the ``with`` block.
    """
    recipe = json.loads(json.dumps(recipe))  # as it would be read again: JSON has no tuples
    out_dir = Path(out_dir)
    if out_dir.is_dir() and any(out_dir.iterdir()):
        if read_recipe(out_dir) == recipe:
            yield None
            return
        found = read_recipe(out_dir, complete=False)
        if found is None:
            raise DataError(f'out_dir {str(out_dir)!r} holds other files; give a new or an empty folder')
        others = _other_files(out_dir)
        if others:
            raise DataError(
                f'out_dir {str(out_dir)!r} holds {others[0]!r} beside its dataset, which would be lost; move it, or '
                'give another folder'
            )
        if not force:
            raise DataError(
                f'out_dir {str(out_dir)!r} holds another dataset ({_difference(found, recipe)}); replace it with '
                'force (--force), or give another folder'
            )
    elif out_dir.exists() and not out_dir.is_dir():
        raise DataError(f'out_dir {str(out_dir)!r} is not a folder')
    if os.path.ismount(out_dir.resolve()):
        raise DataError(
            f'out_dir {str(out_dir)!r} is where a file system is mounted, and cannot be replaced as a whole; give a '
            'folder below it'
        )
    before = _contents(out_dir)
    with atomic_folder(out_dir) as building:
        (building / IMAGE_DIR).mkdir()
        yield building
        changed = [path for path, state in _contents(out_dir).items() if before.get(path) != state]
        if changed:
            raise DataError(
                f'out_dir {str(out_dir)!r}: {str(changed[0])!r} was written while the dataset was made, and would be '
                'lost; give another folder'
            )


def _other_files(out_dir: Path) -> List[str]:
    """What a folder holds besides the files of its dataset, by name."""
    own: Set[Path] = {Path(IMAGE_DIR), Path(MARK_OF_MAKE)}
    for split in SPLITS:
        file = Path(f'{split}.json')
        try:
            data = json.loads((out_dir / file).read_text(encoding='utf-8'))
            data['info']['recipe']  # without it, the file was written by another program
            own.update([file, *(Path(IMAGE_DIR, image['file_name']) for image in data['images'])])
        except (OSError, ValueError, LookupError, TypeError):
            continue  # a split that was lost; its images are said to be other files
    own.update(parent for path in list(own) for parent in path.parents)
    return sorted(str(path) for path in _contents(out_dir) if path not in own)


def _contents(out_dir: Path) -> Dict[Path, Tuple[int, ...]]:
    """What lies in a folder and its ``images/``, without what file managers leave, and the state of each file."""
    if not out_dir.is_dir():
        return {}
    paths = [*out_dir.iterdir(), *(out_dir / IMAGE_DIR).rglob('*')]
    return {
        path.relative_to(out_dir): () if path.is_dir() else _state(path)
        for path in paths
        if path.name not in LEFT_BY_FILE_MANAGERS
    }


def _state(path: Path) -> Tuple[int, ...]:
    """Numbers that change when a file is written. Two writes within a tick of the clock have the same time."""
    found = path.lstat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _difference(found: dict, recipe: dict) -> str:
    keys = [key for key in {**recipe, **found} if found.get(key) != recipe.get(key)]
    return (
        '; '.join(f'{key} is {found.get(key)!r}, not {recipe.get(key)!r}' for key in keys)
        or 'with the same recipe, but files are missing'
    )
