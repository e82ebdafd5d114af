# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import json
import os
import re
import stat
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from filelock import FileLock
from repository import ROOT
from tiny_training import run_tool

from mmpanet.evaluation.experiments import Launcher, Results, Run, measurements, plan_runs, run_all
from mmpanet.evaluation.seed_summary import seed_table, summarize_seeds, write_seed_summary
from mmpanet.utils.errors import ConfigError, DataError

OF_OTHER_TOOLS = ('family',)  # .dev_scripts/family.py
CONFIG = ROOT / 'configs' / 'shapes' / 'mask-rcnn_r18_fpn_shapes.py'
# Stands in for tools/train.py: writes what a run of mmengine leaves, or fails.
TRAINER = """
import json, sys
from pathlib import Path
config, folder = Path(sys.argv[1]), Path(sys.argv[sys.argv.index('--work-dir') + 1])
seed = int(next(word for word in sys.argv if word.startswith('randomness.seed=')).split('=')[1])
assert sys.argv[-1] == '--resume'
if 'bad' in config.stem:
    print('some output')
    sys.exit('RuntimeError: it broke')
log = folder / f'2026010{len(list(folder.iterdir()))}_000000' / 'vis_data' / 'scalars.json'
log.parent.mkdir(parents=True)
(folder / config.name).write_text(config.read_text())
score = {'a': .30, 'b': .40}[config.stem[0]] + seed / 100 + ('lr=2' in sys.argv) / 20
lines = [dict(loss=1., time=time, iter=iter, epoch=1) for time, iter in ((.5, 10), (.7, 20), (9., 30))]
lines.insert(0, {'coco/bbox_mAP': .01, 'step': 0})
lines += [{'coco/bbox_mAP': score, 'coco/segm_mAP': score - .1, 'coco/segm_mAP_l': -1, 'step': 1}]
log.write_text('\\n'.join(map(json.dumps, lines)) + '\\n{"loss": 1.0, "ti')
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'train.py').write_text(TRAINER)
    for name in ('a', 'b', 'bad'):
        (tmp_path / f'{name}.py').write_text(CONFIG.read_text().replace("'../", f"'{ROOT}/configs/"))
    return tmp_path


def run_some(folder, names, seeds, options=()):
    results, said = Results(folder / 'results.jsonl'), []
    runs = plan_runs([folder / f'{name}.py' for name in names], seeds, results, options)
    failures = run_all(runs, results, folder / 'work', Launcher(tools=folder), progress=said.append)
    return runs, failures, results, said


def test_runs_tables_and_what_is_done_is_not_done_again(folder):
    runs, failures, results, said = run_some(folder, 'ab', [0, 2])
    assert [(run.name, run.seed) for run in runs] == [('a', 0), ('b', 0), ('a', 2), ('b', 2)] and not failures
    first, *_ = list(results)
    # the last evaluation, without COCO's -1
    assert first['metrics'] == {'bbox_mAP': 0.30, 'segm_mAP': pytest.approx(0.20)}
    assert [(point['epoch'], point['bbox_mAP']) for point in first['curve']] == [(0, 0.01), (1, 0.30)]
    assert first['seconds_a_step'] == 0.7 and first['iterations'] == 30 and first['parameters'] > 10**6
    assert {'commit', 'hardware', 'versions', 'seconds', 'config'} <= set(first)
    assert said[0] == '1/4 a, seed 0' and 'bbox_mAP' in said[1]
    assert run_some(folder, 'ab', [0, 2])[0] == []
    assert [(run.name, run.seed) for run in run_some(folder, 'ab', [0, 1])[0]] == [('a', 1), ('b', 1)]
    summaries = summarize_seeds(results, ['b', 'a'])
    assert [(one.name, one.seeds) for one in summaries] == [('b', [0, 1, 2]), ('a', [0, 1, 2])]
    assert summaries[0].cell('bbox_mAP') == '41.0 ± 1.0' and summaries[1].cell('segm_mAP') == '21.0 ± 1.0'
    files = write_seed_summary(summaries, folder / 'out', 'table')
    assert [file.name for file in files] == ['table.md', 'table.table.json', 'table.png', 'table_curves.png']
    lines = files[0].read_text().splitlines()
    assert lines[0].startswith('| config | box AP | mask AP | M parameters')
    assert lines[2].startswith('| `b` | 41.0 ± 1.0 | 31.0 ± 1.0 |')
    assert json.loads(files[1].read_text())[0]['values']['bbox_mAP'] == pytest.approx([40, 41, 42])
    assert files[2].stat().st_size > 5000 and files[3].stat().st_size > 5000
    curve = summaries[0].curves['bbox_mAP']
    assert list(curve) == [0, 1] and curve[0] == [1, 1, 1] and curve[1] == pytest.approx([40, 41, 42])


def test_seconds_per_step_are_the_median_of_the_seeds():
    run = dict(name='a', options=[], metrics=dict(bbox_mAP=0.3), parameters=10**6)
    runs = [dict(run, seed=seed, seconds_a_step=seconds) for seed, seconds in enumerate((0.9, 0.5, 0.6))]
    [summary] = summarize_seeds([*runs, dict(run, seed=3)], ['a'])
    titles, _, row = (line.strip('| ').split(' | ') for line in seed_table([summary]).splitlines())
    assert dict(zip(titles, row))['s per step'] == '0.60'


def test_runs_of_one_evaluation_have_no_curves(folder):
    *_, results, _ = run_some(folder, 'a', [0])
    # lines of earlier versions, and runs that were evaluated at the end alone
    for curve in ({}, dict(curve=[dict(epoch=1, iteration=30, bbox_mAP=0.3)])):
        lines = [{**{key: value for key, value in result.items() if key != 'curve'}, **curve} for result in results]
        files = write_seed_summary(summarize_seeds(lines, ['a']), folder / 'out', 'table')
        assert [file.name for file in files] == ['table.md', 'table.table.json', 'table.png']


def test_a_choice_of_overrides_is_an_experiment_of_its_own(folder):
    run_some(folder, 'ab', [0])
    runs, _, results, said = run_some(folder, 'a', [0, 1], ['lr=2', "x.y='/[1]'"])
    assert [(run.name, run.seed) for run in runs] == [('a', 0), ('a', 1)] and said[0] == "1/2 a, seed 0 lr=2 x.y='/[1]'"
    assert run_some(folder, 'a', [0, 1], ['lr=2', "x.y='/[1]'"])[0] == []
    assert len(run_some(folder, 'a', [0], ['lr=2'])[0]) == 1
    assert [one.cell('bbox_mAP') for one in summarize_seeds(results, ['a', 'b'])] == ['30.0', '40.0']
    summaries = summarize_seeds(results, ['b', 'a'], variants=True)
    assert [one.label for one in summaries] == ['b', 'a', "a lr=2 x.y='/[1]'", 'a lr=2']
    assert [one.cell('bbox_mAP') for one in summaries] == ['40.0', '30.0', '35.5 ± 0.7', '35.0']
    assert "| `a` `lr=2` `x.y='/[1]'` | 35.5" in seed_table(summaries)
    # each run has a folder of its own, so none goes on from the checkpoint of another
    assert len(list(folder.glob('work/**/seed_0'))) == 4
    with pytest.raises(ConfigError, match='--cfg-options lr: is not KEY=VALUE'):
        plan_runs([folder / 'a.py'], [0], results, ['lr'])


def test_a_run_that_fails_is_recorded_and_tried_again(folder):
    runs, failures, results, said = run_some(folder, ['bad', 'a'], [0])
    assert failures == 1 and '  failed: RuntimeError: it broke' in said
    assert [result.get('error') for result in results] == ['RuntimeError: it broke', None]
    assert [run.name for run in run_some(folder, ['bad', 'a'], [0])[0]] == ['bad']
    assert [one.name for one in summarize_seeds(results, ['a', 'bad'])] == ['a']


def test_the_last_result_of_a_run_counts(folder):
    results = Results(folder / 'r.jsonl')
    results.add(dict(name='a', seed=0, error='it broke'))
    results.add(dict(name='a', seed=0, metrics=dict(bbox_mAP=0.5)))
    assert list(results) == [dict(name='a', seed=0, metrics=dict(bbox_mAP=0.5))]
    assert results.finished() == [('a', (), 0)]


def test_results_go_on_behind_a_line_without_an_end(folder):
    file = folder / 'r.jsonl'
    file.write_text(json.dumps(dict(name='a', seed=0, metrics=dict(bbox_mAP=0.5))))
    Results(file).add(dict(name='b', seed=0, metrics=dict(bbox_mAP=0.6)))
    assert [one['name'] for one in Results(file)] == ['a', 'b']


def test_many_overrides_have_a_folder_too(tmp_path):
    options = [tuple(f'a.key.{key}.of.the.model={"x" * 60}{value}' for key in range(4)) for value in range(2)]
    folders = [Run(Path('c.py'), 0, one).work_dir(tmp_path) for one in options]
    assert folders[0] != folders[1]
    for one in folders:
        one.mkdir(parents=True)


def test_a_table_without_an_average_precision_has_no_picture(folder):
    results = Results(folder / 'r.jsonl')
    results.add(dict(name='a', seed=0, metrics={'AR@100': 0.5}))
    files = write_seed_summary(summarize_seeds(results, ['a'], False), folder, 'r')
    assert [file.name for file in files] == ['r.md', 'r.table.json']


def test_two_processes_do_not_train_in_one_folder(folder):
    (folder / 'work' / 'a').mkdir(parents=True)
    with FileLock(folder / 'work' / 'a' / 'seed_0.lock'):
        _, failures, results, said = run_some(folder, 'ab', [0])
    assert failures == 1 and [result['name'] for result in results] == ['b']
    assert f'  left out: another process trains in {folder / "work" / "a" / "seed_0"}' in said
    assert not (folder / 'work' / 'a' / 'seed_0').exists()
    assert not run_some(folder, 'ab', [0])[1]


def test_a_run_that_was_cut_off_counts_the_time_before(folder):
    cut_off = folder / 'work' / 'a' / 'seed_0' / '20260101_000000' / 'vis_data' / 'scalars.json'
    cut_off.parent.mkdir(parents=True)
    cut_off.write_text('')
    start = datetime(2026, 1, 1).timestamp()
    os.utime(cut_off, (start + 600, start + 600))
    *_, results, _ = run_some(folder, 'a', [0])
    assert 600 <= next(iter(results))['seconds'] < 700


def test_a_run_without_an_evaluation_fails(folder, tmp_path):
    (folder / 'train.py').write_text('print("done")')
    assert run_some(folder, 'a', [0])[1] == 1
    with pytest.raises(DataError, match='has no evaluation'):
        measurements(tmp_path)


def test_the_folder_of_a_config_that_was_changed_is_refused(folder):
    """Its training would go on from the last checkpoint of the old settings."""
    run_some(folder, 'a', [0])
    config, results = folder / 'a.py', Results(folder / 'second.jsonl')
    text, said = config.read_text(), []
    [trained] = (folder / 'work').glob('*/seed_0')
    (trained / 'epoch_1.pth').touch()
    config.write_text(text + '\nmax_epochs = 99\n')
    runs = plan_runs([config], [0], results)
    assert run_all(runs, results, folder / 'work', Launcher(tools=folder), said.append) == 1
    assert re.search(r'left out: .*seed_0 holds a training of .*a\.py with other settings', said[-1])
    assert not results.file.exists()
    config.write_text(text + '\n# a comment\n')
    assert run_all(runs, results, folder / 'work', Launcher(tools=folder)) == 0


def test_a_failed_start_is_repeated_with_the_config_mended(folder):
    run_some(folder, 'a', [0])  # leaves no checkpoint here
    config, results = folder / 'a.py', Results(folder / 'second.jsonl')
    config.write_text(config.read_text() + '\nmax_epochs = 99\n')
    assert run_all(plan_runs([config], [0], results), results, folder / 'work', Launcher(tools=folder)) == 0
    [note] = (folder / 'work').glob('*/seed_0/config.txt')
    assert len(note.read_text().split()) == 2  # the new settings


def test_another_config_of_the_same_name_is_refused(folder):
    """It would go on from the checkpoint of the first, and its results would be taken for those of the first."""
    run_some(folder, 'a', [0])
    (folder / 'other').mkdir()
    other = folder / 'other' / 'a.py'
    other.write_text((folder / 'a.py').read_text())
    with pytest.raises(ConfigError, match=r'results\.jsonl holds a run of .*a\.py, and .*other/a\.py has the same'):
        plan_runs([other], [1], Results(folder / 'results.jsonl'))
    results = Results(folder / 'second.jsonl')
    runs = plan_runs([other], [0], results)
    said = []
    assert run_all(runs, results, folder / 'work', Launcher(tools=folder), said.append) == 1
    assert re.search(r'left out: .*seed_0 holds a training of .*a\.py, .* choose another --work-dir', said[-1])
    assert not results.file.exists()
    assert run_all(runs, results, folder / 'elsewhere', Launcher(tools=folder)) == 0
    # The same config, from another folder.
    assert not plan_runs([Path(os.path.relpath(other))], [0], results)


def test_errors_name_what_is_wrong(folder):
    results = Results(folder / 'results.jsonl')
    with pytest.raises(DataError, match='no run has finished'):
        summarize_seeds(results, ['a'])
    with pytest.raises(ConfigError, match='there is no config .*c.py'):
        plan_runs([folder / 'a.py', folder / 'c.py'], [0], results)
    (folder / 'x').mkdir()
    (folder / 'x' / 'a.py').write_text('')
    with pytest.raises(ConfigError, match='two configs are named a'):
        plan_runs([folder / 'a.py', folder / 'x' / 'a.py'], [0], results)
    results.file.write_text('{"name": "a", "seed": 0}\nnonsense\n')
    with pytest.raises(DataError, match=r"results.jsonl, line 2 is not .* 'nonsense'"):
        list(results)


@pytest.mark.parametrize(
    'kind,environment,expected',
    [
        ('pytorch', {}, ['-m', 'torch.distributed.run', '--nproc_per_node=4', '--launcher', 'pytorch']),
        ('slurm', {'GPUS': '16'}, ['--partition=gpu', '--job-name=a', '--ntasks=16', '--launcher', 'slurm']),
    ],
)
def test_the_scripts_for_gpus_and_clusters_get_what_they_need(folder, kind, environment, expected):
    """With a python and an srun that write down how they were called."""
    bin_ = folder / 'bin'
    bin_.mkdir()
    for name in ('python', 'srun'):
        (bin_ / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/called\n')
        (bin_ / name).chmod(stat.S_IRWXU)
    launcher = Launcher(kind, 4, 'gpu', ROOT / 'tools')
    command = launcher.command(Run(folder / 'a.py', 7, ('train_cfg.max_epochs=1',)), folder / 'work')
    subprocess.run(command, check=True, env={**os.environ, **environment, 'PATH': f'{bin_}:{os.environ["PATH"]}'})
    called = (folder / 'called').read_text().splitlines()
    assert set(expected) <= set(called)
    assert str(folder / 'a.py') in called and str(folder / 'work') in called
    assert called[-4:] == ['--cfg-options', 'randomness.seed=7', 'train_cfg.max_epochs=1', '--resume']


def test_the_command_line(folder, capsys):
    words = ['experiments', folder / 'a.py', '--seeds', 0, 5, '--results', folder / 'r.jsonl']
    with pytest.raises(SystemExit, match='0'):
        run_tool(*words, '--dry-run')
    commands = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [command[1] for command in commands] == [str(ROOT / 'tools' / 'train.py')] * 2
    assert [command[-2] for command in commands] == ['randomness.seed=0', 'randomness.seed=5']
    with pytest.raises(SystemExit, match='experiments.py: no run has finished'):
        run_tool(*words, '--table')
    Results(folder / 'r.jsonl').add(dict(name='a', seed=0, metrics=dict(bbox_mAP=0.5)))
    with pytest.raises(SystemExit, match='0'):
        run_tool(*words, '--table')
    assert '| `a` | 50.0 |' in capsys.readouterr().out and (folder / 'r.md').is_file()
    (folder / 'r.md').write_text('the table of more configs')
    with pytest.raises(SystemExit, match='0'):
        run_tool(*words[:3], 0, *words[5:])  # nothing is left to train
    assert 'no file was written' in capsys.readouterr().out
    assert (folder / 'r.md').read_text() == 'the table of more configs'
    (folder / 'file').write_text('')
    with pytest.raises(SystemExit, match='--work-dir .*file: '):
        run_tool(*words, '--work-dir', folder / 'file')


@pytest.mark.parametrize(
    'variable,variants,results,table_file',
    [
        ('ROWS', False, 'dsb2018.jsonl', 'dsb2018.md'),
        ('TUNED', True, 'dsb2018.jsonl', 'dsb2018_variants.md'),
        ('PRETRAINED', False, 'dsb2018_pretrained.jsonl', 'dsb2018_pretrained.md'),
        ('CARPARTS', False, 'carparts.jsonl', 'carparts.md'),
        ('NUCLEI', False, 'growth_nuclei.jsonl', 'growth_nuclei.md'),
        ('NUCLEI_LOW', False, 'growth_nuclei_12e.jsonl', 'growth_nuclei_12e.md'),
        ('NUCLEI_ONE', False, 'growth_nuclei_1e.jsonl', 'growth_nuclei_1e.md'),
        ('NUCLEI_HIGH', False, 'growth_nuclei_high.jsonl', 'growth_nuclei_high.md'),
        ('NUCLEI_SGD', False, 'growth_nuclei_sgd.jsonl', 'growth_nuclei_sgd.md'),
        ('NUCLEI_LONG', False, 'growth_nuclei_12e_high.jsonl', 'growth_nuclei_12e_high.md'),
        ('RESTART', False, 'growth_carparts_restart.jsonl', 'growth_carparts_restart.md'),
        ('RESTART_LOW', False, 'growth_carparts_restart_12e.jsonl', 'growth_carparts_restart_12e.md'),
        ('RESTART_ONE', False, 'growth_carparts_restart_1e.jsonl', 'growth_carparts_restart_1e.md'),
        ('TRAIN_NORM', False, 'growth_train-norm.jsonl', 'growth_train-norm.md'),
        ('PARTS', False, 'growth_carparts.jsonl', 'growth_carparts.md'),
        ('ONE', False, 'growth_carparts_1e.jsonl', 'growth_carparts_1e.md'),
        ('ALONE', False, 'growth_carparts_parts.jsonl', 'growth_carparts_parts.md'),
        ('LOW', False, 'growth_carparts_12e_low.jsonl', 'growth_carparts_12e_low.md'),
        ('LONG', False, 'growth_carparts_12e.jsonl', 'growth_carparts_12e.md'),
        ('GATES', False, 'growth_carparts_gates.jsonl', 'growth_carparts_gates.md'),
    ],
)
def test_the_page_of_tables_holds_what_the_runs_gave(variable, variants, results, table_file):
    """The tables are what the commands beside them make of the results."""
    page = (ROOT / 'docs' / 'results_tables.md').read_text()
    pattern = re.search(rf'^{variable}=\$\((echo .*)\)$', page, re.MULTILINE)[1]
    configs = subprocess.check_output(['bash', '-c', pattern], cwd=ROOT, text=True).split()
    runs = Results(ROOT / 'docs' / 'results' / results)
    table = seed_table(summarize_seeds(runs, [Path(one).stem for one in configs], variants), times=False)
    assert table.count('\n') > 3 and table in page
    assert (ROOT / 'docs' / 'results' / table_file).read_text() == table


@pytest.mark.parametrize(
    'file', sorted(path.stem for path in (ROOT / 'docs' / 'results').glob('*.jsonl') if path.stem not in OF_OTHER_TOOLS)
)
def test_every_result_says_where_it_comes_from(file):
    for result in Results(ROOT / 'docs' / 'results' / f'{file}.jsonl'):
        # .dev_scripts/growth.py writes the configs of those on growing
        assert (ROOT / result['config']).is_file() or result['config'].startswith('work_dirs/growth/')
        assert Path(result['config']).stem == result['name']
        assert 'metrics' in result and '+changes' not in result['commit'], result['name']
