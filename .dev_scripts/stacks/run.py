# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Run mmpanet on the stacks of ``requirements/stacks``: build each, test the installed wheel, try a user's commands."""
