# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The categories of an annotation file that count, if it has more than the models know."""

from typing import Container, List, Sequence

from mmpanet.utils.errors import DataError
from .annotations import Annotations


def counted_categories(annotations: Annotations, classes: Sequence[str], found: Container[int]) -> List[int]:
    """The ids of the categories that count, in order.

    Args:
        annotations: The objects.
        classes: The names of the categories that count, which are those of the models. Empty for all of the file.
        found: The ids of the categories that any model has found.

    Raises:
        DataError: If there is no such class, if no object is left, or, without ``classes``, if nobody has found a
            category that has objects.
    """
    names = {one['id']: str(one.get('name', one['id'])) for one in annotations.coco.dataset['categories']}
    unknown = sorted(set(classes) - set(names.values()))
    if unknown:
        raise DataError(
            f'{annotations.file}: no category is named {unknown[0]!r}; there are {", ".join(names.values())}'
        )
    counted = [category for category, name in names.items() if not classes or name in classes]
    objects = {category: len(annotations.coco.getAnnIds(catIds=[category], iscrowd=False)) for category in counted}
    if not any(objects.values()):
        raise DataError(f'{annotations.file}: there is no object of {", ".join(classes) or "any category"}')
    for category, number in objects.items():
        if not classes and number and category not in found:
            raise DataError(
                f'{annotations.file}: no file has a detection of {names[category]!r}, which has {number} objects: name '
                'the classes of the models with --classes'
            )
    return sorted(counted)
