# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The trained weights that come with a config: ``Weights:`` of its model in ``metafile.yml``."""

from pathlib import Path
from typing import Iterator, List, Tuple

import yaml

from mmpanet.utils.configs import config_path
from mmpanet.utils.errors import CheckpointError
from mmpanet.utils.files import PathLike

TRAINED = 'trained'  # in place of the path of a checkpoint


def resolve_checkpoint(checkpoint: str, config: PathLike) -> str:
    """The path or URL of a checkpoint; for the word ``trained`` that of the weights which come with the config.

    Args:
        checkpoint: A path, a URL, or ``trained``. A file of this name is taken as what it is.
        config: The config, by its path or by a name such as ``mmdet::...``.

    Raises:
        CheckpointError: If no weights come with the config, or if they are not there.
        ConfigError: If no package has a config of this name.
    """
    if checkpoint != TRAINED or Path(checkpoint).exists():
        return checkpoint
    path = (config_path(config) if '::' in str(config) else Path(config)).resolve()
    with_weights: List[str] = []
    for root, metafile in _metafiles_above(path):
        for model in _models_of(metafile):
            if not model.get('Weights'):
                continue
            with_weights.append(str(model['Config']))
            if (root / model['Config']).resolve() == path:
                return _weights_of(model, root, metafile)
    raise CheckpointError(
        f'{TRAINED}: no weights come with {config}; '
        + (f'in this folder they come with {", ".join(with_weights)}' if with_weights else 'give a checkpoint')
    )


def _metafiles_above(config: Path) -> Iterator[Tuple[Path, Path]]:
    """The metafiles between a config and the folder ``configs`` above it, each with the root of the paths in it."""
    for number, folder in enumerate(config.parents):
        if folder.name == 'configs':
            for metafile in (one / 'metafile.yml' for one in list(config.parents)[: number + 1]):
                if metafile.is_file():
                    yield folder.parent, metafile
            return


def _models_of(metafile: Path) -> List[dict]:
    content = yaml.safe_load(metafile.read_text())
    models = content.get('Models') if isinstance(content, dict) else content
    return [model for model in models or [] if isinstance(model, dict) and model.get('Config')]


def _weights_of(model: dict, root: Path, metafile: Path) -> str:
    weights = str(model['Weights'])
    if '://' in weights:
        return weights
    if not (root / weights).is_file():
        raise CheckpointError(
            f'{metafile} names the weights {weights}, and {root / weights} is not there; they are part of the '
            "project's repository, and of no package"
        )
    return str(root / weights)
