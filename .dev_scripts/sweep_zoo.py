"""Swap every config of a zoo and write down what works: ``python .dev_scripts/sweep_zoo.py``.

It writes docs/zoo.md and docs/zoo.csv.
"""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

from swap_zoo.page import write_csv, zoo_page
from swap_zoo.sweep import Zoo

import mmdet


def parse_args():
    parser = argparse.ArgumentParser(
        description='Swap, build and try every config of a zoo. Results are kept, and the next call goes on from there.'
    )
    parser.add_argument(
        '--configs',
        default=str(Path(mmdet.__file__).parent / '.mim' / 'configs'),
        help="folder of the configs (default: MMDetection's own)",
    )
    parser.add_argument(
        '--results', default='work_dirs/zoo/results.jsonl', help='file that keeps the results (default: %(default)s)'
    )
    parser.add_argument(
        '--out', default='docs/zoo.md', help='the page; the CSV file goes beside it (default: %(default)s)'
    )
    parser.add_argument('--only', metavar='TEXT', help='only configs with this text in their path')
    parser.add_argument(
        '--page-only', action='store_true', help='only write the page and the CSV file of the results that exist'
    )
    return parser.parse_args()


def go_through(names, what, function):
    started = time.time()
    for i, name in enumerate(names, start=1):
        result = function(name)
        outcome = result.get('why', 'works')
        left = (time.time() - started) / i * (len(names) - i)
        print(f'{what} {i}/{len(names)} ({left / 60:.0f} min left) {name}: {outcome}', flush=True)


def prepare_folder(zoo, folder):
    """Make a folder like a checkout of MMDetection: some configs read files by paths relative to it."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / 'configs'
    if not link.exists():
        link.symlink_to(zoo.root.resolve(), target_is_directory=True)
    try:
        from transformers import BertConfig, BertModel, logging
    except ImportError:
        return
    logging.set_verbosity_error()
    text_encoder = folder / 'bert-base-uncased'
    if text_encoder.exists():
        return
    # GLIP's text encoder with one layer, random weights and a few words.
    BertModel(BertConfig(num_hidden_layers=1)).save_pretrained(text_encoder)
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', 'object']
    (text_encoder / 'vocab.txt').write_text('\n'.join(words) + '\n')


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    zoo = Zoo(args.configs, Path(args.results).resolve())
    out = Path(args.out).resolve()
    if not zoo.configs():
        sys.exit(f'sweep_zoo.py: there is no config in {zoo.root}')
    if not args.page_only:
        folder = zoo.file.parent / 'checkout'
        prepare_folder(zoo, folder)
        os.chdir(folder)
        wanted = [name for name in zoo.to_build() if not args.only or args.only in name]
        go_through(wanted, 'build', zoo.build)
        wanted = [name for name in zoo.to_train() if not args.only or args.only in name]
        go_through(wanted, 'train', zoo.train)
    table = out.with_suffix('.csv')
    out.write_text(zoo_page(zoo, table.name))
    write_csv(zoo, table)
    print(out, table, sep='\n')


if __name__ == '__main__':
    sys.exit(main())
