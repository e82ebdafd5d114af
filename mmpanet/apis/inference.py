# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Predictions on images, folders and videos by mmdet's ``DetInferencer``: pictures, and JSON that can be read again."""

import functools
import json
import os
import pickle
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config

from mmdet.apis import DetInferencer
from mmdet.registry import VISUALIZERS
from mmdet.visualization import DetLocalVisualizer
from mmpanet.checkpoints.files import load_untrusted
from mmpanet.checkpoints.matching import weights_mismatch
from mmpanet.utils.errors import CheckpointError

IMAGES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')
Progress = Callable[[str], None]


class InputError(ValueError):
    """An image, video or checkpoint that cannot be used; the message names the file."""


@VISUALIZERS.register_module()
class UnlabelledVisualizer(DetLocalVisualizer):
    """mmdet's visualizer without the text at each object, which hides small and crowded ones."""

    def draw_texts(self, *args, **kwargs):
        return self


class CheckedInferencer(DetInferencer):
    """mmdet's inferencer, which refuses weights of another model; mmdet's takes them, and predicts at random."""

    def __init__(self, model, weights, **kwargs):
        self._weights = str(weights)
        is_here = '://' not in self._weights
        if is_here and not Path(weights).is_file():
            raise InputError(f'checkpoint {weights}: no such file')
        try:
            super().__init__(model, self._weights, **kwargs)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            if not is_here:
                raise InputError(f'checkpoint {weights}: {error}') from error
            try:
                load_untrusted(weights)
            except CheckpointError as reason:
                raise InputError(f'checkpoint {reason}') from error
            raise

    def _load_weights_to_model(self, model, checkpoint, cfg):
        fault = weights_mismatch(model, checkpoint.get('state_dict', checkpoint))
        if fault:
            raise InputError(f'checkpoint {self._weights}: {fault}')
        super()._load_weights_to_model(model, checkpoint, cfg)


def load_inferencer(
    cfg: Config, checkpoint: str, device: Optional[str] = None, labels: bool = True
) -> CheckedInferencer:
    """An inferencer for a config and a checkpoint.

    Args:
        cfg: Of a detector.
        checkpoint: Path or URL; read by torch's safe loader.
        device: By default an accelerator if there is one.
        labels: Whether the pictures say class and score at each object.

    Raises:
        InputError: If the checkpoint is not whole, or not the config's, or there is no such device.
    """
    try:
        torch.device(device or 'cpu')
    except RuntimeError as error:
        raise InputError(f"--device {device!r} must be a device of torch's, such as cuda:0 or cpu") from error
    # Files are written here; the config's backends would want a work folder.
    cfg.visualizer = dict(cfg.get('visualizer', dict(type='DetLocalVisualizer')), vis_backends=[])
    if not labels:
        cfg.visualizer.type = 'UnlabelledVisualizer'
    return CheckedInferencer(cfg, checkpoint, device=device, show_progress=False)


def find_inputs(paths: Sequence[Path], videos: bool = True) -> List[Path]:
    """Images, and if wanted videos, among files and folders (the files right in them), in order.

    Raises:
        InputError: If there is none, one is not there or of no kind that can be read, or two would be written into
            one file.
    """
    kinds, taken = ('an image nor a video', IMAGES + VIDEOS) if videos else ('an image', IMAGES)
    found: List[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in taken)
            if not inside:
                raise InputError(
                    f'{path}: no image{" or video" if videos else ""} in this folder; taken are {", ".join(taken)}'
                )
            found += inside
        elif not path.is_file():
            raise InputError(f'{path}: no such file or folder')
        elif path.suffix.lower() not in taken:
            raise InputError(f'{path}: {"neither" if videos else "not"} {kinds}; taken are {", ".join(taken)}')
        else:
            found.append(path)
    by_stem: Dict[str, Path] = {}
    for path in found:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise InputError(
                f'{other} and {path} would both be written to {path.stem}.json: predict them one by one, '
                'into different folders'
            )
    return found


class Output(NamedTuple):
    """What was written for one image or video; None for what was not asked for."""

    source: Path
    picture: Optional[Path]
    predictions: Optional[Path]
    num_objects: int  # those above the score threshold, over all frames


