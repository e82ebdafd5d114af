# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The ``type`` of a config's dict: a name, a name with a scope, a dotted path, or a class."""

from typing import Optional, Union

from mmengine.config.config import LazyObject

from mmdet.registry import MODELS
from mmpanet.utils.errors import ConfigError


class SwapError(ConfigError):
    """A swap that would do nothing, or change what the config means."""


def class_of(type_: Union[str, type], scope: Optional[str]) -> Optional[type]:
    """The class that a config with this ``default_scope`` builds for ``type_``; None if it is not registered."""
    if not isinstance(type_, str):
        return type_
    with MODELS.switch_scope_and_registry(scope or 'mmdet') as registry:
        return registry.get(type_)


def name_of(type_: Union[str, type]) -> str:
    """Its bare name."""
    return type_.rpartition('.')[2] if isinstance(type_, str) else getattr(type_, '__name__', str(type_))


def retype(old: Union[str, type], new: type) -> Union[str, LazyObject]:
    """``new``, which is one of ``mmpanet.models``, written the way that ``old`` is."""
    if not isinstance(old, str):
        return LazyObject('mmpanet.models', new.__name__)  # as a new-style config imports it
    prefix = old.rpartition('.')[0]
    if '.' in prefix:  # a dotted path, as a new-style config is dumped
        return f'mmpanet.models.{new.__name__}'
    return f'{prefix}.{new.__name__}' if prefix else new.__name__
