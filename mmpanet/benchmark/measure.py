# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Three measurements: time and FLOPs of each part of a detector, and its peak memory."""

import multiprocessing
import os
from collections import defaultdict
from contextlib import contextmanager
from functools import wraps
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings
from torch import Tensor

from mmpanet.ops.flop_counter import count_flops
from mmpanet.utils.errors import BenchmarkError
from mmpanet.utils.paired_times import now
from .models import TRAINING, BenchmarkModel, PreparedModel, RunSettings
from .workload import Workload

# The parts of a detector in the order of the forward pass: the module's own name, and the name in the tables.
PARTS = {
    'backbone': 'backbone',
    'neck': 'neck',
    'rpn_head': 'RPN head',
    'bbox_roi_extractor': 'box pooling',
    'bbox_head': 'box head',
    'mask_roi_extractor': 'mask pooling',
    'mask_head': 'mask head',
}
OPTIMIZER, REST = 'optimizer', 'rest'
HEAD_METHODS = ('predict', 'loss', 'loss_and_predict', 'loss_and_target')  # mmdet calls them besides forward
# They make glibc return freed memory at once, so that a process holds no more than its tensors need.
MALLOC_SETTINGS = {'MALLOC_MMAP_THRESHOLD_': '65536', 'MALLOC_TRIM_THRESHOLD_': '65536'}
PROCESS_STATUS = Path('/proc/self/status')
RESET_OF_PEAK = Path('/proc/self/clear_refs')


def seconds_by_part(model: PreparedModel, mode: str) -> Dict[str, float]:
    """Seconds of one run, see :func:`count_by_part`."""
    return count_by_part(model, mode, lambda: now(model.device))


def flops_by_part(model: PreparedModel, mode: str) -> Dict[str, int]:
    """Floating-point operations of one run, see :func:`count_by_part`.

    A multiply-add counts as two. Convolutions and matrix products are counted. RoIAlign of any kind, norms,
    activations, sums, NMS, the arithmetic of the losses and the optimizer are not. Empty with torch 2.0, which has no
    counter.
    """
    with _uncompiled(model.module), count_flops() as read_counter:
        counts = count_by_part(model, mode, read_counter) if read_counter else {}
    return {part: int(count) for part, count in counts.items()}


def count_by_part(model: PreparedModel, mode: str, read_counter: Callable[[], float]) -> Dict[str, float]:
    """How far a counter advances in each part of a detector during one run.

    In training, ``'box head, backward'`` and so on are parts too. The backward pass of a part begins when the gradient
    of its output has been computed, and ends where that of another part begins.

    Args:
        model: The detector.
        mode: 'inference' or 'training'.
        read_counter: Reads a counter that only grows, such as a clock.
    """
    model.module.train(mode == TRAINING)
    with _attribute_to_parts(model.module, read_counter) as attribution:
        if mode == TRAINING:
            model.compute_loss().backward()
            attribution.switch_to(OPTIMIZER)
            model.step()
        else:
            model.infer()
        attribution.switch_to(REST)
    return dict(attribution.counts)


@contextmanager
def _uncompiled(module: nn.Module) -> Iterator[None]:
    """Run compiled parts without their compiled code for a while.

    torch's counter is a dispatch mode. Compiled code that is called within one is skipped from then on, for good.
    """
    parts = [part for part in module.modules() if getattr(part, '_compiled_call_impl', None) is not None]
    compiled = [part._compiled_call_impl for part in parts]
    for part in parts:
        part._compiled_call_impl = None
    try:
        yield
    finally:
        for part, call in zip(parts, compiled):
            part._compiled_call_impl = call


class _Attribution:
    """Adds what a counter counts to the part that :meth:`switch_to` named last."""

    def __init__(self, read_counter: Callable[[], float]) -> None:
        self.read_counter = read_counter
        self.counts: Dict[str, float] = defaultdict(float)
        self.part = REST
        self.last_count = read_counter()

    def switch_to(self, part: str) -> str:
        """Attribute to ``part`` from now on; returns the part before."""
        count = self.read_counter()
        self.counts[self.part] += count - self.last_count
        before, self.part, self.last_count = self.part, part, count
        return before


