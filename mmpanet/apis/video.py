# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Frames of a video as files, and a video of pictures."""

from pathlib import Path
from typing import Any, Iterator, Sequence

import cv2
import mmcv
import numpy as np

from mmpanet.utils.errors import DataError
from mmpanet.utils.images import silent_opencv

DEFAULT_FPS = 25


def frame_files(video: Path, folder: Path) -> Iterator[Path]:
    """Write each frame of a video into a file, so that a config's own pipeline can load it.

    Args:
        video: The video.
        folder: Where to write. The caller removes the files.

    Yields:
        The path of the next frame, an uncompressed image.

    Raises:
        DataError: If no frame can be decoded.
    """
    count = 0
    with silent_opencv():
        reader = mmcv.VideoReader(str(video))
        for frame in reader if reader.opened and reader.width else ():
            if frame is not None:
                path = Path(folder, f'{count}.bmp')
                cv2.imwrite(str(path), frame)
                count += 1
                yield path
    if not count:
        raise DataError(f'{video}: cannot be decoded as a video')


def count_frames(video: Path) -> int:
    """The number of frames that the header of a video names. Some formats have an estimate, or 0."""
    with silent_opencv():
        return mmcv.VideoReader(str(video)).frame_cnt


def _writable_rate(fps: float) -> float:
    """A frame rate that mp4 can hold.

    OpenCV writes it as a fraction with 1000 times the rate, and MPEG-4 allows no more than 65535.
    """
    digits = 3 if fps < 65 else 2 if fps < 655 else 1
    return round(fps, digits) or DEFAULT_FPS


class VideoWriter:
    """Writes pictures into an mp4 file.

    Args:
        path: The file.
        source: The video whose frame rate it gets.
    """

    def __init__(self, path: Path, source: Path) -> None:
        self.path = path
        self.fps = _writable_rate(mmcv.VideoReader(str(source)).fps)
        self.stream: Any = None  # a cv2.VideoWriter, once the size of the pictures is known
        self.count = 0

    def add(self, pictures: Sequence[np.ndarray]) -> None:
        """Add pictures, each (H, W, 3), RGB, uint8."""
        for picture in pictures:
            if self.stream is None:
                height, width = picture.shape[:2]
                codec = cv2.VideoWriter.fourcc(*'mp4v')
                self.stream = cv2.VideoWriter(str(self.path), codec, self.fps, (width, height))
                if not self.stream.isOpened():
                    raise DataError(
                        f'{self.path.name}: OpenCV cannot write {width} x {height} pixels at {self.fps} frames per '
                        'second as mp4 here'
                    )
            self.stream.write(np.ascontiguousarray(picture[..., ::-1]))
            self.count += 1

    def finish(self) -> None:
        """Finish the file, and raise a DataError if it does not hold all pictures. OpenCV does not say."""
        self.close()
        written = count_frames(self.path)
        if written != self.count:
            raise DataError(f'{self.path.name}: {written} of {self.count} frames were written; is the disk full?')

    def close(self) -> None:
        """Close the file."""
        if self.stream is not None:
            self.stream.release()
