# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The check of English in ``make lint``: what it finds, and which plain sentences it leaves alone."""

import pytest
from check_english import findings


@pytest.mark.parametrize(
    'text',
    [
        'a level a RoI',
        'A dot a seed',
        'one line a model',
        'It writes a file an image and a folder a class.',
        'one small JSON file an image',
        'as many samples a bin',
        '512 RoIs an image',
        '3 anchors a level (sizes 32..512)',
        'two samples a bin and axis',
        'seconds a step',
        'memory, time a step',
        'with its own fc1 a level',
        '# as one row a\n    # class, from',
        "'one map a '\n    f'RoI'",
        'a line a\n  model',
    ],
)
def test_the_distributive_is_found(text):
    assert [advice for _, _, advice in findings(text) if 'per' in advice]


@pytest.mark.parametrize(
    'text',
    [
        'one line per model',
        'A head has a level more.',
        'A fusion makes a map of a pair.',
        'as large as a whole image',
        'such a model, with a config of a kind',
        'Runs a model before a swap.',
        'An RoI head is a StandardRoIHead.',
        'It takes a list of a type.',
        'Two matrix products draw a mask.',
        'Samples of a bin share a pixel.',
        '## A head\n\nA box head derives from it.',
        'At 800 x 1344 an image has more pixels.',
        'On fine levels a large RoI has hundreds.',
        '| a | b a c |',
        'kind    masks    an object is',
        'for a in b: a = a',
    ],
)
def test_plain_sentences_are_left_alone(text):
    assert not list(findings(text))


@pytest.mark.parametrize(
    'word', ['colour', 'Behaviour', 'normalises', 'neighbouring', 'CENTRE', 'synchronised', 'licence']
)
def test_british_spelling_is_found(word):
    assert [finding[1] for finding in findings(f'the {word} of it')] == [word]


@pytest.mark.parametrize(
    'word', ['color', 'otherwise', 'precise', 'noise', 'raised', 'advise', 'comprises', 'revised', 'your']
)
def test_other_words_are_left_alone(word):
    assert not list(findings(f'the {word} of it'))


def test_a_finding_names_its_line():
    assert [line for line, _, _ in findings('first\nsecond\none row a class, and the colour\n')] == [3, 3]
