# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import pytest
from matplotlib.figure import Figure

from mmpanet.evaluation.seed_curves import plot_seed_curves
from mmpanet.utils.palette import line_styles


@pytest.mark.parametrize('count', [0, 1, 8, 9, 24, 60])
def test_lines_can_be_told_apart(count):
    styles = line_styles(count)
    assert len(styles) == count
    assert len({tuple(style.items()) for style in styles}) == min(count, 24)


def test_more_curves_than_colors(tmp_path, monkeypatch):
    """Each curve is drawn, and none looks like another."""
    figures = []
    monkeypatch.setattr(Figure, 'savefig', lambda self, file: figures.append(self))
    plot_seed_curves(
        {f'model {i}': {'bbox_mAP': {1: [10.0 + i], 2: [20.0 + i]}} for i in range(10)}, tmp_path / 'curves.png'
    )
    lines = figures[0].axes[0].get_lines()
    assert [line.get_label() for line in lines] == [f'model {i}' for i in range(10)]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 10
