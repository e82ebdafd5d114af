# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Pictures of the pyramid, of the level that gives most to each RoI, and of the distribution over levels."""

from typing import Dict, Sequence, Tuple

import numpy as np
import torch
from mmengine.visualization import Visualizer
from torch import Tensor

from .level_shares import LevelDistribution, RoILevels

# Okabe and Ito's, which the colour-blind can tell apart, for levels from fine to coarse
COLOURS = ('#0072B2', '#009E73', '#E69F00', '#D55E00', '#CC79A7', '#56B4E9')


def draw_image(
    image: np.ndarray,
    pyramid: Sequence[Tensor],
    input_size: Tuple[int, int, int, int],
    seen: Dict[str, RoILevels],
    strides: Sequence[int],
    max_rois: int = 50,
) -> np.ndarray:
    """One image's pyramid, and its RoIs in the colour of the level that gives most to them.

    Args:
        image: RGB, (H, W, 3), uint8; of the image as it went into the network, or before it was resized.
        pyramid: Maps of the image, each (C, H_l, W_l), padding and all; their magnitude is drawn, each level on a
            scale of its own.
        input_size: Of the network's input: height, width, and both with padding.
        seen: RoIs of the image by head.
        strides: Of the pooled levels.
        max_rois: The first so many of each head are drawn: proposals are in the order of their scores.

    Returns:
        The picture, RGB, uint8.
    """
    height, width, padded_height, padded_width = input_size
    columns = max(len(pyramid), len(seen) + 1)
    figure, panels = _panels(2, columns, 2.4, image.shape[0] / image.shape[1])
    for panel, level in zip(panels[0], pyramid):
        magnitude = level.float().norm(dim=0, keepdim=True).cpu()
        rows = max(1, round(magnitude.shape[1] * height / padded_height))
        cols = max(1, round(magnitude.shape[2] * width / padded_width))
        magnitude = torch.nn.functional.interpolate(
            magnitude[None, :, :rows, :cols], image.shape[:2], mode='bilinear', align_corners=False
        )[0]
        panel.imshow(Visualizer.draw_featmap(magnitude, image, channel_reduction=None, topk=0, alpha=0.4))
        panel.set_title(f'1/{round(padded_height / level.shape[1])}', fontsize=8)
    panels[1][0].imshow(image)
    panels[1][0].set_title('image', fontsize=8)
    to_image = np.array([image.shape[1] / width, image.shape[0] / height] * 2)
    for panel, (name, levels) in zip(panels[1][1:], seen.items()):
        panel.imshow(image)
        panel.autoscale(False)
        boxes = levels.rois[:max_rois, 1:].numpy() * to_image
        for (x1, y1, x2, y2), share in zip(boxes, levels.shares[:max_rois]):
            if share.sum() > 0:
                panel.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=COLOURS[int(share.argmax())], lw=1)
        panel.set_title(f'{name}: {min(len(boxes), max_rois)} of {len(levels.rois)} RoIs', fontsize=8)
    if seen:
        _legend(figure, [f'stride {stride} gives most' for stride in strides])
    return _rendered(figure)


def draw_distribution(distributions: Dict[str, LevelDistribution]) -> np.ndarray:
    """The paper's Figure 3, a panel a head: a line for the RoIs of each level of FPN's, over the pooled levels.

    Returns:
        The picture, RGB, uint8.
    """
    figure, panels = _panels(1, len(distributions), 3.6, 0.8, axes=True)
    for panel, (name, distribution) in zip(panels[0], distributions.items()):
        places = range(len(distribution.strides))
        for row, count, stride, colour in zip(distribution.means, distribution.counts, distribution.strides, COLOURS):
            if count:
                panel.plot(
                    places,
                    100 * row.numpy(),
                    'o-',
                    color=colour,
                    markersize=4,
                    label=f'RoIs of stride {stride} in FPN ({int(count)})',
                )
        panel.set_xticks(places, [str(stride) for stride in distribution.strides])
        panel.set_xlabel('stride of the pooled level')
        panel.set_ylabel('share of the fused features, %')
        panel.set_ylim(bottom=0)
        panel.set_title(name, fontsize=9)
        panel.grid(alpha=0.3)
        panel.spines[['top', 'right']].set_visible(False)
        if distribution.counts.any():
            panel.legend(fontsize=7, frameon=False)
    return _rendered(figure)


def _panels(rows, columns, width, aspect, axes=False):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, width * aspect * rows + 0.5), dpi=150, layout='constrained')
    panels = figure.subplots(rows, columns, squeeze=False)
    if not axes:
        for panel in panels.flat:
            panel.set_axis_off()
    return figure, panels


def _legend(figure, texts):
    from matplotlib.lines import Line2D

    figure.legend(
        handles=[Line2D([], [], color=colour, label=text) for colour, text in zip(COLOURS, texts)],
        loc='outside lower center',
        ncols=len(texts),
        fontsize=8,
        frameon=False,
    )


def _rendered(figure) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
