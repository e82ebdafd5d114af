#!/usr/bin/env python
# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Find English that readers stumble over, in all text files: ``python .dev_scripts/check_english.py``.

Two rules, both with few false positives:

* the distributive article, as in "one line a model", which should read "one line per model";
* British spellings of words that occur in this field.

It reads the files that git knows, and prints each finding with its file and line. The exit code is 1 if there are any.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, Tuple

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = ('.md', '.py', '.ipynb', '.sh', '.yml', '.yaml', '.toml', '.cfg', '.txt')
NAMES = ('Makefile', 'run', 'CITATION.cff')
# These two files hold examples of what is wrong.
SKIPPED = ('.dev_scripts/check_english.py', 'tests/test_check_english.py')
# Findings that are right as they are, in lower case.
ALLOWED = (
    'labelled',  # a folder in the commands of docs/your_data.md
    'a module a tensor',  # torch calls every attribute of a module a Tensor
    'three models a state',  # which of the three models a state dict belongs to
)

# Between two words: a space, or one end of a line in prose, in comments, or in a string of several parts.
GAP = r'(?: |[ \t]*\n[ \t]*(?:#[ \t]*)?|[ \t]?[\'"]\n[ \t]*f?[\'"])'
COUNT = rf'(?:an?|one|two|three|four|five|six|eight|ten|\d+|its{GAP}own|as{GAP}many|once|twice)'
# Plurals that count something without a number before them. Words that are often verbs ("runs a model") are left out.
UNITS = (
    r'(?:anchors|batches|boxes|bytes|channels|classes|configs|convs|detections|entries|epochs|fcs|files|frames|images'
    r'|layers|levels|lines|masks|maps|numbers|objects|parameters|pixels|points|proposals|rois|rows|samples|seconds'
    r'|seeds|steps|tensors|time|times|weights|words)'
)
# Words that are no nouns and stand between two articles in plain sentences: "as large as a", "a model is a", "such a".
NO_NOUN = frozenset(
    re.findall(
        r'\w+',
        """
        a about above across after against all along also although an and are around as at be because become becomes
        been before behind being below beneath beside besides between beyond both but by can come comes could does down
        draw draws during each either else even ever every except for from gave get gets give given gives go goes got
        had half hardly has have here hold how if in instead into is it its just keep like made make makes many may me
        merely more most much must need neither never no nor not of off on once one only onto or other out over per plus
        quite rather read remain remains return same say says see sees share should show since so some still such take
        taken takes than that the their them then there these they this those though through throughout till to too
        toward towards under unless unlike until up upon use used uses versus via was we were what when where whether
        which while who whose will with within without worth would write yet you your
        """,
    )
)
# Words after the second article that begin a plain clause: "on fine levels a large RoI has more".
ADJECTIVES = (
    'different',
    'few',
    'fixed',
    'large',
    'larger',
    'list',
    'long',
    'new',
    'single',
    'small',
    'smaller',
    'whole',
)
VERB = re.compile(r'\w+(?:ed|ing)$')

DISTRIBUTIVE = re.compile(
    rf'(?<![\w.`])(?P<count>{COUNT}){GAP}(?P<noun>(?:[\w-]+{GAP}){{1,3}})an?{GAP}(?P<of>[\w-]+)', re.IGNORECASE
)
PLURAL = re.compile(rf'(?<![\w.`]){UNITS}{GAP}an?{GAP}(?P<of>[\w-]+)', re.IGNORECASE)
BRITISH = re.compile(
    r'(?<![\w/])(?:\w*colour\w*|licence\w*|\w*behaviour\w*|\w*centre\w*|\w*neighbour\w*|favour\w*|honour\w*|grey\w*'
    r'|catalogue\w*|artefact\w*|modell\w+|\w*labell\w*|cancell(?:ed|ing)|travell\w+|judgement\w*|ageing'
    r'|\w*(?:normal|initial|optim|synchron|recogn|visual|general|serial|quant|summar|minim|maxim|organ|special'
    r'|standard|token|vector|random|parametr|util|local|stabil|equal|categor)is(?:e|ed|es|er|ers|ing|ation|ations))\b',
    re.IGNORECASE,
)
PER = 'write "per" or "for each" in place of the article'
RULES = ((DISTRIBUTIVE, PER), (PLURAL, PER), (BRITISH, 'write it in American spelling'))


def findings(text: str) -> Iterator[Tuple[int, str, str]]:
    """The findings in a text, as (line, words, advice)."""
    found: List[Tuple[int, int]] = []
    for pattern, advice in RULES:
        position = 0
        while True:
            match = pattern.search(text, position)
            if match is None:
                break
            position = match.start() + 1
            words = ' '.join(re.sub(r'[#\'"]', ' ', match[0]).split())
            again = any(match.start() < end and start < match.end() for start, end in found)
            if again or words.lower() in ALLOWED or (advice == PER and not _distributes(match.groupdict())):
                continue
            found.append(match.span())
            yield text.count('\n', 0, match.start()) + 1, words, advice


def _distributes(groups: dict) -> bool:
    """Whether a match of the first two rules really says how many there are of one thing for each other thing."""
    if groups['of'].lower() in NO_NOUN or groups['of'].lower() in ADJECTIVES:
        return False
    if 'noun' not in groups:
        return True
    nouns = re.findall(r'[\w-]+', groups['noun'].lower())
    # After a singular, a word that ends in s is a verb ("a head takes a"). What is counted by a number is a plural.
    single = not re.search(r'\d|two|three|four|five|six|eight|ten|many', groups['count'], re.IGNORECASE)
    if not single and not nouns[-1].endswith('s'):
        return False
    verbs = [word for word in nouns if VERB.match(word) or (single and re.search('[^s]s$', word))]
    return not verbs and not NO_NOUN.intersection(nouns) and 'x' not in nouns


def files() -> List[Path]:
    """The text files that git knows."""
    try:
        listed = subprocess.check_output(['git', 'ls-files', '-co', '--exclude-standard'], cwd=ROOT, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f'check_english.py: git does not list the files of the checkout: {error}')
    names = [name for name in listed.splitlines() if name not in SKIPPED]
    paths = [ROOT / name for name in names if name.endswith(SUFFIXES) or Path(name).name in NAMES]
    return sorted(path for path in paths if path.is_file())


def main() -> int:
    """Print all findings; 1 if there are any."""
    number = 0
    for path in files():
        for line, words, advice in findings(path.read_text(encoding='utf-8')):
            print(f'{path.relative_to(ROOT)}:{line}: "{words}": {advice}')
            number += 1
    return int(number > 0)


if __name__ == '__main__':
    sys.exit(main())
