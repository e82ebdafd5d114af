"""Write a detector as one ONNX graph: ``python tools/deployment/export_onnx.py CONFIG CHECKPOINT --out FOLDER``."""

import argparse
import sys
from pathlib import Path

import mmpanet  # noqa: F401  registers PANet's modules, whether or not the config imports them
from mmpanet.apis import load_inferencer
from mmpanet.apis.image_loader import ImageLoader
from mmpanet.apis.prediction import find_images
from mmpanet.checkpoints.trained import resolve_checkpoint
from mmpanet.deploy import compare_detections, export_detector, quantize_graph
from mmpanet.deploy.export import GRAPH, INPUT_TYPES, INT8_GRAPH
from mmpanet.deploy.runtimes import RUNTIMES
from mmpanet.utils.argument_types import add_cfg_options
from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import MMPanetError


def parse_args():
    parser = argparse.ArgumentParser(description='Write a detector as one ONNX graph. See docs/deploy.md.')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path or URL of a checkpoint, or `trained` for the weights of the config')
    parser.add_argument('--out', required=True, help='folder for end2end.onnx and detector.json')
    parser.add_argument(
        '--masks',
        choices=['image', 'box'],
        default='image',
        help='draw masks into the image, or leave them as 28 x 28 probabilities in each box (%(default)s)',
    )
    parser.add_argument(
        '--input-type',
        choices=list(INPUT_TYPES),
        help='type of the input image (default: the type that the test pipeline gives)',
    )
    parser.add_argument(
        '--sizes',
        action='store_true',
        help='add an input with the height and width of each image, for batches of unequal images',
    )
    parser.add_argument(
        '--winograd',
        action='store_true',
        help="write 3x3 convs of the RoI head as matrix products by Winograd's algorithm: faster on CPUs with AVX2 "
        'alone and on Zen 4',
    )
    parser.add_argument(
        '--int8', action='store_true', help='write end2end_int8.onnx too, whose convs and fcs compute in eight bits'
    )
    parser.add_argument(
        '--calibrate',
        nargs='+',
        type=Path,
        metavar='IMAGE',
        help='images, or folders of them, for --int8: thirty or more, like those to come',
    )
    parser.add_argument(
        '--float',
        nargs='+',
        default=[],
        metavar='PART',
        help='parts that --int8 leaves in float, such as backbone, backbone/layer1, neck, dense, boxes, masks',
    )
    parser.add_argument(
        '--verify',
        nargs='+',
        type=Path,
        metavar='IMAGE',
        help='run these images, or folders of them, in PyTorch and in each graph, and print how much they differ',
    )
    parser.add_argument(
        '--runtime',
        nargs='+',
        choices=list(RUNTIMES),
        default=['onnxruntime'],
        help='what runs the graph for --verify (%(default)s)',
    )
    add_cfg_options(parser)
    args = parser.parse_args()
    if args.int8 != bool(args.calibrate):
        parser.error('--int8 and --calibrate need each other')
    if args.float and not args.int8:
        parser.error('--float is for --int8')
    if args.int8 and args.sizes:
        parser.error('--int8 takes graphs without --sizes')
    if args.verify and (args.masks == 'box' or args.sizes):
        parser.error('--verify compares masks in the image: leave --masks and --sizes out')
    return args


def main():
    args = parse_args()
    calibration, verification = (find_images(images or ()) for images in (args.calibrate, args.verify))
    cfg = load_config(args.config, args.cfg_options)
    load_image = ImageLoader(cfg)
    for path in [*calibration, *verification]:
        load_image(path)  # an image that cannot be loaded is named before anything is written
    model = load_inferencer(cfg, resolve_checkpoint(args.checkpoint, args.config), 'cpu').model
    classes = model.dataset_meta.get('classes', ())
    for path in export_detector(
        model, cfg, args.out, classes, args.masks == 'image', args.input_type, args.sizes, args.winograd
    ):
        print(f'{path}  {path.stat().st_size / 2**20:.1f} MiB')
    graphs = [GRAPH]
    if args.int8:
        graphs.append(INT8_GRAPH)
        target = Path(args.out, INT8_GRAPH)
        nodes = quantize_graph(Path(args.out, GRAPH), target, cfg, calibration, args.float)
        print(f'{target}  {target.stat().st_size / 2**20:.1f} MiB, {len(nodes)} layers in eight bits')
    for runtime in args.runtime if verification else ():
        for graph in graphs:
            differences = compare_detections(model, cfg, args.out, verification, runtime, graph)
            print(f'\n{graph}, {runtime}\n{differences.report()}')


if __name__ == '__main__':
    try:
        main()
    except (MMPanetError, OSError) as error:  # such as a full disk
        sys.exit(f'export_onnx.py: {error}')
