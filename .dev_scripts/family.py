"""Try PANet in the configs of other packages: ``python .dev_scripts/family.py mmrotate``.

It runs in an environment in which the package is installed, with mmpanet on the PYTHONPATH. Each config with an FPN is
swapped and built before and after. The config that the swap writes is loaded, trained for one step, and predicts. The
results are kept in a file, so that a run which was stopped goes on. ``--table`` prints the table of docs/family.md.
"""

import argparse
import gc
import importlib
import json
import os
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

from family_zoo.inputs import INPUTS
from family_zoo.tables import tables
from family_zoo.trial import configs_of, try_config

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ('mmocr', 'mmrotate', 'mmdet3d')
VERSIONS = ('mmpanet', 'torch', 'mmcv', 'mmdet', 'mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmengine')


def parse_args():
    parser = argparse.ArgumentParser(description='Swap, build, train and run the configs of another package.')
    parser.add_argument('package', choices=PACKAGES, nargs='?')
    parser.add_argument('--table', action='store_true', help='only print the tables of docs/family.md')
    parser.add_argument('--only', metavar='TEXT', help='only configs with this text in their path')
    parser.add_argument(
        '--results',
        type=Path,
        default=ROOT / 'docs' / 'results' / 'family.jsonl',
        help='file that keeps the results (default: %(default)s)',
    )
    args = parser.parse_args()
    if not (args.package or args.table):
        parser.error('name a package, or give --table')
    return args


def environment(package):
    """The versions of what is installed."""
    found = {}
    for name in (package, f'onedl-{package}', *VERSIONS):
        try:
            found[name] = version(name)
        except ImportError:
            continue
    return found


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    known = [json.loads(line) for line in args.results.read_text().splitlines()] if args.results.exists() else []
    if args.table:
        print(tables(known))
        return
    importlib.import_module(f'{args.package}.models')
    done = {result['config'] for result in known if result['package'] == args.package}
    args.results = args.results.resolve()  # before the folder changes
    folder = Path('work_dirs/family').resolve()
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(importlib.import_module(args.package).__file__).parent / '.mim' / 'configs'
    names = [name for name in configs_of(root) if name not in done and (args.only or '') in name]
    os.chdir(folder)
    for i, name in enumerate(names, start=1):
        start = time.time()
        result = try_config(root / name, INPUTS[args.package])
        if result is not None:
            result = dict(package=args.package, config=name, **result, environment=environment(args.package))
            with args.results.open('a') as file:
                file.write(json.dumps(result) + '\n')
        print(f'{i}/{len(names)} {name} ({time.time() - start:.0f} s): {summary(result)}', flush=True)
        gc.collect()


def summary(result):
    if result is None:
        return 'no FPN'
    return ', '.join(
        f'{key} {value}' for key, value in result.items() if key not in ('package', 'config', 'environment')
    )


if __name__ == '__main__':
    sys.exit(main())
