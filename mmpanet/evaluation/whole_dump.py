# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from pathlib import Path
from typing import Any, Dict, List

from mmengine.fileio import dump
from mmengine.logging import print_log

from mmdet.evaluation import DumpDetResults
from mmpanet.utils.errors import DataError
from mmpanet.utils.files import atomic_write


class WholeDump(DumpDetResults):
    """mmdet's metric that writes all predictions into a pickle file, which appears in one step. A link is followed.

    Raises:
        DataError: If the file cannot be written, for example because the disk is full. An older one stays then.
    """

    def compute_metrics(self, results: List[Any]) -> Dict[str, float]:
        """Write the predictions of all images. There is no score."""
        try:
            with atomic_write(Path(self.out_file_path).resolve()) as part:
                dump(results, str(part))
        except OSError as error:
            raise DataError(f'--out {self.out_file_path}: {error.strerror}') from error
        print_log(f'Results has been saved to {self.out_file_path}.', logger='current')
        return {}
