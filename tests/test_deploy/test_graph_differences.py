# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The models that ``.dev_scripts/graph_differences.py`` compares: each RoI head with trained weights."""

import graph_differences
import pytest

from mmdet.registry import MODELS
from mmpanet.deploy.support import check_support


@pytest.mark.parametrize('kind', graph_differences.HEADS)
def test_every_head_has_all_weights_of_a_trained_model(kind):
    cfg = graph_differences.config_of(kind)
    model = MODELS.build(cfg.model)
    model.load_state_dict(graph_differences.weights_of(kind))
    check_support(model)
    assert type(model.roi_head).__name__ == kind
    assert model.roi_head.with_mask