@contextmanager
def _attribute_to_parts(detector: nn.Module, read_counter: Callable[[], float]) -> Iterator[_Attribution]:
    """Hooks and wrapped methods on the parts of a detector, which are removed at the end."""
    attribution = _Attribution(read_counter)
    hooks, wrapped = [], []
    for part, module in _parts_of(detector):
        hooks += _add_forward_hooks(module, part, attribution)
        for name in HEAD_METHODS:
            if hasattr(module, name):
                wrapped.append((module, name, module.__dict__.get(name)))
                module.__dict__[name] = _wrap_method(getattr(module, name), part, attribution)
    try:
        yield attribution
    finally:
        for hook in hooks:
            hook.remove()
        for module, name, before in wrapped:
            if before is None:
                del module.__dict__[name]
            else:
                module.__dict__[name] = before


def _parts_of(detector: nn.Module) -> Iterator[Tuple[str, nn.Module]]:
    """Name in the tables, and module. A cascade has several modules for one name."""
    for name, module in detector.named_modules():
        own_name = ([key for key in name.split('.') if not key.isdigit()] or [''])[-1]
        if own_name in PARTS and name.count('.') <= 2 and not isinstance(module, nn.ModuleList):
            yield PARTS[own_name], module


def _wrap_method(method: Callable[..., Any], part: str, attribution: _Attribution) -> Callable[..., Any]:
    @wraps(method)
    def attributed(*args: Any, **kwargs: Any) -> Any:
        before = attribution.switch_to(part)
        try:
            return method(*args, **kwargs)
        finally:
            attribution.switch_to(before)

    return attributed


def _add_forward_hooks(module: nn.Module, part: str, attribution: _Attribution) -> List[Any]:
    parts_before: List[str] = []

    def begin(module: nn.Module, args: Any) -> None:
        parts_before.append(attribution.switch_to(part))

    def begin_backward(gradient: Tensor) -> None:
        attribution.switch_to(f'{part}, backward')

    def end(module: nn.Module, args: Any, output: Any) -> None:
        attribution.switch_to(parts_before.pop())
        for tensor in _tensors_in(output):
            if tensor.requires_grad:
                tensor.register_hook(begin_backward)

    return [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]


def _tensors_in(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (list, tuple, dict)):
        for item in output.values() if isinstance(output, dict) else output:
            yield from _tensors_in(item)


def peak_memory(model: BenchmarkModel, workload: Workload, settings: RunSettings, mode: str) -> Optional[int]:
    """The most bytes that a model, its optimizer and one run of it hold at a time, measured in a process of its own.

    On a CPU: the largest resident set, without the pages of files (such as torch's libraries) and without what the
    process holds before the model is built. On a GPU: the most that torch's allocator hands out. None where the system
    does not tell.
    """
    kind = torch.device(settings.device).type
    if kind not in ('cpu', 'cuda') or (kind == 'cpu' and not _system_tells_memory()):
        return None
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    plain_model = model._replace(cfg=model.cfg.to_dict())  # a Config cannot be sent to another process
    process = context.Process(
        target=_measure_memory, args=(sender, plain_model, workload, settings, mode, torch.get_num_threads())
    )
    before = dict(os.environ)
    os.environ.update(MALLOC_SETTINGS)
    try:
        process.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise BenchmarkError(f'{model.name}: the process that measures the memory of {mode} failed') from None
    finally:
        process.join()


def _measure_memory(
    sender: Connection, model: BenchmarkModel, workload: Workload, settings: RunSettings, mode: str, threads: int
) -> None:
    import mmpanet  # noqa: F401  registers its modules

    if model.cfg.get('custom_imports'):  # which only a config that is read from a file imports
        import_modules_from_strings(**model.cfg['custom_imports'])
    torch.set_num_threads(threads)
    device = torch.device(settings.device)
    before = _resident_bytes('RssAnon') if device.type == 'cpu' else 0
    prepared = PreparedModel(model._replace(cfg=Config(model.cfg)), workload, settings)
    prepared.run(mode)  # the first run compiles, and allocates the state of the optimizer
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        prepared.run(mode)
        sender.send(torch.cuda.max_memory_allocated(device))
        return
    RESET_OF_PEAK.write_text('5')
    prepared.run(mode)
    sender.send(_resident_bytes('VmHWM') - _resident_bytes('RssFile') - before)


def _system_tells_memory() -> bool:
    if not (RESET_OF_PEAK.exists() and PROCESS_STATUS.exists()):
        return False
    known = {line.partition(':')[0] for line in PROCESS_STATUS.read_text().splitlines()}
    return known.issuperset(('RssAnon', 'RssFile', 'VmHWM'))


def _resident_bytes(key: str) -> int:
    line = next(line for line in PROCESS_STATUS.read_text().splitlines() if line.startswith(f'{key}:'))
    return int(line.split()[1]) * 1024
