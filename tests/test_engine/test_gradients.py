# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The full PANet under MMDistributedDataParallel, against one process with the whole batch.

MMDetection divides each loss by what its own process sampled, and DistributedDataParallel averages the gradients of the
processes. So the gradient of n processes is the mean over the processes' batches of each one's own gradient, always;
and it is that of one process with the whole batch exactly if each process samples equally many anchors, RoIs and
positive RoIs. Both are tested, in float64.
"""

import pytest
import torch
import torch.distributed
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from pinned_model import batch, build
from process_group import run_in_group

SYNC_BN = """
norm_cfg = dict(_delete_=True, type='SyncBN')
model['neck']['norm_cfg'] = norm_cfg
model['roi_head']['bbox_head']['norm_cfg'] = norm_cfg
model['roi_head']['mask_head']['norm_cfg'] = norm_cfg
"""


def gradients(model, data):
    """Those of one step as the trainer takes it."""
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3))
    wrapper.zero_grad = lambda: None  # keep them after the step
    model.train_step(data, wrapper)
    module = getattr(model, 'module', model)
    assert all(parameter.grad is not None for parameter in module.parameters())
    return {name: parameter.grad.cpu().numpy() for name, parameter in module.named_parameters()}


def part(objects, rank, size):
    """The images of a rank: a run of equally many."""
    whole, count = batch(objects), len(objects) // size
    return {key: value[rank * count : (rank + 1) * count] for key, value in whole.items()}


def gradients_of_rank(rank, size, config, objects, device='cpu'):
    if torch.device(device).type == 'cuda':
        torch.cuda.set_device(rank % torch.cuda.device_count())
    torch.distributed.init_process_group('gloo')  # which also takes several processes on one GPU
    model = build(config).to(device)
    model = MMDistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=False)
    return gradients(model, part(objects, rank, size))


def largest_difference(one, other):
    """Relative to the largest gradient of the parameter in question."""
    assert list(one) == list(other)
    return max(abs(one[name] - other[name]).max() / max(abs(other[name]).max(), 1e-12) for name in one)


@pytest.mark.parametrize('size, norm', [(2, 'GN'), (4, 'GN'), (2, 'SyncBN')])
@pytest.mark.gpu
def test_equal_one_process_with_the_whole_batch(config, size, norm, device):
    if norm == 'SyncBN':
        if device.type == 'cpu':
            pytest.skip('torch has SyncBN for GPUs only')
        config.write_text(config.read_text() + SYNC_BN)
    objects = [2, 2, 2, 2]
    whole = gradients(build(config).to(device), batch(objects))
    ranks = run_in_group(size, gradients_of_rank, size, config, objects, str(device))
    difference = max(largest_difference(of_rank, whole) for of_rank in ranks)
    print(f'{size} processes: largest relative difference of a gradient {difference:.1e}')
    assert difference < 1e-6


@pytest.mark.parametrize('objects', [[3, 1, 0, 2], [2, 2, 0, 0]], ids=['unequal', 'a rank without any object'])
def test_equal_the_mean_over_the_processes(config, objects):
    """Whatever the objects; where a rank has none the gradient is still the mean, and no longer the whole batch's."""
    shards = [gradients(build(config), part(objects, rank, 2)) for rank in range(2)]
    mean = {name: (shards[0][name] + shards[1][name]) / 2 for name in shards[0]}
    for of_rank in run_in_group(2, gradients_of_rank, 2, config, objects):
        assert largest_difference(of_rank, mean) < 1e-6
    whole = gradients(build(config), batch(objects))
    assert largest_difference(mean, whole) > 1e-2


def steps_of_rank(rank, size, config, steps):
    """Rank 0 always has objects; the others never, or in turns."""
    torch.distributed.init_process_group('gloo')
    model = MMDistributedDataParallel(build(config), broadcast_buffers=False, find_unused_parameters=False)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3), clip_grad=dict(max_norm=10))
    losses = []
    for step in range(steps):
        count = 2 if rank == 0 or rank == 1 and step % 3 == 2 else 0
        losses.append(float(model.train_step(batch([count]), wrapper)['loss']))
    return losses, {name: value.detach().numpy() for name, value in model.module.named_parameters()}


@pytest.mark.parametrize('size', [2, 4])
def test_ranks_without_objects_for_many_steps(config, size):
    ranks = run_in_group(size, steps_of_rank, size, config, 12)
    for losses, weights in ranks:
        assert all(0 < loss < 100 for loss in losses)
        assert all((weights[name] == ranks[0][1][name]).all() for name in weights)
    assert ranks[0][0][-1] < ranks[0][0][0]
