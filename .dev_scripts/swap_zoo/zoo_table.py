"""Swap every config of a zoo and write docs/zoo.md: ``python .dev_scripts/swap_zoo/zoo_table.py``."""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

from swap_zoo.page import zoo_page
from swap_zoo.sweep import Zoo

import mmdet


def parse_args():
    parser = argparse.ArgumentParser(
        description='Swap, build and try every config of a zoo. What was done is kept, '
        'and the next run goes on from there.'
    )
    parser.add_argument(
        '--configs',
        default=str(Path(mmdet.__file__).parent / '.mim' / 'configs'),
        help="folder of the configs; by default MMDetection's own",
    )
    parser.add_argument('--results', default='work_dirs/zoo/results.jsonl', help='file that keeps the results')
    parser.add_argument('--out', default='docs/zoo.md', help='the page to write')
    parser.add_argument('--only', metavar='TEXT', help='only configs with this in their names')
    parser.add_argument('--page-only', action='store_true', help='write the page of what there is')
    return parser.parse_args()


def progress(names, what, function):
    started = time.time()
    for i, name in enumerate(names, start=1):
        result = function(name)
        outcome = result.get('why', 'works')
        left = (time.time() - started) / i * (len(names) - i)
        print(f'{what} {i}/{len(names)} ({left / 60:.0f} min left) {name}: {outcome}', flush=True)


def prepare_folder(zoo, folder):
    """Some configs read files by paths that are relative to the folder of a checkout of MMDetection."""
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
    # GLIP's text encoder in its own size but for the number of layers, with random weights and a handful of words.
    BertModel(BertConfig(num_hidden_layers=1)).save_pretrained(text_encoder)
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', 'object']
    (text_encoder / 'vocab.txt').write_text('\n'.join(words) + '\n')


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    zoo = Zoo(args.configs, Path(args.results).resolve())
    out = Path(args.out).resolve()
    if not args.page_only:
        folder = zoo.file.parent / 'checkout'
        prepare_folder(zoo, folder)
        os.chdir(folder)
        wanted = [name for name in zoo.to_build() if not args.only or args.only in name]
        progress(wanted, 'build', zoo.build)
        wanted = [name for name in zoo.to_train() if not args.only or args.only in name]
        progress(wanted, 'train', zoo.train)
    out.write_text(zoo_page(zoo))
    print(out)


if __name__ == '__main__':
    sys.exit(main())
