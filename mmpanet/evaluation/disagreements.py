# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The images on which two models disagree most, drawn beside the ground truth."""

from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

import cv2
import mmcv
import numpy as np
from pycocotools import mask as coco_mask

from mmpanet.utils.errors import DataError
from mmpanet.utils.files import make_folder, write_json, write_text
from mmpanet.utils.images import decode_image
from mmpanet.utils.palette import LIGHT_BLUE, VERMILION, WHITE, YELLOW, to_bgr
from .annotations import Annotations, Instance, Rle, read_predictions
from .counted_categories import counted_categories
from .instance_errors import FOUND, ErrorCounts, ImageErrors, error_tables, find_errors, without_crowd_regions

TRUTH_COLOR, FOUND_COLOR, FALSE_COLOR, MISSED_COLOR = WHITE, LIGHT_BLUE, VERMILION, YELLOW
LEGEND = 'found: blue, false: vermilion, not found: yellow'
# In pixels.
PANEL_HEIGHT, MARGIN, TITLE_HEIGHT, TITLE_WIDTH = 400, 6, 30, 300
SHEET_COLUMNS, SHEET_WIDTH = 2, 1620


class ComparedImage(NamedTuple):
    """One image, with the predictions and the errors of both models."""

    image_id: int
    file_name: str
    objects: List[Instance]
    predictions: List[List[Instance]]
    errors: List[ImageErrors]

    @property
    def gain(self) -> float:
        """F1 of the second model less that of the first."""
        return self.errors[1].f1 - self.errors[0].f1


def compare_predictions(
    annotation_file: Path,
    image_dir: Path,
    files: Sequence[Path],
    names: Sequence[str],
    out_dir: Path,
    score_thr: float = 0.5,
    num_pictures: int = 10,
    classes: Sequence[str] = (),
) -> Iterator[str]:
    """Compare the predictions of two models object by object.

    ``out_dir`` gets ``errors.md`` and ``.json`` with counts by kind, ``images.json`` with the F1 of each image, and the
    images on which each model is ahead most: pictures in the folder ``better_<name>``, and a sheet of them. They take
    the place of those of an earlier comparison.

    Args:
        annotation_file: In COCO's format.
        image_dir: The folder of the images.
        files: The ``.segm.json`` files of mmdet's ``CocoMetric``, one per model.
        names: The names of the two models.
        out_dir: Is made if it does not exist.
        score_thr: Predictions with a lower score are left out.
        num_pictures: For each model.
        classes: The categories that count, by name: those of the models. By default all of the file count.

    Returns:
        What was found and written, line by line.

    Raises:
        ConfigError: If ``out_dir`` cannot be made.
        DataError: If a file does not exist or has another format, if there is no such class, or if no file has a
            detection of a category that has objects.
    """
    images = _compare_images(annotation_file, files, score_thr, classes)
    counts = {name: ErrorCounts() for name in names}
    for image in images:
        for name, errors in zip(names, image.errors):
            counts[name].add(image.objects, errors)
    first = [image for image in sorted(images, key=lambda image: image.gain) if image.gain < 0]
    second = [image for image in sorted(images, key=lambda image: -image.gain) if image.gain > 0]
    pictures = [_draw_images(ahead[:num_pictures], image_dir, names) for ahead in (first, second)]
    make_folder(out_dir, 'out_dir')
    write_text(out_dir / 'errors.md', error_tables(counts))
    write_json(out_dir / 'errors.json', {name: one.as_dict() for name, one in counts.items()})
    f1_by_image = [
        dict(file_name=image.file_name, f1={name: round(one.f1, 4) for name, one in zip(names, image.errors)})
        for image in images
    ]
    write_json(out_dir / 'images.json', f1_by_image)
    yield error_tables(counts)
    yield (
        f'{len(images)} images; {names[1]} is ahead on {len(second)}, {names[0]} on {len(first)} '
        f'(F1 of objects with a score from {score_thr} and an IoU from 0.5)'
    )
    for name, drawn in zip(names, pictures):
        yield _write_pictures(drawn, out_dir / f'better_{name}')


def _compare_images(
    annotation_file: Path, files: Sequence[Path], score_thr: float, classes: Sequence[str]
) -> List[ComparedImage]:
    annotations = Annotations(annotation_file)
    annotations.check_masks()
    everything = [read_predictions(file, annotations) for file in files]
    found = {one['category_id'] for by_image in everything for instances in by_image.values() for one in instances}
    counted = counted_categories(annotations, classes, found)

    def of_counted(instances: Sequence[Instance]) -> List[Instance]:
        return [one for one in instances if one['category_id'] in counted and one.get('score', 1) >= score_thr]

    images = []
    for image_id, info in annotations.images.items():
        objects, crowds = of_counted(annotations.objects(image_id)), of_counted(annotations.crowds(image_id))
        predictions = [without_crowd_regions(objects, of_counted(one[image_id]), crowds) for one in everything]
        errors = [find_errors(objects, found) for found in predictions]
        if not isinstance(info.get('file_name'), str):
            raise DataError(f"{annotation_file}: image {image_id} has no 'file_name', by which its picture is found")
        images.append(ComparedImage(image_id, info['file_name'], objects, predictions, errors))
    return images


