"""What the server of ``forks`` imports, once for all of its children. Not for any other process."""

from __future__ import annotations

import gc

import pandas as pd  # noqa: F401 -- pyarrow imports it with its first array
import pytest  # noqa: F401 -- the modules of tests do

from headwater import lake  # noqa: F401
from headwater.log import restore  # noqa: F401
from headwater.testing import group_worker, kafka_workload, producing, rivals, workloads  # noqa: F401

gc.collect()
gc.freeze()  # or each child's first collection would copy every page
