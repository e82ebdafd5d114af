# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""One family of errors. A command line catches :class:`MMPanetError` and prints its message in one line."""


class MMPanetError(ValueError):
    """Something that mmpanet cannot work with; the message names it, what it holds and what is allowed."""


class ConfigError(MMPanetError):
    """A config, or a setting in it."""


class CheckpointError(MMPanetError):
    """A checkpoint file, or weights in it."""


class DataError(MMPanetError):
    """A dataset, an annotation, an image or a video.

    Args:
        faults: What is wrong, one line for each fault. The message shows the first 20.

    Attributes:
        faults: All of them.
    """

    SHOWN = 20

    def __init__(self, *faults: str) -> None:
        more = len(faults) - self.SHOWN
        super().__init__('\n'.join([*faults[: self.SHOWN], *([f'and {more} more'] if more > 0 else [])]))
        self.faults = list(faults)


class ExportError(MMPanetError):
    """A detector that cannot be exported."""


class BenchmarkError(MMPanetError):
    """A measurement that cannot be made."""
