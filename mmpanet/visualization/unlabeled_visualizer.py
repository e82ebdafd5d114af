# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Any

from mmdet.registry import VISUALIZERS
from mmdet.visualization import DetLocalVisualizer


@VISUALIZERS.register_module()
class UnlabeledVisualizer(DetLocalVisualizer):
    """mmdet's visualizer without the text at each object, which hides small and crowded objects."""

    def draw_texts(self, *args: Any, **kwargs: Any) -> 'UnlabeledVisualizer':
        return self
