"""The command `rasterpipe`, also as `python -m pipeline`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is somebody to answer it: no traceback of imports
    from pipeline.cli.main import main as command
    from pipeline.execution.terminal import close, open_streams, say

    open_streams()
    try:
        command(prog_name="rasterpipe")
    except OSError as error:  # click's help, which nobody takes
        close(sys.stdout)
        say(f"error: stdout takes nothing: {error.strerror}")
        sys.exit(1)


if __name__ == "__main__":
    main()
