"""``python -m edgesod`` is the ``edgesod`` command."""

from __future__ import annotations

import sys

from edgesod.errors import BackendError

# pip refuses such a Python, a clone does not: JetPack 5 has 3.8
if sys.version_info < (3, 10):  # noqa: UP036
    sys.stderr.write(
        "edgesod: error: this is Python {}.{}, edgesod needs 3.10 or later\n"
        "  try: update a Jetson to JetPack 6 or later; elsewhere, python3.10 -m edgesod\n".format(*sys.version_info)
    )
    sys.exit(BackendError.exit_code)

from edgesod.cli import main

main()
