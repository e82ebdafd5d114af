# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The ``type`` of a dict in a config: a name, a name with a scope, a dotted path, or a class."""

from typing import Any, Optional, Union

from mmengine.config.config import LazyObject

from mmdet.registry import MODELS
from mmpanet.utils.errors import ConfigError


class SwapError(ConfigError):
    """A config in which there is nothing to swap, or whose meaning the swap would change."""


def class_of(type_: Any, scope: Optional[str]) -> Optional[type]:
    """The class that a config with this ``default_scope`` builds for ``type_``, or None if it is not registered."""
    if not isinstance(type_, str):
        return type_
    with MODELS.switch_scope_and_registry(scope or 'mmdet') as registry:
        return registry.get(type_)


def retype(old: Any, new: type, scope: Optional[str] = None) -> Union[str, LazyObject]:
    """Write ``new``, a class of ``mmpanet.models``, in the same form as ``old``.

    Our classes are in mmdet's registry. In the scope of another package, a name without a scope becomes one with
    'mmdet'.
    """
    if not isinstance(old, str):
        return LazyObject('mmpanet.models', new.__name__)  # the form in which a new-style config imports it
    prefix = old.rpartition('.')[0]
    if '.' in prefix:  # a dotted path, the form in which a new-style config is dumped
        return f'mmpanet.models.{new.__name__}'
    if not prefix and scope not in (None, 'mmdet'):
        prefix = 'mmdet'
    return f'{prefix}.{new.__name__}' if prefix else new.__name__
