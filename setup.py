"""Puts what mim looks for, configs, tools and model index, where it looks for them. The rest is in setup.cfg.

openmim looks in ``mmpanet/.mim``. onedl-mim looks in ``.mim`` of the folder that holds the first file of the installed
package's RECORD. pip sorts RECORD, and ``mmpanet-0.1.0.dist-info/`` comes before ``mmpanet/``, so a wheel carries a
second copy there.
"""

import os
import shutil
import sys

import setuptools
from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info

if int(setuptools.__version__.split('.')[0]) < 67:  # the first that reads requirement files with comments
    sys.exit(
        f'building mmpanet needs setuptools>=67, and {setuptools.__version__} is installed: '
        'python -m pip install "setuptools>=67,<81" wheel'
    )

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


def fill_mim_dir(mim_dir, place):
    shutil.rmtree(mim_dir, ignore_errors=True)  # an earlier build's, maybe with files that are gone since
    os.makedirs(mim_dir)
    for entry in MIM_ENTRIES:
        place(os.path.join(ROOT, entry), os.path.join(mim_dir, entry))


class BuildPyWithMim(build_py):
    """Copies them into a wheel; links them in the checkout for an editable install, so that edits count."""

    def run(self):
        super().run()
        package_dir = os.path.join(ROOT if self.editable_mode else self.build_lib, 'mmpanet')
        fill_mim_dir(os.path.join(package_dir, '.mim'), link if self.editable_mode else copy)


class EggInfoWithMim(egg_info):
    """Copies them into the metadata, which becomes the ``.dist-info`` folder of the wheel."""

    def run(self):
        mim_dir = os.path.join(self.egg_info, '.mim')
        shutil.rmtree(mim_dir, ignore_errors=True)  # before the list of the sdist's files is made
        super().run()
        fill_mim_dir(mim_dir, copy)


setuptools.setup(cmdclass={'build_py': BuildPyWithMim, 'egg_info': EggInfoWithMim})
