# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What the checkpoint hook removes when a run goes on: its own outdated checkpoints, and nothing else."""

import logging
import shutil
from pathlib import Path

import pytest
from mmengine.logging import MessageHub

from mmpanet.engine.hooks import SaveThenRemoveHook


class RunOfNames:
    """Stands for a runner whose checkpoints are empty files."""

    def __init__(self, work_dir, resumed=None, **settings):
        self.work_dir, self._resume, self._load_from = str(work_dir), resumed is not None, resumed and str(resumed[0])
        self.message_hub = MessageHub('test_checkpoint_hook')
        if resumed:
            self.message_hub._runtime_info.update(resumed[1])
        self.logger, self.epoch, self.iter = logging.getLogger('test'), 0, 0
        Path(work_dir).mkdir(exist_ok=True)
        self.hook = SaveThenRemoveHook(
            interval=1, **dict(dict(max_keep_ckpts=1, save_best='score', rule='greater'), **settings)
        )
        self.hook.before_train(self)

    def save_checkpoint(self, out_dir, filename, *args, **kwargs):
        Path(out_dir, filename).touch()

    def epochs(self, *scores):
        """Train as many epochs, and return the last checkpoint and what it knows."""
        for score in scores:
            self.epoch += 1
            self.hook._save_checkpoint_with_step(self, self.epoch, {})
            self.hook.after_val_epoch(self, dict(score=score))
        return Path(self.work_dir, f'epoch_{self.epoch}.pth'), dict(self.message_hub.runtime_info)

    def go_on(self, epoch):
        self.epoch = epoch
        return self


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix == '.pth')


def test_a_run_replaces_its_own(tmp_path):
    run = RunOfNames(tmp_path / 'a')
    resumed = run.epochs(0.1, 0.2)
    assert names(tmp_path / 'a') == ['best_score_epoch_2.pth', 'epoch_2.pth']
    RunOfNames(tmp_path / 'a', resumed).go_on(2).epochs(0.3)
    assert names(tmp_path / 'a') == ['best_score_epoch_3.pth', 'epoch_3.pth']


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path):
    """Also where the hook has a folder of its own, besides the work folder."""
    for folder in ('out/a', 'out'):
        part = tmp_path / folder / '.epoch_2.pth.x1y2'
        part.mkdir(parents=True)
        (part / 'epoch_2.pth').touch()
    run = RunOfNames(tmp_path / 'a', out_dir=str(tmp_path / 'out'))
    assert Path(run.hook.out_dir) == tmp_path / 'out' / 'a'
    assert not list((tmp_path / 'out' / 'a').iterdir()) and (tmp_path / 'out' / '.epoch_2.pth.x1y2').is_dir()


def test_a_run_from_the_checkpoint_of_another_leaves_that_alone(tmp_path):
    resumed = RunOfNames(tmp_path / 'a').epochs(0.1, 0.2)
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b' / 'epoch_2.pth').touch()  # of a third run
    RunOfNames(tmp_path / 'b', resumed).go_on(2).epochs(0.3, 0.4)
    assert names(tmp_path / 'a') == ['best_score_epoch_2.pth', 'epoch_2.pth']
    assert names(tmp_path / 'b') == ['best_score_epoch_4.pth', 'epoch_2.pth', 'epoch_4.pth']


def test_several_scores(tmp_path):
    settings = dict(save_best=['score', 'loss'], rule=['greater', 'less'])

    class TwoScores(RunOfNames):
        def epochs(self, *scores):
            for score in scores:
                self.epoch += 1
                self.hook._save_checkpoint_with_step(self, self.epoch, {})
                self.hook.after_val_epoch(self, dict(score=score, loss=-score))
            return Path(self.work_dir, f'epoch_{self.epoch}.pth'), dict(self.message_hub.runtime_info)

    resumed = TwoScores(tmp_path / 'a', **settings).epochs(0.1)
    before = names(tmp_path / 'a')
    TwoScores(tmp_path / 'b', resumed, **settings).go_on(1).epochs(0.3)
    assert names(tmp_path / 'a') == before == ['best_loss_epoch_1.pth', 'best_score_epoch_1.pth', 'epoch_1.pth']
    assert names(tmp_path / 'b') == ['best_loss_epoch_2.pth', 'best_score_epoch_2.pth', 'epoch_2.pth']


def test_a_run_whose_folder_was_moved_replaces_its_own(tmp_path):
    path, known = RunOfNames(tmp_path / 'a').epochs(0.1)
    shutil.move(str(tmp_path / 'a'), str(tmp_path / 'moved'))
    RunOfNames(tmp_path / 'moved', (tmp_path / 'moved' / path.name, known)).go_on(1).epochs(0.2)
    assert names(tmp_path / 'moved') == ['best_score_epoch_2.pth', 'epoch_2.pth']


def test_a_best_checkpoint_that_is_gone_is_no_error(tmp_path):
    path, known = RunOfNames(tmp_path / 'a').epochs(0.1)
    (tmp_path / 'a' / 'best_score_epoch_1.pth').unlink()
    RunOfNames(tmp_path / 'a', (path, known)).go_on(1).epochs(0.2)
    assert names(tmp_path / 'a') == ['best_score_epoch_2.pth', 'epoch_2.pth']


@pytest.mark.parametrize('own', [True, False])
def test_a_run_that_keeps_fewer_removes_its_own_at_once(tmp_path, own):
    resumed = RunOfNames(tmp_path / 'a', max_keep_ckpts=3).epochs(0.1, 0.1, 0.1)
    target = tmp_path / ('a' if own else 'b')
    if not own:
        shutil.copytree(tmp_path / 'a', target)
    RunOfNames(target, resumed, max_keep_ckpts=1)
    left = [name for name in names(target) if name.startswith('epoch')]
    assert left == (['epoch_3.pth'] if own else ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'])


def test_checkpoints_of_one_name_are_replaced_and_not_removed(tmp_path):
    """mmengine asks to remove the old one, and then writes the new one in its place."""
    for settings in (dict(), dict(max_keep_ckpts=2), dict(save_best=['score', 'score2'], rule=['greater', 'greater'])):
        folder = tmp_path / str(len(settings.get('save_best', ''))) / str(settings.get('max_keep_ckpts'))
        folder.mkdir(parents=True)
        run = RunOfNames(folder, filename_tmpl='latest.pth', **settings)
        for score in (0.1, 0.2, 0.3):
            run.epoch += 1
            run.hook._save_checkpoint_with_step(run, run.epoch, {})
            run.hook.after_val_epoch(run, dict(score=score, score2=score))
            best = ['score', 'score2'] if 'save_best' in settings else ['score']
            assert names(folder) == sorted([*(f'best_{one}_latest.pth' for one in best), 'latest.pth'])


def test_the_one_name_of_all_checkpoints_stays_when_fewer_are_kept(tmp_path):
    resumed = RunOfNames(tmp_path, filename_tmpl='latest.pth', max_keep_ckpts=3).epochs(0.1, 0.2, 0.3)
    RunOfNames(tmp_path, (tmp_path / 'latest.pth', resumed[1]), filename_tmpl='latest.pth', max_keep_ckpts=1)
    assert 'latest.pth' in names(tmp_path)
