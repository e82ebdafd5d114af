# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
