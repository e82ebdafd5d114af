# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Images from files, as the test pipeline of a config loads them."""

from pathlib import Path
from typing import Any, Dict, Optional, Tuple, Union

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from mmdet.utils import get_test_pipeline_cfg
from mmpanet.utils.errors import ConfigError, DataError
from mmpanet.utils.images import check_loadable, find_loading, read_image_info, silent_opencv
from mmpanet.visualization import displayable

Loaded = Tuple[np.ndarray, Dict[str, Any]]


class ImageLoader:
    """Loads image files by the test pipeline of a config, whatever its loading step is.

    Files of which that step would load only a part are refused: several pages, or more than 8 bits where the step cuts
    them off.

    Args:
        cfg: The config of a detector.

    Raises:
        ConfigError: If the config has no test pipeline.
    """

    def __init__(self, cfg: Config) -> None:
        if not (cfg.get('test_dataloader') or {}).get('dataset'):
            raise ConfigError('test_dataloader.dataset is not in the config, and its pipeline is what loads images')
        init_default_scope(cfg.get('default_scope') or 'mmdet')  # in which the names of the pipeline stand
        try:
            steps = get_test_pipeline_cfg(cfg)
        except RuntimeError as error:
            raise ConfigError('test_dataloader.dataset has no pipeline, which is what loads images') from error
        self._loading = find_loading(steps)
        self.pipeline = Compose(steps)

    def __call__(self, path: Union[str, Path], image_id: int = 0) -> Loaded:
        """Load an image.

        Args:
            path: The file.
            image_id: What the sample has as ``img_id``.

        Returns:
            The image as it was loaded, (H, W, 3), RGB, uint8; and what the model takes.

        Raises:
            DataError: If it cannot be loaded, or only a part of it.
        """
        if self._loading.first_page:  # otherwise the file may be one that only its loader knows
            check_loadable(read_image_info(Path(path), str(path)), str(path), self._loading)
        data: Dict[str, Any] = dict(img_path=str(path), img_id=image_id)
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
