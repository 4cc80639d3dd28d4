"""Where shipped files lie: inside the installed package, or in the checkout they are edited in.

``setup.py`` copies ``engines/recipes`` and ``calib`` into the wheel under the names used here, so that a checkout holds
each file once.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).parent


def recipes() -> Path:
    """Return the folder of shipped engine recipes (``*.toml``)."""
    return _installed_or_checkout("_recipes", "engines/recipes")


def tables() -> Path:
    """Return the folder of shipped calibration tables (``<model>-<size>.json``)."""
    return _installed_or_checkout("_calib", "calib")


def models() -> Path:
    """Return the folder of shipped models, one subfolder each."""
    return _PACKAGE / "models"


def engines_root() -> Path:
    """Return where engines are built and looked for: ``$EDGESOD_ENGINES``, else ``engines`` under the current folder."""
    return Path(os.environ.get("EDGESOD_ENGINES") or "engines")


def cache() -> Path:
    """Return where downloads, compiled kernels and TensorRT's timings are kept: ``$EDGESOD_CACHE``, else the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("EDGESOD_CACHE") or user_cache_path("edgesod", appauthor=False))


def _installed_or_checkout(installed: str, checkout: str) -> Path:
    inside = _PACKAGE / installed
    return inside if inside.is_dir() else _PACKAGE.parent / checkout
