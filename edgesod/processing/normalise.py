"""From pixels to the network's input tensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""RGB channel means in [0, 1]."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB channel standard deviations in [0, 1]."""
