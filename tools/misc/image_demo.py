"""Predict images, folders of images and videos: ``python tools/misc/image_demo.py CONFIG CHECKPOINT INPUT ...``."""

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import List

import mmpanet  # noqa: F401  registers PANet's modules, whether or not the config imports them
from mmpanet.apis import find_inputs, load_inferencer, predict
from mmpanet.checkpoints.trained import resolve_checkpoint
from mmpanet.utils.argument_types import add_cfg_options, fraction, positive_int
from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import DataError, MMPanetError
from mmpanet.utils.media import list_files


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Find objects in images and videos: write a picture and a JSON file of them for each input'
    )
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path or URL of a checkpoint, or `trained` for the weights of the config')
    parser.add_argument('inputs', nargs='+', type=Path, metavar='INPUT', help='image, video, or folder of them')
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('outputs'),
        help='folder to write to: pictures into vis/, JSON into preds/ (%(default)s)',
    )
    parser.add_argument(
        '--score-thr',
        type=fraction,
        default=0.3,
        metavar='SCORE',
        help='objects below this score are not drawn; the JSON has all (%(default)s)',
    )
    parser.add_argument(
        '--no-labels',
        dest='labels',
        action='store_false',
        help='draw objects without class and score, which hide small and crowded objects',
    )
    parser.add_argument('--no-pictures', dest='pictures', action='store_false', help='write only JSON')
    parser.add_argument('--no-predictions', dest='predictions', action='store_false', help='write only pictures')
    parser.add_argument(
        '--batch-size', type=positive_int, default=1, help='frames of a video that are predicted at once'
    )
    parser.add_argument('--device', help='device, such as cuda:0 or cpu (default: a GPU if there is one)')
    add_cfg_options(parser)
    args = parser.parse_args()
    if not (args.pictures or args.predictions):
        parser.error('--no-pictures and --no-predictions leave nothing to write')
    return args


def predict_all(args: argparse.Namespace) -> List[DataError]:
    """Predict all inputs. Returns what is wrong with those that cannot be predicted."""
    failures: List[DataError] = []
    sources = find_inputs(args.inputs)
    checkpoint = resolve_checkpoint(args.checkpoint, args.config)
    inferencer = load_inferencer(load_config(args.config, args.cfg_options), checkpoint, args.device, args.labels)
    for folder in filter(Path.is_dir, args.inputs):
        others = [path for path in list_files(folder, recursive=False) if path not in sources]
        if others:
            print(
                f'note: {len(others)} files in {folder} are not taken, the first is {others[0].name}', file=sys.stderr
            )
    for number, source in enumerate(sources, start=1):
        try:
            written = predict(
                inferencer, source, args.out_dir, args.score_thr, args.pictures, args.predictions, args.batch_size
            )
        except DataError as error:
            failures.append(error)
            continue
        except OSError as error:  # such as a full disk
            failures.append(DataError(f'{source}: {error}'))
            continue
        files = ' '.join(str(path) for path in (written.picture, written.predictions) if path)
        print(f'{number}/{len(sources)} {source}: {written.num_objects} objects above {args.score_thr} -> {files}')
        if written.missing_frames:
            print(
                f'note: {source}: its header names {written.missing_frames} more frames, which cannot be decoded',
                file=sys.stderr,
            )
    return failures


def main() -> None:
    args = parse_args()
    with suppress(AttributeError):  # of a stream in a notebook
        sys.stdout.reconfigure(errors='backslashreplace')  # the name of a file need not be text
    try:
        failures = predict_all(args)
    except (MMPanetError, OSError) as error:
        sys.exit(f'image_demo.py: {error}')
    if failures:
        sys.exit('\n'.join(f'image_demo.py: {error}' for error in failures))


if __name__ == '__main__':
    main()
