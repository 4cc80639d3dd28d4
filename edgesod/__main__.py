"""``python -m edgesod`` is the ``edgesod`` command."""

from edgesod.cli import main

main()
