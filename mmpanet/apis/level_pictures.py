# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Draws the levels that a trained model takes features from, for some images."""

from pathlib import Path
from typing import Iterator, List, Sequence

import mmcv
import numpy as np
import torch.nn as nn
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet.registry import DATASETS
from mmpanet.utils.errors import ConfigError, DataError
from mmpanet.utils.files import atomic_write, make_folder, write_json
from mmpanet.visualization import LevelRecorder, draw_distribution, draw_gates, draw_levels, gate_openings, gate_values
from .inference import CheckedInferencer


def images_of_test_data(cfg: Config, number: int) -> List[Path]:
    """The first ``number`` images of a config's test data.

    Raises:
        ConfigError: If the config has no test data.
        DataError: If the data are not there, or cannot be read.
    """
    if not cfg.get('test_dataloader'):
        raise ConfigError('the config has no test_dataloader: name images')
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    try:
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    except FileNotFoundError as error:
        raise DataError(
            f'test_dataloader.dataset: {error.filename}: no such file; get the data, or name images'
        ) from error
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(
            f'test_dataloader.dataset: cannot be read ({type(error).__name__}: {error}); '
            'tools/misc/check_dataset.py says what is wrong with it'
        ) from error
    return [Path(dataset.get_data_info(index)['img_path']) for index in range(min(number, len(dataset)))]


def write_level_pictures(
    inferencer: CheckedInferencer, images: Sequence[Path], out_dir: Path, num_pictures: int = 3, max_rois: int = 50
) -> Iterator[str]:
    """Write ``level_distribution.png`` and ``.json``, and ``levels_<image>.png`` for some of the images.

    If two images have one name, the number of the image comes before it. For a model with gates it also writes
    ``gates.png`` and ``.json``.

    Args:
        inferencer: The trained model.
        images: Image files.
        out_dir: The folder to write to. It is made if it is not there.
        num_pictures: How many images are drawn, from the first on.
        max_rois: How many RoIs are drawn for each head and image.

    Yields:
        Lines about what was written, and at the end about the distribution.

    Raises:
        ConfigError: If the model has no neck.
        DataError: If an image cannot be loaded.
    """
    recorder = LevelRecorder(inferencer.model)
    if not recorder.heads and not hasattr(inferencer.model, 'neck'):
        raise ConfigError(f'a {type(inferencer.model).__name__} without a neck has no pyramid to draw')
    distributions = recorder.new_distributions()
    make_folder(out_dir, 'out_dir')
    stems = [path.stem for path in images]
    for number, path in enumerate(images):
        image, data = inferencer.load(path)
        with recorder:
            [sample] = inferencer.forward(inferencer.collate_fn([data]))
        seen = recorder.take()
        for name, levels in seen.items():
            distributions[name].add(levels)
        if number < num_pictures:
            size = (*sample.img_shape[:2], *sample.get('batch_input_shape', sample.img_shape)[:2])
            pyramid = [level[0] for level in recorder.pyramid]
            picture = draw_levels(image, pyramid, size, seen, recorder.strides, max_rois)
            # Images of a dataset may have one name in several folders.
            name = path.stem if stems.count(path.stem) == 1 else f'{number + 1}_{path.stem}'
            yield _write(out_dir / f'levels_{name}.png', picture)
    yield from _write_gates(inferencer.model, out_dir)
    if not distributions:
        yield 'no head of this model pools several levels: there is no distribution to draw, only the pyramid'
        return
    yield _write(out_dir / 'level_distribution.png', draw_distribution(distributions))
    shares_file = out_dir / 'level_distribution.json'
    write_json(shares_file, {name: one.as_dict() for name, one in distributions.items()})
    yield str(shares_file)
    for name, distribution in distributions.items():
        shares = distribution.as_dict()['all'] or []
        yield f'{name}, {int(distribution.counts.sum())} RoIs of {len(images)} images: ' + ', '.join(
            f'{100 * share:.1f} % from stride {stride}' for stride, share in zip(distribution.strides, shares)
        )


def _write_gates(model: nn.Module, out_dir: Path) -> Iterator[str]:
    gates = gate_values(model)
    if not gates:
        return
    yield _write(out_dir / 'gates.png', draw_gates(gates))
    write_json(out_dir / 'gates.json', {name: values.tolist() for name, values in gates.items()})
    yield str(out_dir / 'gates.json')
    for name, values in gates.items():
        openings = ', '.join(f'{opening:.3f}' for opening in gate_openings(values))
        yield f"{name}, mean magnitude of the gates by level (0 is closed, 1 is the paper's fusion): {openings}"


def _write(path: Path, picture: np.ndarray) -> str:
    with atomic_write(path) as part:
        mmcv.imwrite(picture[..., ::-1], str(part))
    return str(path)
