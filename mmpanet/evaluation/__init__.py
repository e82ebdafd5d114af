# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Experiments over seeds, comparisons of runs, and what goes wrong with single objects."""
