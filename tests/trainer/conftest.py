"""One thread for torch: two wait for each other more than they help on pictures this small."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