def _draw_images(images: Sequence[ComparedImage], image_dir: Path, names: Sequence[str]) -> Dict[str, np.ndarray]:
    """Pictures by the names of their files."""
    pictures = {}
    for place, compared in enumerate(images, start=1):
        file = image_dir / compared.file_name
        if not file.is_file():
            raise DataError(f'{file}: no such image')
        image = decode_image(file.read_bytes(), cv2.IMREAD_COLOR, str(file))
        pictures[f'{place:02}_{file.stem}.png'] = draw_comparison(image, compared, names)
    return pictures


def _write_pictures(pictures: Dict[str, np.ndarray], folder: Path) -> str:
    sheet = Path(f'{folder}.jpg')
    for old in (*folder.glob('[0-9][0-9]*_*.png'), sheet):  # of an earlier comparison
        if old.is_file():
            old.unlink()
    for name, picture in pictures.items():
        mmcv.imwrite(picture, str(folder / name))
    if not pictures:
        return f'0 pictures in {folder}'
    mmcv.imwrite(contact_sheet(list(pictures.values())), str(sheet))
    return f'{len(pictures)} pictures in {folder}, together in {sheet}'


def draw_comparison(image: np.ndarray, compared: ComparedImage, names: Sequence[str]) -> np.ndarray:
    """Ground truth and both models side by side: what is found, what is false, and which objects are not found.

    Args:
        image: BGR, (H, W, 3).
        compared: Its objects and predictions.
        names: The names of the two models.

    Returns:
        The picture, BGR; the panels are 400 pixels high.
    """
    scale = PANEL_HEIGHT / image.shape[0]
    truth = _draw_outlines(image, scale, [(one['mask'], TRUTH_COLOR) for one in compared.objects])
    panels = [_add_title(truth, f'truth: {len(compared.objects)}')]
    for found, errors, name in zip(compared.predictions, compared.errors, names):
        outlines = [
            (one['mask'], MISSED_COLOR) for one, kind in zip(compared.objects, errors.object_kinds) if kind != FOUND
        ]
        outlines += [
            (one['mask'], FOUND_COLOR if index >= 0 else FALSE_COLOR) for one, index in zip(found, errors.found_object)
        ]
        panels.append(_add_title(_draw_outlines(image, scale, outlines), f'{name}: F1 {errors.f1:.2f}'))
    return np.hstack(panels)


def contact_sheet(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures in columns. Each one is scaled to the width of a column and put below the shortest column so far."""
    width = SHEET_WIDTH // SHEET_COLUMNS - MARGIN
    columns: List[List[np.ndarray]] = [[] for _ in range(SHEET_COLUMNS)]
    heights = [0] * SHEET_COLUMNS
    for one in pictures:
        shortest = heights.index(min(heights))
        height = max(1, round(one.shape[0] * width / one.shape[1]))
        scaled = cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA)
        columns[shortest].append(_on_white(scaled, scaled.shape[0] + MARGIN, width + MARGIN))
        heights[shortest] += scaled.shape[0] + MARGIN
    blank = np.full((0, width + MARGIN, 3), 255, np.uint8)
    return np.hstack([_on_white(np.vstack([blank, *column]), max(heights), width + MARGIN) for column in columns])


def _draw_outlines(image: np.ndarray, scale: float, outlines: Sequence[Tuple[Rle, str]]) -> np.ndarray:
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    panel = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    for mask, color in outlines:
        # An object that is smaller than a pixel of the panel must not vanish.
        how, least = (cv2.INTER_AREA, 0) if scale < 1 else (cv2.INTER_LINEAR_EXACT, 127)
        scaled = cv2.resize(255 * coco_mask.decode(mask), size, interpolation=how) > least
        contours, _ = cv2.findContours(scaled.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(panel, contours, -1, to_bgr(color), 2)
    return panel


def _add_title(panel: np.ndarray, title: str) -> np.ndarray:
    canvas = _on_white(panel, panel.shape[0], max(panel.shape[1], TITLE_WIDTH) + MARGIN, TITLE_HEIGHT)
    cv2.putText(canvas, title, (2, TITLE_HEIGHT - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.65, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas


def _on_white(panel: np.ndarray, height: int, width: int, top: int = 0) -> np.ndarray:
    """The panel on a white canvas of ``height`` x ``width`` pixels, with ``top`` more rows above it."""
    canvas = np.full((top + height, width, 3), 255, np.uint8)
    canvas[top : top + panel.shape[0], : panel.shape[1]] = panel
    return canvas
