# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""mmdet's ``DetInferencer`` with three checks: the weights, the names of the classes, and the loading of images."""

from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Union

from mmengine.config import Config
from mmengine.dataset import Compose
from torch import nn

from mmdet.apis import DetInferencer
from mmpanet.checkpoints.matching import weights_mismatch
from mmpanet.utils.errors import CheckpointError
from mmpanet.utils.model_building import check_device
from mmpanet.utils.palette import give_enough_colors
from .class_names import dataset_meta_of, first_dataset
from .image_loader import ImageLoader, Loaded


class CheckedInferencer(DetInferencer):
    """mmdet's inferencer for files, which takes the config at its word.

    - It refuses weights of another model; mmdet's takes them, and predicts at random.
    - The names of the classes are those of the checkpoint, or else of the config, see :func:`dataset_meta_of`.
    - The config's own test pipeline loads the images, see :class:`ImageLoader`.

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
        self._loader = ImageLoader(cfg)  # first, because loading the weights reads the test data of the config
        super().__init__(cfg, self._weights, **kwargs)

    def load(self, path: Union[str, Path]) -> Loaded:
        """Load an image as the config's test pipeline does.

        Returns:
            The image as it was loaded, (H, W, 3), RGB, uint8; and what the model takes.

        Raises:
            DataError: If it cannot be loaded, or only a part of it.
        """
        return self._loader(path)

    def _init_pipeline(self, cfg: Config) -> Compose:
        return self._loader.pipeline

    def _load_weights_to_model(
        self, model: nn.Module, checkpoint: Optional[Dict[str, Any]], cfg: Optional[Config]
    ) -> None:
        assert checkpoint is not None and cfg is not None  # both come with __init__
        state_dict = checkpoint.get('state_dict', checkpoint)
        mismatch = weights_mismatch(model, state_dict)
        if mismatch:
            raise CheckpointError(f'checkpoint {self._weights}: {mismatch}')
        meta = dict(dataset_meta=dataset_meta_of(checkpoint, cfg, model))
        # mmdet takes the colors of the classes from this dataset.
        colors = Config(dict(test_dataloader=dict(dataset=first_dataset(cfg.test_dataloader.dataset))))
        super()._load_weights_to_model(model, dict(state_dict=state_dict, meta=meta), colors)
        give_enough_colors(model.dataset_meta)

    def _get_chunk_data(self, inputs: Iterable[str], chunk_size: int) -> Iterator[List[Loaded]]:
        loaded = map(self.load, inputs)
        return iter(lambda: list(islice(loaded, chunk_size)), [])


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
    check_device(device or 'cpu')
    # Files are written by mmpanet.apis.prediction; the config's backends would want a work folder.
    cfg.visualizer = dict(cfg.get('visualizer') or dict(type='DetLocalVisualizer'), vis_backends=[])
    if not labels:
        cfg.visualizer.type = 'UnlabeledVisualizer'
    return CheckedInferencer(cfg, checkpoint, device=device, show_progress=False)
