# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The images on which two models disagree most, drawn beside the ground truth."""

import json
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence

import cv2
import mmcv
import numpy as np
from pycocotools import mask as coco_mask

from .instance_errors import (
    FOUND,
    Annotations,
    ImageErrors,
    ResultError,
    Tally,
    compare,
    markdown,
    outside_crowds,
    read_predictions,
)

# Okabe and Ito's, which the colour-blind can tell apart; BGR
TRUTH_COLOUR, FOUND_COLOUR, FALSE_COLOUR, MISSED_COLOUR = (255, 255, 255), (233, 180, 86), (0, 94, 213), (66, 228, 240)
LEGEND = 'found: blue, false: vermilion, not found: yellow'
MARGIN, TITLE_HEIGHT, TITLE_WIDTH = 6, 30, 300
SHEET_COLUMNS, SHEET_WIDTH = 2, 1620


class Compared(NamedTuple):
    """One image, as both models see it."""

    image_id: int
    errors: List[ImageErrors]  # of each model

    @property
    def gain(self) -> float:
        """F1 of the second model less that of the first."""
        return self.errors[1].f1 - self.errors[0].f1


def run(
    annotation_file: Path,
    image_dir: Path,
    files: Sequence[Path],
    names: Sequence[str],
    out_dir: Path,
    score_thr: float = 0.5,
    num_pictures: int = 10,
) -> Iterator[str]:
    """Compare two models' predictions object by object.

    ``out_dir`` gets ``errors.md`` and ``.json`` with counts by kind, ``images.json`` with the F1 of every image, and
    pictures of the images on which each of the models is ahead most, in folders of their names and on a sheet each.

    Args:
        annotation_file: COCO's format.
        image_dir: Where its ``file_name`` are.
        files: The two ``.segm.json`` of mmdet's ``CocoMetric``.
        names: Of the two models.
        out_dir: Is made if it is not there.
        score_thr: Predictions below it are left out.
        num_pictures: For each of the two.

    Returns:
        What was found and written, in lines, as it goes.

    Raises:
        ResultError: If a file is not what it should be.
    """
    annotations = Annotations(annotation_file)
    predictions = [read_predictions(file, annotations, score_thr) for file in files]
    tallies: Dict[str, Tally] = {name: Tally() for name in names}
    compared = []
    for image_id in annotations.images:
        objects, crowds = annotations.objects(image_id), annotations.crowds(image_id)
        for found in predictions:
            found[image_id] = outside_crowds(objects, found[image_id], crowds)
        errors = [compare(objects, found[image_id]) for found in predictions]
        for tally, of_model in zip(tallies.values(), errors):
            tally.add(objects, of_model)
        compared.append(Compared(image_id, errors))
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / 'errors.md').write_text(markdown(tallies))
    (out_dir / 'errors.json').write_text(
        json.dumps({name: tally.as_dict() for name, tally in tallies.items()}, indent=2) + '\n'
    )
    (out_dir / 'images.json').write_text(
        json.dumps(
            [
                dict(
                    file_name=annotations.images[one.image_id]['file_name'],
                    f1={name: round(errors.f1, 4) for name, errors in zip(names, one.errors)},
                )
                for one in compared
            ],
            indent=2,
        )
        + '\n'
    )
    yield markdown(tallies)
    ahead = [sum(one.gain < 0 for one in compared), sum(one.gain > 0 for one in compared)]
    yield (
        f'{len(compared)} images; {names[1]} is ahead on {ahead[1]}, {names[0]} on {ahead[0]} '
        f'(F1 of objects with a score from {score_thr} and an IoU from 0.5)'
    )
    ranked = sorted(compared, key=lambda one: one.gain)
    for name, chosen in (
        (names[0], [one for one in ranked if one.gain < 0][:num_pictures]),
        (names[1], [one for one in ranked[::-1] if one.gain > 0][:num_pictures]),
    ):
        folder, pictures = out_dir / f'better_{name}', []
        for place, one in enumerate(chosen, start=1):
            info = annotations.images[one.image_id]
            file = image_dir / info['file_name']
            image = mmcv.imread(str(file)) if file.is_file() else None
            if image is None:
                raise ResultError(f'{file}: no image that can be read')
            of_image = [found[one.image_id] for found in predictions]
            pictures.append(picture(image, annotations.objects(one.image_id), of_image, one.errors, names))
            mmcv.imwrite(pictures[-1], str(folder / f'{place:02}_{file.stem}.png'))
        if pictures:
            mmcv.imwrite(sheet(pictures), f'{folder}.jpg')
        yield f'{len(pictures)} pictures in {folder}' + (f', together in {folder}.jpg' if pictures else '')


def picture(
    image: np.ndarray,
    objects: Sequence[dict],
    predictions: Sequence[Sequence[dict]],
    errors: Sequence[ImageErrors],
    names: Sequence[str],
    height: int = 400,
) -> np.ndarray:
    """Ground truth and both models side by side: what is found, what is false, and the objects that are not found.

    Args:
        image: BGR, (H, W, 3).
        objects: As :func:`compare` takes them.
        predictions: Of each model, as :func:`compare` takes them.
        errors: Of each model.
        names: Of each model.
        height: Of each panel in pixels.
    """
    scale = height / image.shape[0]
    panels = [(_outlines(image, scale, [(one['mask'], TRUTH_COLOUR) for one in objects]), f'truth: {len(objects)}')]
    for found, of_model, name in zip(predictions, errors, names):
        outlines = [(one['mask'], MISSED_COLOUR) for one, kind in zip(objects, of_model.objects) if kind != FOUND]
        outlines += [
            (one['mask'], FOUND_COLOUR if index >= 0 else FALSE_COLOUR)
            for one, index in zip(found, of_model.predictions)
        ]
        panels.append((_outlines(image, scale, outlines), f'{name}: F1 {of_model.f1:.2f}'))
    return np.hstack([_titled(panel, title) for panel, title in panels])


def sheet(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures in columns, each put under the shortest one so far; each is brought to a column's width."""
    width = SHEET_WIDTH // SHEET_COLUMNS - MARGIN
    columns: List[List[np.ndarray]] = [[] for _ in range(SHEET_COLUMNS)]
    heights = [0] * SHEET_COLUMNS
    for one in pictures:
        shortest = heights.index(min(heights))
        scaled = cv2.resize(one, (width, round(one.shape[0] * width / one.shape[1])), interpolation=cv2.INTER_AREA)
        columns[shortest].append(_padded(scaled, scaled.shape[0] + MARGIN, width + MARGIN))
        heights[shortest] += scaled.shape[0] + MARGIN
    blank = np.full((0, width + MARGIN, 3), 255, np.uint8)
    return np.hstack([_padded(np.vstack([blank, *column]), max(heights), width + MARGIN) for column in columns])


def _outlines(image, scale, outlines):
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    panel = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    for mask, colour in outlines:
        enlarged = cv2.resize(coco_mask.decode(mask), size, interpolation=cv2.INTER_LINEAR_EXACT)
        contours, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(panel, contours, -1, colour, 2)
    return panel


def _titled(panel, title):
    canvas = _padded(panel, panel.shape[0], max(panel.shape[1], TITLE_WIDTH) + MARGIN, TITLE_HEIGHT)
    cv2.putText(canvas, title, (2, TITLE_HEIGHT - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.65, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas


def _padded(panel, height, width, top=0):
    """On white, with ``top`` rows more above."""
    canvas = np.full((top + height, width, 3), 255, np.uint8)
    canvas[top : top + panel.shape[0], : panel.shape[1]] = panel
    return canvas
