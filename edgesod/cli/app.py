"""The ``edgesod`` program: its commands, and how it ends."""

from __future__ import annotations

import gc
import os
import sys
import threading
from io import TextIOWrapper
from itertools import pairwise
from typing import Annotated

import typer

from edgesod import __version__
from edgesod.cli import _output
from edgesod.cli._config import ConfiguredCommand
from edgesod.errors import EdgesodError

from . import bench, build, calibrate, compare, data, demo, doctor, evaluate, export, inspect, models, run, train

INTERRUPTED = 130

app = typer.Typer(
    name="edgesod",
    help="Salient-object detection from a training set to a robot.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command(run.NAME, cls=ConfiguredCommand)(run.command)
for command in (build, bench, compare, models, inspect, doctor, demo, calibrate, export, evaluate, train):
    app.command(command.NAME)(command.command)
app.add_typer(data.app)


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    if version:
        _output.result(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line and exit: 0 done, else as :mod:`edgesod.errors` says, 130 when interrupted."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: a name that is no UTF-8 is no reason to fail
    if "--log-format=json" in sys.argv or ("--log-format", "json") in pairwise(sys.argv):
        _output.log_as_json()  # already here, for what is wrong with the other words
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except EdgesodError as error:
        if os.environ.get("EDGESOD_DEBUG"):
            raise
        _output.error(str(error), error.hint)
        code = error.exit_code
    except Exception as error:
        # what typer raises for wrong options knows how to show itself; which class that is changed between its versions
        if hasattr(error, "show") and hasattr(error, "exit_code") and hasattr(error, "format_message"):
            if _output.log_is_json():
                _output.error(error.format_message(), "see --help")
            else:
                error.show()
            code = error.exit_code
        elif os.environ.get("EDGESOD_DEBUG"):
            raise
        else:
            _output.error(
                f"edgesod failed in a way it did not foresee: {type(error).__name__}: {error}",
                "run it again with EDGESOD_DEBUG=1 to see where, and report it",
            )
            code = 1
    _leave(code if isinstance(code, int) else 0)


def _leave(code: int) -> None:
    """Exit; without the interpreter's own tidying-up where a thread is stuck in a driver, which that would crash or wait for."""
    if any(thread.name.startswith("edgesod-") for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if "onnxsim" not in sys.modules:  # whose binding reports as leaked what was not looked through
        gc.freeze()  # or the interpreter looks through every object once more, which takes longer than many a command's end
    sys.exit(code)
