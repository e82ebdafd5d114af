# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Predictions on images, folders and videos, written whole: pictures, and JSON that can be read again."""

from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import mmcv

from mmpanet.utils.errors import ConfigError, DataError
from mmpanet.utils.files import atomic_write, make_folder, write_json
from mmpanet.utils.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, list_files
from .inference import CheckedInferencer
from .video import VideoWriter, count_frames, frame_files


def find_images(paths: Sequence[Path]) -> List[Path]:
    """Find images among files and folders.

    Args:
        paths: Files, and folders of which the files right in them are taken.

    Returns:
        Files, in the order of ``paths``, those of a folder in the order of their names.

    Raises:
        DataError: If a folder holds none, or a path is not there or of no kind that can be read.
    """
    return _find(paths, IMAGE_SUFFIXES, 'image')


def find_inputs(paths: Sequence[Path]) -> List[Path]:
    """Find images and videos, as :func:`find_images` finds images.

    Raises:
        DataError: Also if two differ in folder or suffix alone, because what is written for them would have one name.
    """
    found = _find(paths, IMAGE_SUFFIXES + VIDEO_SUFFIXES, 'image or video')
    by_stem: Dict[str, Path] = {}
    for path in found:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise DataError(
                f'{other} and {path} would both be written to {path.stem}.json: predict them one by one, '
                'into different folders'
            )
    return found


def _find(paths: Sequence[Path], suffixes: Tuple[str, ...], kinds: str) -> List[Path]:
    found: List[Path] = []
    for path in paths:
        if path.is_dir():
            inside = list_files(path, suffixes, recursive=False)
            if not inside:
                raise DataError(f'{path}: no {kinds} in this folder; taken are {", ".join(suffixes)}')
            found += inside
        elif not path.is_file():
            raise DataError(f'{path}: no such file or folder')
        elif path.suffix.lower() not in suffixes:
            raise DataError(f'{path}: is no {kinds}; taken are {", ".join(suffixes)}')
        else:
            found.append(path)
    return found


class Output(NamedTuple):
    """What was written for one image or video.

    Attributes:
        source: The image or video.
        picture: The picture or video with the objects, or None if not asked for.
        predictions: The JSON file, or None if not asked for.
        num_objects: Objects above the score threshold, over all frames.
        missing_frames: Frames that the header of a video names, and that could not be decoded.
    """

    source: Path
    picture: Optional[Path]
    predictions: Optional[Path]
    num_objects: int
    missing_frames: int


def predict(
    inferencer: CheckedInferencer,
    source: Path,
    out_dir: Path,
    score_thr: float = 0.3,
    pictures: bool = True,
    predictions: bool = True,
    batch_size: int = 1,
) -> Output:
    """Predict one image, or every frame of a video.

    Args:
        inferencer: The detector.
        source: The image or video.
        out_dir: Gets ``vis`` and ``preds``. Each file in them is written whole or not at all.
        score_thr: Objects below this score are not drawn.
        pictures: Write ``vis/<name>``, the image with its objects. A video becomes an mp4, and a pgm becomes a png.
        predictions: Write ``preds/<stem>.json`` as ``DetInferencer`` does: labels, scores, bboxes (x1, y1, x2, y2 in
            pixels) and masks in COCO's compressed RLE, of all objects. For a video it is a list with one entry for
            each frame.
        batch_size: Frames of a video that are predicted at once.

    Raises:
        ConfigError: If the detector predicts panoptic segments, or if the folders cannot be made.
        DataError: If the source cannot be loaded, would be replaced by its own picture, or if the video of the pictures
            cannot be written.
    """
    panoptic = getattr(inferencer.model, 'panoptic_fusion_head', None)
    if panoptic is not None and (panoptic.test_cfg or {}).get('panoptic_on', True):
        raise ConfigError(
            f'a {type(inferencer.model).__name__} predicts panoptic segments, and only objects can be written'
        )
    is_video = source.suffix.lower() in VIDEO_SUFFIXES
    picture = out_dir / 'vis' / _picture_name(source) if pictures else None
    json_file = out_dir / 'preds' / f'{source.stem}.json' if predictions else None
    for path in filter(None, (picture, json_file)):
        if path.resolve() == source.resolve():
            raise DataError(f'{source}: would be replaced by its own picture; give another folder to write to')
        make_folder(path.parent, 'out_dir')
    found: List[dict] = []
    with ExitStack() as stack:
        part = stack.enter_context(atomic_write(picture)) if picture else None
        writer = stack.enter_context(closing(VideoWriter(part, source))) if part and is_video else None
        files: Iterator[Path] = iter([source])
        if is_video:
            files = frame_files(source, Path(stack.enter_context(TemporaryDirectory())))
        for batch in iter(lambda: list(islice(files, batch_size)), []):
            names = [str(file) for file in batch]
            result = inferencer(names, batch_size=len(names), return_vis=pictures, pred_score_thr=score_thr)
            found += result['predictions']
            if writer:
                writer.add(result['visualization'])
            elif part:
                mmcv.imwrite(result['visualization'][0][..., ::-1], str(part))
            if is_video:
                for frame in batch:
                    frame.unlink()
        if writer:
            writer.finish()
    missing = max(0, count_frames(source) - len(found)) if is_video else 0
    if json_file:
        write_json(json_file, found if is_video else found[0], indent=None)
    num_objects = sum(score >= score_thr for one in found for score in one['scores'])
    return Output(source, picture, json_file, num_objects, missing)


def _picture_name(source: Path) -> str:
    if source.suffix.lower() in VIDEO_SUFFIXES:
        return f'{source.stem}.mp4'
    # A picture has colors, which this format has no place for.
    return f'{source.stem}.png' if source.suffix.lower() == '.pgm' else source.name
