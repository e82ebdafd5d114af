"""Print what a bug report needs: hardware, versions, and which part of the stack does not work."""

import runpy
from pathlib import Path


def main():
    # The file is run by itself, because `import mmpanet` fails where mmcv or mmdet is broken.
    folder = Path(__file__).resolve().parents[2]  # the checkout, or mmpanet/.mim of an installed package
    package = folder / 'mmpanet' if (folder / 'mmpanet').is_dir() else folder.parent
    print(runpy.run_path(str(package / 'utils' / 'environment.py'))['bug_report']())


if __name__ == '__main__':
    main()
