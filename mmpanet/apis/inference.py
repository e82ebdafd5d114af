# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""mmdet's ``DetInferencer`` with three checks: the weights, the names of the classes, and the loading of images."""

from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple, Union

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import nn

from mmdet.apis import DetInferencer
from mmdet.utils import get_test_pipeline_cfg
from mmpanet.checkpoints.matching import weights_mismatch
from mmpanet.utils.errors import CheckpointError, ConfigError, DataError
from mmpanet.utils.images import check_loadable, read_image_info, silent_opencv
from mmpanet.visualization import displayable
from .class_names import dataset_meta_of, first_dataset

Loaded = Tuple[np.ndarray, Dict[str, Any]]


class CheckedInferencer(DetInferencer):
    """mmdet's inferencer for files, which takes the config at its word.

    - It refuses weights of another model; mmdet's takes them, and predicts at random.
    - The names of the classes are those of the checkpoint, or else of the config, see :func:`dataset_meta_of`.
    - The config's own test pipeline loads the images, whatever its loading step is. Files of which that step would
      load only a part are refused: several pages, or more than 8 bits where the step cuts them off.

    Args:
        cfg: The config of a detector.
        weights: Path or URL of the checkpoint.
        kwargs: Those of ``DetInferencer``.

    Raises:
        CheckpointError: If the checkpoint cannot be read, or is of another model.
        ConfigError: If the config has no test pipeline.
    """

    def __init__(self, cfg: Config, weights: str, **kwargs: Any) -> None:
        self._weights = str(weights)
        super().__init__(cfg, self._weights, **kwargs)

    def load(self, path: Union[str, Path]) -> Loaded:
        """Load an image as the config's test pipeline does.

        Returns:
            The image as it was loaded, (H, W, 3), RGB, uint8; and what the model takes.

        Raises:
            DataError: If it cannot be loaded, or only a part of it.
        """
        if self.loads_as_mmdet:
            check_loadable(read_image_info(Path(path), str(path)), str(path), bits=not self._keeps_bits)
        data: Dict[str, Any] = dict(img_path=str(path), img_id=0)
        image: Optional[np.ndarray] = None
        for transform in self.pipeline.transforms:
            try:
                with silent_opencv():
                    data = transform(data)
            except Exception as error:
                if image is not None:
                    raise
                raise DataError(f"{path}: cannot be loaded by the config's test pipeline: {error}") from error
            if image is None and data and 'img' in data:
                image = displayable(data['img'])
        if image is None:
            raise ConfigError("the config's test pipeline has no step that loads an image")
        return image, data

    def _init_pipeline(self, cfg: Config) -> Compose:
        try:
            steps = get_test_pipeline_cfg(cfg)
        except RuntimeError as error:
            raise ConfigError('test_dataloader.dataset has no pipeline, which is what loads images') from error
        loader: Dict[str, Any] = next((step for step in steps if 'Load' in str(step['type'])), {})
        kind = loader.get('type')
        self.loads_as_mmdet = kind is LoadImageFromFile or str(kind).rpartition('.')[2] == 'LoadImageFromFile'
        self._keeps_bits = any(word in str(loader.get('color_type')).lower() for word in ('unchanged', 'anydepth'))
        return Compose(steps)

    def _load_weights_to_model(
        self, model: nn.Module, checkpoint: Optional[Dict[str, Any]], cfg: Optional[Config]
    ) -> None:
        assert checkpoint is not None and cfg is not None  # both come with __init__
        state_dict = checkpoint.get('state_dict', checkpoint)
        mismatch = weights_mismatch(model, state_dict)
        if mismatch:
            raise CheckpointError(f'checkpoint {self._weights}: {mismatch}')
        if not (cfg.get('test_dataloader') or {}).get('dataset'):
            raise ConfigError('test_dataloader.dataset is not in the config, and its pipeline is what loads images')
        meta = dict(dataset_meta=dataset_meta_of(checkpoint, cfg, model))
        # mmdet takes the colors of the classes from this dataset.
        colors = Config(dict(test_dataloader=dict(dataset=first_dataset(cfg.test_dataloader.dataset))))
        super()._load_weights_to_model(model, dict(state_dict=state_dict, meta=meta), colors)

    def _get_chunk_data(self, inputs: Iterable[str], chunk_size: int) -> Iterator[List[Loaded]]:
        paths = iter(inputs)
        while True:
            chunk = [self.load(path) for path in islice(paths, chunk_size)]
            if not chunk:
                return
            yield chunk


def load_inferencer(
    cfg: Config, checkpoint: str, device: Optional[str] = None, labels: bool = True
) -> CheckedInferencer:
    """Load a detector for predictions on files.

    Args:
        cfg: Its config.
        checkpoint: Path or URL. It is read as data only.
        device: Where to run it. By default that is an accelerator if there is one.
        labels: Whether pictures say class and score at each object.

    Raises:
        CheckpointError: If the checkpoint cannot be read, or is of another model.
        ConfigError: If there is no such device, or the config has no test pipeline.
    """
    try:
        torch.device(device or 'cpu')
    except RuntimeError as error:
        raise ConfigError(f"--device {device!r} must be one of torch's devices, such as cuda:0 or cpu") from error
    # Files are written by mmpanet.apis.prediction; the config's backends would want a work folder.
    cfg.visualizer = dict(cfg.get('visualizer') or dict(type='DetLocalVisualizer'), vis_backends=[])
    if not labels:
        cfg.visualizer.type = 'UnlabeledVisualizer'
    return CheckedInferencer(cfg, checkpoint, device=device, show_progress=False)