def predict(
    inferencer: DetInferencer,
    source: Path,
    out_dir: Path,
    score_thr: float = 0.3,
    pictures: bool = True,
    predictions: bool = True,
    batch_size: int = 1,
    progress: Progress = lambda line: None,
) -> Output:
    """Predict one image, or every frame of a video.

    ``out_dir/vis`` gets the picture (or the video, as mp4) with all objects above the threshold; ``out_dir/preds`` the
    JSON of all objects, as ``DetInferencer`` writes it: labels, scores, bboxes (x1, y1, x2, y2 in pixels) and masks in
    COCO's compressed RLE; for a video a list, an entry a frame. Each file is there whole or not at all.

    Raises:
        InputError: If the source cannot be decoded.
    """
    is_video = source.suffix.lower() in VIDEOS
    picture = out_dir / 'vis' / (source.stem + '.mp4' if is_video else source.name) if pictures else None
    file = out_dir / 'preds' / f'{source.stem}.json' if predictions else None
    for path in filter(None, (picture, file)):
        path.parent.mkdir(parents=True, exist_ok=True)
    frames = _frames(source) if is_video else iter([read_image(source)])
    found: List[dict] = []
    writer: Optional[_VideoWriter] = None
    try:
        for batch in _batches(frames, batch_size):
            result = inferencer(batch, batch_size=len(batch), return_vis=pictures, pred_score_thr=score_thr)
            found += result['predictions']
            if is_video:
                progress(f'{source.name}: {len(found)} frames')
            if picture and not is_video:
                drawn = result['visualization'][0][..., ::-1]
                _write(picture, functools.partial(mmcv.imwrite, drawn))
            elif picture:
                writer = writer or _VideoWriter(picture, source)
                writer.add(result['visualization'])
        if writer:
            writer.close()
    finally:
        if writer:
            writer.discard()
    if file:
        text = json.dumps(found if is_video else found[0])
        _write(file, lambda part: Path(part).write_text(text))
    return Output(source, picture, file, sum(score >= score_thr for frame in found for score in frame['scores']))


def read_image(path: Path) -> np.ndarray:
    """BGR, as the loading transforms give it."""
    image = None
    with SilentOpenCV():
        data = path.read_bytes()
        if data:
            image = mmcv.imfrombytes(data)
    if image is None:
        raise InputError(f'{path}: cannot be decoded as an image')
    return image


def _frames(path: Path) -> Iterator[np.ndarray]:
    with SilentOpenCV():
        video = mmcv.VideoReader(str(path))
        if not video.opened or not video.width:
            raise InputError(f'{path}: cannot be decoded as a video')
        count = 0
        for frame in video:
            if frame is not None:
                count += 1
                yield frame
        if not count:
            raise InputError(f'{path}: no frame in it can be decoded')


def _batches(frames: Iterator[np.ndarray], size: int) -> Iterator[List[np.ndarray]]:
    batch: List[np.ndarray] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _write(path: Path, write: Callable[[str], object]) -> None:
    """Under another name of the same kind first, so that the file is whole or not there."""
    part = path.with_name(f'.{path.stem}.part{path.suffix}')
    try:
        write(str(part))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


class _VideoWriter:
    """An mp4 with the frame rate of its source."""

    def __init__(self, path: Path, source: Path) -> None:
        self.path, self.part = path, path.with_name(f'.{path.stem}.part.mp4')
        self.fps = mmcv.VideoReader(str(source)).fps or 25
        self.stream: Any = None  # a cv2.VideoWriter, once the size of the frames is known

    def add(self, frames: Sequence[np.ndarray]) -> None:
        for frame in frames:
            if self.stream is None:
                height, width = frame.shape[:2]
                self.stream = cv2.VideoWriter(
                    str(self.part), cv2.VideoWriter.fourcc(*'mp4v'), self.fps, (width, height)
                )
            self.stream.write(frame[..., ::-1])

    def close(self) -> None:
        self.stream.release()
        os.replace(self.part, self.path)

    def discard(self) -> None:
        """What is not finished."""
        if self.stream is not None:
            self.stream.release()
        self.part.unlink(missing_ok=True)


class SilentOpenCV:
    """OpenCV's own lines about a broken file go nowhere: ours names it."""

    def __enter__(self):
        self.level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

    def __exit__(self, *_):
        cv2.utils.logging.setLogLevel(self.level)
