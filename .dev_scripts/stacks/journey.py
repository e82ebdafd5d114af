# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a user does with mmpanet, command by command, on the installed wheel of a stack.

Each step is checked by its result.
"""

import json
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import time

CONFIGS = """
_base_ = {base!r}
norm_cfg = dict(type='GN', num_groups=4, requires_grad=True)
model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16, norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32, norm_cfg=norm_cfg),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16, norm_cfg=norm_cfg)))
train_dataloader = dict(batch_size=2, num_workers=1)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1, val_interval=1)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[8], gamma=0.5)]
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
"""


class StepError(Exception):
    """A step whose result is not what it must be."""


class Journey:
    """The steps, in the order in which a user takes them.

    Args:
        stack: The stack, built.
    """

    def __init__(self, stack):
        self.stack = stack
        self.folder = stack.folder / 'journey'
        self.mim = stack.site_packages() / 'mmpanet' / '.mim'
        self.log = self.folder / 'journey.log'
        self.picture = None

    def run(self, report):
        """Take all steps; a step whose own input is missing fails like any other.

        Args:
            report: Called with the name of each step, what came out ('ok', or why not) and the seconds that it took.

        Returns:
            dict: What came out of each step, by name.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        outcomes = {}
        for name, step in STEPS.items():
            start = time.time()
            try:
                outcome = step(self) or 'ok'
            except (StepError, OSError, ValueError, LookupError, subprocess.TimeoutExpired) as error:
                outcome = f'{type(error).__name__}: {error}' if not isinstance(error, StepError) else str(error)
            outcomes[name] = outcome
            report(name, outcome, time.time() - start)
        return outcomes

    def make_data(self):
        self.tool(
            'dataset_converters/make_shapes', 'data/shapes', '--num-train', '8', '--num-val', '4',
            '--image-size', '128', '128', '--area', '100', '2500', '--workers', '1',
        )  # fmt: skip
        annotations = json.loads((self.folder / 'data/shapes/val.json').read_text())
        require(len(annotations['images']) == 4, 'val.json does not hold 4 images')
        pictures = sorted((self.folder / 'data/shapes').rglob(annotations['images'][0]['file_name'].split('/')[-1]))
        self.picture = pictures[0]
        for model in ('panet', 'fpn'):
            base = self.mim / 'configs/shapes' / f'mask-rcnn_r18_{model}_shapes.py'
            (self.folder / f'{model}.py').write_text(CONFIGS.format(base=str(base)))

    def train(self):
        output = self.tool('train', 'panet.py', '--work-dir', 'train')
        self.exists('train/epoch_1.pth')
        require('bbox_mAP' in output, 'no box AP in the log')

    def kill_and_resume(self):
        words = ['panet.py', '--work-dir', 'killed', '--cfg-options', 'train_cfg.max_epochs=3']
        with open(self.log, 'a') as log:
            process = subprocess.Popen(
                self.tool_command('train', *words), cwd=str(self.folder), stdout=log, stderr=log,
                env=self.stack.environment_variables(), start_new_session=True,
            )  # fmt: skip
            end = time.time() + 600
            while not (self.folder / 'killed/epoch_1.pth').is_file() and process.poll() is None and time.time() < end:
                time.sleep(0.05)
            running = process.poll() is None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        require(running, 'the training ended before it could be killed')
        require(not (self.folder / 'killed/epoch_3.pth').exists(), 'the training was killed too late')
        output = self.tool('train', *words, '--resume')
        self.exists('killed/epoch_3.pth')
        require('resumed epoch: ' in output, 'the log names no resumed epoch')

    def test(self):
        output = self.tool('test', 'panet.py', 'train/epoch_1.pth', '--work-dir', 'test', '--out', 'predictions.pkl')
        require('segm_mAP' in output, 'no mask AP in the log')
        self.exists('predictions.pkl')

    def swap(self):
        self.tool('train', 'fpn.py', '--work-dir', 'fpn')
        self.tool(
            'model_converters/swap_neck', 'fpn.py', '--out', 'swapped.py', '--roi-head', '--warm-start',
            '--checkpoint', 'fpn/epoch_1.pth', '--out-checkpoint', 'swapped.pth',
        )  # fmt: skip
        self.exists('swapped.pth')
        require('PANetRoIHead' in (self.folder / 'swapped.py').read_text(), 'swapped.py has no PANetRoIHead')

    def fine_tune(self):
        output = self.tool(
            'train', 'swapped.py', '--work-dir', 'tuned', '--cfg-options', 'load_from=swapped.pth',
        )  # fmt: skip
        self.exists('tuned/epoch_1.pth')
        require('Load checkpoint from swapped.pth' in output, 'the log does not say that swapped.pth was loaded')

    def image_demo(self):
        self.tool(
            'misc/image_demo', 'panet.py', 'killed/epoch_3.pth', self.picture, '--out-dir', 'demo', '--score-thr', '0',
        )  # fmt: skip
        require(any((self.folder / 'demo').rglob('*.json')), 'no JSON file in demo')
        pictures = [path for path in (self.folder / 'demo').rglob('*') if path.suffix in ('.png', '.jpg')]
        require(pictures, 'no picture in demo')

    def level_distribution(self):
        self.tool(
            'analysis_tools/level_distribution', 'panet.py', 'killed/epoch_3.pth', '--out-dir', 'levels',
            '--num-images', '2', '--num-pictures', '1',
        )  # fmt: skip
        require(any((self.folder / 'levels').iterdir()), 'nothing in levels')

    def publish(self):
        self.tool('model_converters/publish_model', 'train/epoch_1.pth', 'published.pth')
        published = self.folder / 'published.pth'
        require(published.stat().st_size < (self.folder / 'train/epoch_1.pth').stat().st_size, 'it did not get smaller')
        output = self.tool('test', 'panet.py', published, '--work-dir', 'test_published')
        require('segm_mAP' in output, 'test.py gives no mask AP of the published file')

    def export(self):
        if not self.can_import('onnxruntime') or not self.can_import('onnx'):
            return 'no onnx here'
        output = self.tool(
            'deployment/export_onnx', 'panet.py', 'killed/epoch_3.pth', '--out', 'onnx', '--verify', self.picture
        )
        require(any((self.folder / 'onnx').glob('*.onnx')), 'no graph in onnx')
        require(output.strip(), '--verify printed nothing')

    def mim_train(self):
        outside = self.folder / 'outside'
        outside.mkdir()
        (outside / 'data').symlink_to(self.folder / 'data')
        listed = self.command([self.stack.python, '-W', 'ignore', '-m', 'mim', 'search', 'mmpanet'], cwd=outside)
        require('mask-rcnn_r18_panet_shapes' in listed, '`mim search mmpanet` does not list the configs')
        options = [
            'train_cfg.max_epochs=1', 'train_dataloader.batch_size=2', 'train_dataloader.num_workers=0',
            'train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0',
            'val_dataloader.persistent_workers=False', 'model.backbone.base_channels=8',
            'model.neck.in_channels="[8,16,32,64]"',
        ]  # fmt: skip
        words = ['train', 'mmpanet', 'mask-rcnn_r18_panet_shapes.py', '--work-dir', 'run', '--cfg-options', *options]
        self.command([self.stack.python, '-W', 'ignore', '-m', 'mim', *words], cwd=outside)
        self.exists('outside/run/epoch_1.pth')

    def mmdet_names(self):
        code = (
            'from mmengine.config import Config\n'
            "cfg = Config.fromfile('base.py')\n"
            "assert cfg.model.neck.type == 'PANetNeck' and cfg.model.roi_head.bbox_head.num_classes == 80"
        )
        text = "_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'\nmodel = dict(neck=dict(type='PANetNeck'))\n"
        (self.folder / 'base.py').write_text(text)
        self.command([self.stack.python, '-W', 'ignore', '-c', code])

    def hostile_checkpoint(self):
        """Every tool that reads a checkpoint refuses one that would run a command, and does not run it."""
        traces = self.folder / 'traces'
        hostile = self.folder / 'hostile.pth'
        code = (
            'import os, shlex, sys, torch\n'
            'class Hostile:\n'
            '    def __reduce__(self):\n'
            "        return os.system, ('touch ' + shlex.quote(sys.argv[2]),)\n"
            'torch.save(dict(state_dict=dict(), meta=dict(), message_hub=Hostile()), sys.argv[1])'
        )
        self.command([self.stack.python, '-c', code, hostile, traces])
        hostile_pickle = self.folder / 'hostile_legacy.pth'
        hostile_pickle.write_bytes(pickle.dumps(_Touch(str(traces)), protocol=2))
        faults = []
        for path in (hostile, hostile_pickle):
            for name, words in HOSTILE_COMMANDS.items():
                words = [word.format(path=path, picture=self.picture) for word in words]
                code, output = self.attempt(self.tool_command(*words))
                label = f'{name} with {path.name}'
                if traces.exists():
                    traces.unlink()
                    faults.append(f'{label} RAN THE CODE')
                elif code == 0:
                    faults.append(f'{label} did not refuse')
                elif 'Traceback' in output:
                    faults.append(f'{label} ended with a traceback')
                elif path.name not in output or not re.search('is not read|is no checkpoint', output):
                    faults.append(f'{label} did not come to read it')
        require(not faults, '; '.join(faults))

    def tool_command(self, name, *words):
        return [self.stack.python, self.mim / 'tools' / f'{name}.py', *words]

    def tool(self, name, *words):
        return self.command(self.tool_command(name, *words))

    def command(self, command, cwd=None):
        """Run a command; its whole output, or a StepError with the last line of it."""
        code, output = self.attempt(command, cwd)
        if code != 0:
            last = [line for line in output.splitlines() if line.strip()][-1:] or ['no output']
            raise StepError(f'{os.path.basename(str(command[1]))} ended with {code}: {last[0].strip()[:300]}')
        return output

    def attempt(self, command, cwd=None):
        command = [str(word) for word in command]
        result = subprocess.run(
            command, cwd=str(cwd or self.folder), env=self.stack.environment_variables(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800,
        )  # fmt: skip
        with open(self.log, 'a') as log:
            log.write(f'$ {" ".join(command)}\n{result.stdout}\n[{result.returncode}]\n\n')
        return result.returncode, result.stdout

    def can_import(self, module):
        return self.attempt([self.stack.python, '-c', f'import {module}'])[0] == 0

    def exists(self, name):
        require((self.folder / name).is_file(), f'{name} was not written')


class _Touch:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {shlex.quote(self.path)}',)


def require(condition, message):
    if not condition:
        raise StepError(message)


STEPS = {
    'generate data': Journey.make_data,
    'train an epoch': Journey.train,
    'kill, --resume': Journey.kill_and_resume,
    'test.py': Journey.test,
    'swap config and checkpoint': Journey.swap,
    'fine-tune': Journey.fine_tune,
    'image_demo': Journey.image_demo,
    'level_distribution': Journey.level_distribution,
    'publish_model': Journey.publish,
    'ONNX, --verify': Journey.export,
    'mim search, mim train': Journey.mim_train,
    'mmdet:: names': Journey.mmdet_names,
    'hostile checkpoints refused': Journey.hostile_checkpoint,
}
HOSTILE_COMMANDS = {
    'test.py': ['test', 'panet.py', '{path}', '--work-dir', 'hostile'],
    'train.py --resume': ['train', 'panet.py', '--work-dir', 'hostile', '--resume', '{path}'],
    'train.py load_from': ['train', 'panet.py', '--work-dir', 'hostile', '--cfg-options', 'load_from={path}'],
    'swap_neck.py': [
        'model_converters/swap_neck', 'fpn.py', '--out', 'h.py', '--checkpoint', '{path}', '--out-checkpoint', 'h.pth',
    ],
    'publish_model.py': ['model_converters/publish_model', '{path}', 'h.pth'],
    'convert_official_checkpoint.py': ['model_converters/convert_official_checkpoint', '{path}', 'h.pth'],
    'image_demo.py': ['misc/image_demo', 'panet.py', '{path}', '{picture}', '--out-dir', 'hostile'],
    'level_distribution.py': ['analysis_tools/level_distribution', 'panet.py', '{path}', '--out-dir', 'hostile'],
    'export_onnx.py': ['deployment/export_onnx', 'panet.py', '{path}', '--out', 'hostile'],
}  # fmt: skip
