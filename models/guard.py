"""The guard of an export's scratch folder: removes it once the export has ended, also by SIGKILL.

`python -I -S guard.py FOLDER`, with the reading end of a pipe on standard input that the export alone writes to: the
kernel closes it, however the export ends. In a process and a session of its own, so that no signal to the export's
group reaches it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time

TRIES = 50  # what the export has started may write for a moment longer
PAUSE = 0.1  # seconds


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    for _ in range(TRIES):
        shutil.rmtree(sys.argv[1], ignore_errors=True)
        if not os.path.exists(sys.argv[1]):
            return
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
