# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The whole corpus."""

import annotation_cases
import dataset_cases
import model_cases
import tool_cases

CASES = [*model_cases.CASES, *annotation_cases.CASES, *dataset_cases.CASES, *tool_cases.CASES]
