"""Time detectors in PyTorch and as exported graphs, from the image to its masks. See docs/deploy.md.

``python tools/deployment/benchmark_runtimes.py fpn panet --runtime onnxruntime openvino --int8``
"""

import argparse
import sys
import warnings
from pathlib import Path
from statistics import median

import mmcv
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

import mmpanet  # noqa: F401  registers PANet's modules
from mmpanet.apis.image_loader import ImageLoader
from mmpanet.benchmark.models import DEFAULT_BASE, build, check_names, find_model
from mmpanet.deploy import export_detector, quantize_graph
from mmpanet.deploy.export import GRAPH, INT8_GRAPH
from mmpanet.deploy.runtimes import RUNTIMES
from mmpanet.deploy.speed import eager_detector, graph_detector, random_detector, torchvision_detector
from mmpanet.swap.verification import generated_image
from mmpanet.utils.allocator import keep_freed_memory
from mmpanet.utils.argument_types import positive_int
from mmpanet.utils.configs import type_name
from mmpanet.utils.environment import environment_summary
from mmpanet.utils.errors import BenchmarkError, MMPanetError
from mmpanet.utils.files import make_folder
from mmpanet.utils.paired_times import paired_ratio, time_in_turns
from mmpanet.utils.tables import markdown_table


def parse_args():
    parser = argparse.ArgumentParser(
        description='Export detectors and time them in turn (A B C, C B A) on one image: in PyTorch, as a graph in '
        'each runtime, and beside the detectors of torchvision. Each time holds normalization, network, both NMS and '
        'the drawing of masks. The first detector in PyTorch is what the others are compared with.'
    )
    parser.add_argument(
        'models', nargs='+', metavar='MODEL', help='variants of --base by the names of benchmark.py, or configs'
    )
    parser.add_argument('--base', default=DEFAULT_BASE, metavar='CONFIG', help='(default: %(default)s)')
    parser.add_argument(
        '--checkpoints',
        nargs='+',
        metavar='FILE',
        help='trained weights, one file per model, or `trained` for those of a config. '
        'Random weights are changed so that --detections boxes are found',
    )
    parser.add_argument('--runtime', nargs='+', choices=list(RUNTIMES), default=['onnxruntime'], help='(%(default)s)')
    parser.add_argument('--winograd', action='store_true', help="time graphs with Winograd's algorithm too")
    parser.add_argument('--int8', action='store_true', help='time graphs in eight bits too')
    parser.add_argument(
        '--torchvision',
        nargs='+',
        default=[],
        metavar='NAME',
        help='detectors of torchvision with random weights, such as maskrcnn_resnet50_fpn',
    )
    parser.add_argument(
        '--image',
        type=Path,
        metavar='FILE',
        help='an image, taken in its own size (default: a generated one of --size)',
    )
    parser.add_argument(
        '--size', nargs=2, type=positive_int, default=(480, 640), metavar=('HEIGHT', 'WIDTH'), help='(480 640)'
    )
    parser.add_argument(
        '--proposals',
        nargs='+',
        type=positive_int,
        default=[1000],
        metavar='NUMBER',
        help='at most, per image: one number for all, or one per model. Detectors of torchvision have the first (1000)',
    )
    parser.add_argument('--detections', type=positive_int, default=100, help='at most, per image (%(default)s)')
    parser.add_argument('--rounds', type=positive_int, default=5, help='of two runs each (%(default)s)')
    parser.add_argument('--threads', type=positive_int, help='CPU threads (default: the choice of torch)')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs', 'runtimes'), help='folder for the graphs (%(default)s)'
    )
    args = parser.parse_args()
    if len(args.proposals) == 1:
        args.proposals *= len(args.models)
    for name in ('checkpoints', 'proposals'):
        values = getattr(args, name)
        if values and len(values) != len(args.models):
            parser.error(f'--{name}: {len(args.models)} models need as many, not {len(values)}')
    return args


