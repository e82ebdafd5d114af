# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A look through the files of LabelMe before the conversion: labels, faults, and images without a file."""

from pathlib import Path
from typing import Dict, List, Optional, Sequence

from mmpanet.utils.errors import ConfigError, DataError
from mmpanet.utils.media import IMAGE_SUFFIXES, list_files
from .labelme_files import OTHER_ENCODING, find_image, read_json


class Survey:
    """A look through all files before the conversion.

    Attributes:
        images (list[Path]): All images in the source.
        elsewhere (list[Path]): Images that JSON files name and that lie in other folders.
        labels (dict[str, int]): The number of shapes of each label.
        faults (list[str]): Why files cannot be read.
    """

    def __init__(self, source: Path, paths: Dict[str, Path], encoding: Optional[str]) -> None:
        self.source = source
        self.images = list_files(source, IMAGE_SUFFIXES)
        self.labels: Dict[str, int] = {}
        self.faults: List[str] = []
        self._guessed: List[str] = []  # files that are not UTF-8
        self._files_of: Dict[Path, List[str]] = {}  # names of JSON files by the image that they name
        for name, path in paths.items():
            try:
                file = read_json(path, name, encoding)
            except DataError as error:
                self.faults.append(str(error))
                continue
            for label in file.labels():
                self.labels[label] = self.labels.get(label, 0) + 1
            if file.encoding == OTHER_ENCODING and encoding is None:
                self._guessed.append(name)
            image = find_image(path.parent, str(file.data.get('imagePath') or ''))
            if image:
                self._files_of.setdefault(image.resolve(), []).append(name)
        self.elsewhere = sorted(self._files_of.keys() - {image.resolve() for image in self.images})

    def check_out_dir(self, out_dir: Path) -> None:
        """Refuse to replace images that the JSON files name."""
        for image in self.elsewhere:
            if out_dir.resolve() in image.parents:
                raise ConfigError(
                    f'out_dir {str(out_dir)!r} holds {image.name}, which {self._files_of[image][0]} names as its image '
                    'and which would be replaced'
                )

    def notes(self, ignore: Sequence[str], classes_are_found: bool) -> List[str]:
        """What a user has to know of the files."""
        lines = []
        if self._guessed:
            lines.append(
                f'{len(self._guessed)} files are not UTF-8 and were read as GB18030, the first is {self._guessed[0]}; '
                'give the right encoding (--encoding) if their labels are wrong'
            )
        if self.faults and classes_are_found:
            lines.append(f'{len(self.faults)} files cannot be read, and classes that only they hold are missing')
        without = [image for image in self.images if image.resolve() not in self._files_of]
        if without:
            first = without[0].relative_to(self.source).as_posix()
            lines.append(f'{len(without)} images have no JSON file, and are left out; the first is {first}')
        shared = [files for files in self._files_of.values() if len(files) > 1]
        if shared:
            lines.append(
                f'{len(shared)} images are named by several JSON files, and each file becomes an image of its own; the '
                f'first is that of {" and ".join(shared[0][:2])}'
            )
        lines += [
            f'{self.labels[label]} shapes {label!r} are left out (ignore)' for label in ignore if label in self.labels
        ]
        return lines
