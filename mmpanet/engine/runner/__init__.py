# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from .checking_runner import CheckingRunner, build_runner
from .checkpoint_runner import WholeCheckpointRunner, resume_last
from .cpu_group_runner import CpuGroupRunner

__all__ = ['CheckingRunner', 'CpuGroupRunner', 'WholeCheckpointRunner', 'build_runner', 'resume_last']
