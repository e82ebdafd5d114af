"""Install this checkout so that edits to it count at once and mim finds it.

An editable install leaves nothing in site-packages but a pointer, and mim looks for the package's folder just
there. So the folder is linked to that place, and the link is entered into pip's record of the install: pip
removes it with the rest when mmpanet is uninstalled or installed in another way.
"""

import importlib.metadata
import os
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main():
    if not (ROOT / 'setup.cfg').exists():
        sys.exit(f'editable.py: {ROOT} is no checkout of mmpanet, and only a checkout can be installed as editable')
    pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check']
    if subprocess.run([*pip, '--no-deps', '--no-build-isolation', '--editable', str(ROOT)]).returncode:
        sys.exit('editable.py: pip could not install this checkout, see above')
    # pip takes the second place if it may not write into the first. Elsewhere may be traces of a build.
    places = [sysconfig.get_path('purelib'), site.getusersitepackages()]
    found = importlib.metadata.distributions(name='mmpanet', path=places)
    distribution = next((one for one in found if ROOT.as_uri() in (one.read_text('direct_url.json') or '')), None)
    if distribution is None:
        sys.exit(f'editable.py: pip has installed this checkout, but in none of {places}')
    [record] = [entry.locate() for entry in distribution.files if entry.name == 'RECORD']
    link = Path(record).parent.parent / 'mmpanet'
    if os.path.lexists(link):
        sys.exit(f'editable.py: {link} is there although pip has just uninstalled mmpanet. Remove it and try again')
    link.symlink_to(ROOT / 'mmpanet', target_is_directory=True)
    with open(record, 'a', encoding='utf-8') as f:
        f.write('mmpanet,,\n')
    print(f'mmpanet {distribution.version} installed from this checkout: edits count at once, mim finds it')


if __name__ == '__main__':
    main()