def detectors_of(model, proposals, image_file, args, threads):
    """A model with so many proposals, in PyTorch and as graphs, by name."""
    cfg = model.cfg
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    test_cfg = cfg.model.test_cfg
    if 'rpn' in test_cfg:
        test_cfg.rpn.max_per_img = proposals
        if test_cfg.rpn.get('nms_pre', -1) > 0:  # otherwise there is no limit
            test_cfg.rpn.nms_pre = max(proposals, test_cfg.rpn.nms_pre)
    test_cfg.get('rcnn', test_cfg).max_per_img = args.detections  # a detector of one stage has one part
    for step in cfg.test_dataloader.dataset.pipeline:
        if type_name(step['type']) == 'Resize':  # all detectors take the image in its own size, torchvision's too
            step.pop('scale', None)
            step.update(scale_factor=1.0, keep_ratio=True)
    torch.manual_seed(0)
    module = build(model).eval()
    data = pseudo_collate([ImageLoader(cfg)(image_file)[1]])
    detect = eager_detector(module, data) if model.checkpoint else random_detector(module, data)
    name = f'{model.name}, {proposals} proposals'
    yield f'{name}, PyTorch', detect
    folder = args.out / f'{model.name}_{proposals}'
    export_detector(module, cfg, folder)
    graphs = {'': folder / GRAPH}
    if args.winograd:
        export_detector(module, cfg, folder / 'winograd', winograd=True)
        graphs[', winograd'] = folder / 'winograd' / GRAPH
    if args.int8:
        graphs[', int8'] = folder / INT8_GRAPH
        quantize_graph(folder / GRAPH, folder / INT8_GRAPH, cfg, [image_file])
    for runtime in args.runtime:
        for suffix, graph in graphs.items():
            yield f'{name}, {runtime}{suffix}', graph_detector(graph, runtime, threads, data['inputs'][0])


def measure(args):
    if args.threads:
        torch.set_num_threads(args.threads)
    threads = torch.get_num_threads()
    make_folder(args.out, '--out')
    image_file = args.image or args.out / 'image.png'
    if not args.image:
        mmcv.imwrite(generated_image(*args.size).permute(1, 2, 0).numpy(), str(image_file))
    detectors = {}
    checkpoints = args.checkpoints or [None] * len(args.models)
    models = [find_model(name, checkpoint, args.base) for name, checkpoint in zip(args.models, checkpoints)]
    check_names([f'{model.name} with {proposals} proposals' for model, proposals in zip(models, args.proposals)])
    for model in models:
        if model.options:
            raise BenchmarkError(f'{model.name}: a graph has no options of PyTorch, such as +{model.options[0]}')
    for model, proposals in zip(models, args.proposals):
        detectors.update(detectors_of(model, proposals, image_file, args, threads))
    image = torch.from_numpy(mmcv.imread(str(image_file)).transpose(2, 0, 1).copy())
    for name in args.torchvision:
        detectors[f'torchvision, {name}, {args.proposals[0]} proposals'] = torchvision_detector(
            name, image, args.proposals[0], args.detections
        )
    keep_freed_memory()  # not before, because exporting frees much that nothing needs again
    found = {name: detect() for name, detect in detectors.items()}
    times = time_in_turns(detectors, args.rounds, torch.device('cpu'), lambda line: print(line, file=sys.stderr))
    first = next(iter(detectors))
    rows = [
        [name, f'{median(taken):.3f}', paired_ratio(taken, times[first]), found[name]] for name, taken in times.items()
    ]
    print(', '.join(f'{key} {value}' for key, value in environment_summary('cpu').items()))
    print(f'{args.rounds} rounds\n')
    print(markdown_table(rows, ['detector', 's', 'x', 'detections']))


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    try:
        measure(args)
    except MMPanetError as error:
        sys.exit(f'benchmark_runtimes.py: {error}')


if __name__ == '__main__':
    main()
