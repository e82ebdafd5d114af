"""Puts what mim looks for into ``mmpanet/.mim``: configs, tools and model index. The rest is in setup.cfg."""

import os
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = os.path.dirname(os.path.abspath(__file__))
MIM_ENTRIES = ('configs', 'tools', 'model-index.yml')


def copy(source, target):
    if os.path.isdir(source):
        shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__', '*.pyc', '.*'))
    else:
        shutil.copyfile(source, target)


def link(source, target):
    try:
        os.symlink(os.path.relpath(source, os.path.dirname(target)), target)
    except OSError:  # a file system without links
        copy(source, target)


class BuildPyWithMim(build_py):
    """Copies them into a wheel; links them in the checkout for an editable install, so that edits count."""

    def run(self):
        super().run()
        package_dir = os.path.join(ROOT if self.editable_mode else self.build_lib, 'mmpanet')
        mim_dir = os.path.join(package_dir, '.mim')
        shutil.rmtree(mim_dir, ignore_errors=True)  # an earlier build's, maybe with files that are gone since
        os.makedirs(mim_dir)
        for entry in MIM_ENTRIES:
            place = link if self.editable_mode else copy
            place(os.path.join(ROOT, entry), os.path.join(mim_dir, entry))


setup(cmdclass={'build_py': BuildPyWithMim})
