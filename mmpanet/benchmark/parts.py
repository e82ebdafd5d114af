# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Where the time and the arithmetic of a run go: by the parts of a detector, forward and backward."""

import time
from collections import defaultdict
from contextlib import contextmanager
from functools import wraps
from typing import Callable, Dict, Iterator, List, Tuple

import torch
import torch.nn as nn
from torch import Tensor

from mmpanet.ops.onednn_linear import HAS_ONEDNN_LINEAR
from .measure import synchronize
from .subject import TRAINING, Subject

# By the name of a module in a detector; in the order of the forward.
PARTS = {
    'backbone': 'backbone',
    'neck': 'neck',
    'rpn_head': 'RPN head',
    'bbox_roi_extractor': 'box pooling',
    'bbox_head': 'box head',
    'mask_roi_extractor': 'mask pooling',
    'mask_head': 'mask head',
}
REST, OPTIMIZER = 'rest', 'optimizer'
# A head's losses and decoding are called past its forward.
CALLS = ('predict', 'loss', 'loss_and_predict', 'loss_and_target')


def parts_of(model: nn.Module) -> Iterator[Tuple[str, nn.Module]]:
    """The parts of a detector: their names here, and the modules. A cascade has several of a name."""
    for name, module in model.named_modules():
        *_, own = [key for key in name.split('.') if not key.isdigit()] or ['']
        if own in PARTS and name.count('.') <= 2 and not isinstance(module, nn.ModuleList):
            yield PARTS[own], module


class _Meter:
    """What a counter counts goes to whoever called :meth:`go` last."""

    def __init__(self, read: Callable[[], float]) -> None:
        self.read = read
        self.counts: Dict[str, float] = defaultdict(float)
        self.part = REST
        self.since = read()

    def go(self, part: str) -> str:
        """Let it go to ``part`` from now on; returns whose it was."""
        now = self.read()
        self.counts[self.part] += now - self.since
        before, self.part, self.since = self.part, part, now
        return before


def by_part(subject: Subject, mode: str, read: Callable[[], float]) -> Dict[str, float]:
    """One run of a model, taken apart; for training ``'box head, backward'`` and the like too.

    The backward of a part begins when the gradient of what it put out is there, and ends where another's begins.

    Args:
        subject: The model.
        mode: 'inference' or 'training'.
        read: A counter that only grows, such as a clock.

    Returns:
        How far the counter went, by part.
    """
    subject.model.train(mode == TRAINING)
    with _metered(subject.model, read) as meter:
        if mode == TRAINING:
            subject.forward_loss().backward()
            meter.go(OPTIMIZER)
            subject.optimizer.step()
            subject.optimizer.zero_grad()
        else:
            subject.infer()
        meter.go(REST)
    return dict(meter.counts)


def seconds_by_part(subject: Subject, mode: str) -> Dict[str, float]:
    """See :func:`by_part`."""

    def clock() -> float:
        synchronize(subject.device)
        return time.perf_counter()

    return by_part(subject, mode, clock)


def flops_by_part(subject: Subject, mode: str) -> Dict[str, int]:
    """Floating-point operations of one run by part, see :func:`by_part`.

    A multiply-add counts two. Counted are convs and matrix products; not counted are RoIAlign of any kind, norms,
    activations, sums, NMS, the losses' own arithmetic and the optimizer's.
    """
    from torch.utils.flop_counter import FlopCounterMode

    # what mmpanet.ops.onednn_linear calls, which torch's counter does not know
    onednn = {torch.ops.mkldnn._linear_pointwise: _product_flops} if HAS_ONEDNN_LINEAR else {}
    with FlopCounterMode(display=False, custom_mapping=onednn) as counter:
        counts = by_part(subject, mode, counter.get_total_flops)
    return {part: int(count) for part, count in counts.items()}


def _product_flops(x_shape, weight_shape, *args, **kwargs) -> int:
    rows, depth = x_shape
    return 2 * rows * depth * weight_shape[0]


@contextmanager
def _metered(model: nn.Module, read: Callable[[], float]) -> Iterator[_Meter]:
    meter = _Meter(read)
    hooks, callers = [], []

    def wrapped(part: str, module: nn.Module, name: str) -> None:
        function = getattr(module, name)

        @wraps(function)
        def timed(*args, **kwargs):
            before = meter.go(part)
            try:
                return function(*args, **kwargs)
            finally:
                meter.go(before)

        callers.append((module, name, module.__dict__.get(name)))
        module.__dict__[name] = timed

    for part, module in parts_of(model):
        hooks += _forward_hooks(part, module, meter)
        for name in CALLS:
            if hasattr(module, name):
                wrapped(part, module, name)
    try:
        yield meter
    finally:
        for hook in hooks:
            hook.remove()
        for module, name, before in callers:
            if before is None:
                del module.__dict__[name]
            else:
                module.__dict__[name] = before


def _forward_hooks(part: str, module: nn.Module, meter: _Meter) -> list:
    callers: List[str] = []

    def begin(module, args):
        callers.append(meter.go(part))

    def end(module, args, output):
        meter.go(callers.pop())
        for tensor in _tensors(output):
            if tensor.requires_grad:
                tensor.register_hook(lambda grad: meter.go(f'{part}, backward') and None)

    return [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]


def _tensors(output) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (list, tuple)):
        for item in output:
            yield from _tensors(item)
    elif isinstance(output, dict):
        yield from _tensors(list(output.values()))
