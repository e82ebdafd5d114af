# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What PANet costs beside the models that it replaces: time, memory and arithmetic, measured side by side."""
