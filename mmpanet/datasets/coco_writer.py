# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Write an instance segmentation dataset in COCO format, whole or not at all.

Every dataset of this package has one layout::

    <out_dir>/
      images/      one file an image
      train.json   COCO instances, masks as compressed RLE or as polygons
      val.json

The ``info`` of each JSON file carries the *recipe*, the name of the generator
and the arguments it ran with. A folder is recognised by it afterwards.
"""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
from pycocotools import mask as mask_utils

IMAGE_DIR = 'images'
SPLITS = ('train', 'val')


def encode_instance(mask: np.ndarray, category_id: int) -> dict:
    """Describe one binary mask as COCO does.

    Args:
        mask (np.ndarray): (H, W), True or non-zero inside the object.
        category_id (int): Id of its category.

    Returns:
        dict: An annotation without the ids of itself and of its image.
    """
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    segmentation = dict(size=[int(side) for side in rle['size']], counts=rle['counts'].decode('ascii'))
    return _annotation(rle, segmentation, category_id)


def encode_polygons(polygons: Sequence[np.ndarray], size: Tuple[int, int], category_id: int) -> dict:
    """Describe an object of one or more polygons as COCO does.

    Args:
        polygons (Sequence[np.ndarray]): Each (V, 2) of x, y in pixels, where
            pixel (0, 0) covers [0, 1) x [0, 1). The object is all that lies
            in any of them.
        size (tuple[int]): Height and width of the image.
        category_id (int): Id of its category.

    Returns:
        dict: An annotation without the ids of itself and of its image. Box
        and area are those of the pixels that pycocotools takes it to cover.
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
    """Write one split.

    Args:
        path (Path): The JSON file.
        images (Iterable[dict]): One dict an image with ``file_name``,
            ``height``, ``width`` and ``instances``, the list of what
            :func:`encode_instance` returned. Ids are given in this order,
            from 1.
        classes (Sequence[str]): Category names; ids are given from 1.
        info (dict): What to put under ``info``.
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
    """The recipe a dataset was written with, None where there is none.

    Args:
        out_dir (Path): The folder of the dataset.
        complete (bool): Take no dataset that lost one of its files.
            Defaults to True.
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
    """A folder to build a dataset in, put in place when it is complete.

    The folder lies beside ``out_dir`` and is renamed to it at the end of the
    ``with`` block; if the block raises, it is removed and ``out_dir`` stays
    as it was.

    Args:
        out_dir (Path): Where the dataset shall lie.
        recipe (dict): Generator and arguments, JSON-serialisable.
        force (bool): Replace a dataset of another recipe. A folder that none
            of this package's writers made is never replaced.
            Defaults to False.

    Yields:
        Path | None: The folder to build in, with an empty ``images/``; None
        if ``out_dir`` already holds the dataset of this very recipe.
    """
    # Compare what would be read back: JSON has no tuples.
    recipe = json.loads(json.dumps(recipe))
    out_dir = Path(out_dir)
    if out_dir.is_dir() and any(out_dir.iterdir()):
        if read_recipe(out_dir) == recipe:
            yield None
            return
        found = read_recipe(out_dir, complete=False)
        if found is None:
            raise FileExistsError(f'out_dir {str(out_dir)!r} holds other files; give a new or an empty folder')
        if not force:
            raise FileExistsError(
                f'out_dir {str(out_dir)!r} holds another dataset '
                f'({_difference(found, recipe)}); replace it with force '
                '(--force) or give another folder'
            )
    elif out_dir.exists() and not out_dir.is_dir():
        raise FileExistsError(f'out_dir {str(out_dir)!r} is not a folder')

    out_dir = out_dir.resolve()  # a link is followed, not replaced
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f'.{out_dir.name}.', dir=out_dir.parent))
    try:
        (building / IMAGE_DIR).mkdir()
        yield building
        building.chmod(0o777 & ~_umask())  # mkdtemp makes it private
        _replace(building, out_dir)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _replace(new: Path, old: Path) -> None:
    """Rename ``new`` to ``old``, and remove what was there."""
    if not old.exists():
        os.rename(new, old)
        return
    aside = Path(tempfile.mkdtemp(prefix=f'.{old.name}.', dir=old.parent))
    try:
        os.rename(old, aside / 'old')
        try:
            os.rename(new, old)
        except OSError:
            os.rename(aside / 'old', old)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _difference(found: dict, recipe: dict) -> str:
    keys = [key for key in {**recipe, **found} if found.get(key) != recipe.get(key)]
    return (
        '; '.join(f'{key} is {found.get(key)!r}, asked for {recipe.get(key)!r}' for key in keys)
        or 'the same one, but files are missing'
    )
