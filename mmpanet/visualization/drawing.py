# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Pictures of the pyramid, of the main level of each RoI, and of the distribution over levels."""

from typing import Any, Dict, Sequence, Tuple

import numpy as np
import torch
from mmengine.visualization import Visualizer
from torch import Tensor

from mmpanet.utils.palette import GRAY, level_colors, line_styles
from mmpanet.utils.plots import new_panels
from .level_recorder import LevelDistribution, RoILevels, gate_openings


def draw_levels(
    image: np.ndarray,
    pyramid: Sequence[Tensor],
    input_size: Tuple[int, int, int, int],
    levels_by_head: Dict[str, RoILevels],
    strides: Sequence[int],
    max_rois: int = 50,
) -> np.ndarray:
    """The pyramid of one image, and its RoIs in the color of the level with the largest share.

    Args:
        image: RGB, (H, W, 3), uint8, as it went into the network or before it was resized.
        pyramid: The maps of the image, (C, H_l, W_l), with padding. The magnitude of each level is drawn on its own
            scale.
        input_size: Size of the network's input: height, width, padded height, padded width.
        levels_by_head: The RoIs of the image.
        strides: Strides of the pooled levels.
        max_rois: At most so many RoIs of each head are drawn. Proposals are sorted by score, so these are the best.

    Returns:
        The picture, RGB, uint8.
    """
    height, width, padded_height, padded_width = input_size
    columns = max(len(pyramid), len(levels_by_head) + 1)
    figure, panels = _pictures(columns, image.shape[0] / image.shape[1])
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
    to_image = np.array([image.shape[1] / width, image.shape[0] / height])
    colors = level_colors(len(strides))
    for panel, (name, levels) in zip(panels[1][1:], levels_by_head.items()):
        panel.imshow(image)
        panel.autoscale(False)
        outlines = _corners(levels.rois[:max_rois]).numpy() * to_image
        for outline, share in zip(outlines, levels.shares[:max_rois]):
            if share.sum() > 0:
                panel.plot(*outline[[0, 1, 2, 3, 0]].T, color=colors[int(share.argmax())], lw=1)
        panel.set_title(f'{name}: {len(outlines)} of {len(levels.rois)} RoIs', fontsize=8)
    if levels_by_head:
        _legend(figure, [f'mainly from stride {stride}' for stride in strides])
    return _rendered(figure)


def _corners(rois: Tensor) -> Tensor:
    """The corners of RoIs, (N, 4, 2), x and y.

    Args:
        rois: (N, 5), with x1, y1, x2, y2 behind the index of the image; or (N, 6), with center x and y, width, height
            and the angle in radians, clockwise, as in MMRotate.
    """
    signs = rois.new_tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    if rois.size(1) == 5:
        first, last = rois[:, None, 1:3], rois[:, None, 3:5]
        return (first + last) / 2 + signs * (last - first)
    across, down = (signs * rois[:, None, 3:5]).unbind(dim=2)
    cos, sin = rois[:, 5:].cos(), rois[:, 5:].sin()
    return rois[:, None, 1:3] + torch.stack([across * cos - down * sin, across * sin + down * cos], dim=2)


def draw_distribution(distributions: Dict[str, LevelDistribution]) -> np.ndarray:
    """The paper's Figure 3, one panel per head: one line for the RoIs that FPN assigns to each level.

    Returns:
        The picture, RGB, uint8.
    """
    figure, panels = new_panels(len(distributions), (3.6 * len(distributions), 3.38), grid='both')
    for panel, (name, distribution) in zip(panels, distributions.items()):
        places = range(len(distribution.strides))
        colors = level_colors(len(places))
        for row, count, stride, color in zip(distribution.means, distribution.counts, distribution.strides, colors):
            if count:
                panel.plot(
                    places,
                    100 * row.numpy(),
                    'o-',
                    color=color,
                    markersize=4,
                    label=f'RoIs of stride {stride} in FPN ({int(count)})',
                )
        panel.set_xticks(places, [str(stride) for stride in distribution.strides])
        panel.set_ylim(bottom=0)
        _name_axes(panel, name, 'stride of the pooled level', 'share of the fused features, %')
        if distribution.counts.any():
            panel.legend(fontsize=7, frameon=False)
    return _rendered(figure)


def draw_gates(gates: Dict[str, Tensor]) -> np.ndarray:
    """The gates of all channels, one panel per layer with gates: one line per level, sorted by the gate.

    Args:
        gates: The result of :func:`gate_values`.

    Returns:
        The picture, RGB, uint8.
    """
    figure, panels = new_panels(len(gates), (3.6 * len(gates), 3.38), grid='both')
    for panel, (name, values) in zip(panels, gates.items()):
        channels = np.linspace(0, 100, values.shape[1])
        lines = zip(values.sort(dim=1).values.numpy(), gate_openings(values), line_styles(len(values)))
        for number, (line, opening, style) in enumerate(lines, start=1):
            panel.plot(channels, line, **style, label=f'gates {number}: mean magnitude {opening:.3f}')
        panel.axhline(0, color=GRAY, lw=0.8)
        _name_axes(panel, name, 'channels, % (sorted)', 'gate')
        panel.legend(fontsize=7, frameon=False)
    return _rendered(figure)


def _pictures(columns: int, aspect: float) -> Tuple[Any, Any]:
    """A figure of two rows of pictures, without axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.4 * columns, 4.8 * aspect + 0.5), dpi=150, layout='constrained')
    panels = figure.subplots(2, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    return figure, panels


def _name_axes(panel: Any, title: str, x: str, y: str) -> None:
    panel.set_title(title, fontsize=9)
    panel.set_xlabel(x)
    panel.set_ylabel(y)


def _legend(figure: Any, texts: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    figure.legend(
        handles=[Line2D([], [], color=color, label=text) for color, text in zip(level_colors(len(texts)), texts)],
        loc='outside lower center',
        ncols=len(texts),
        fontsize=8,
        frameon=False,
    )


def _rendered(figure: Any) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
