"""The fake TensorRT for a child process: ``FAKE_TENSORRT`` is its version, ``FAKE_MACHINE`` settings of its machine as JSON."""

import json
import os
import sys

from tests.contract.fake_tensorrt import make_fake
from tests.contract.machine import Machine
from tests.contract.record import load

settings = json.loads(os.environ.get("FAKE_MACHINE", "{}"))
sys.modules[__name__] = make_fake(load(os.environ["FAKE_TENSORRT"]), Machine.from_settings(settings))
