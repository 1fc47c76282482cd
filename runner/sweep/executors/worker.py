"""A process of the pool: runs the chunks of points that it receives.

    python -m runner.sweep.executors.worker CONNECTION LIFELINE

Both arguments are file descriptors: a connection to the pool, and a pipe that closes when the pool's process ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection

from runner.sweep.executors.work import run_tasks


def serve(connection: Connection) -> None:
    """Run chunks until the pool sends None or closes the connection."""
    import torch

    directory, settings = connection.recv()
    torch.set_num_threads(settings.threads)
    work = settings.work(directory)

    def begun(index: int) -> None:
        connection.send(("begun", index))

    while (chunk := connection.recv()) is not None:
        name, tasks = chunk
        try:
            for outcomes in run_tasks(work, tasks, name, begun, connection.poll):
                connection.send(("ended", outcomes))
        except OSError as error:
            connection.send(("fault", error))
            return


def end_with(lifeline: int) -> None:
    """End this process when the other end of a pipe closes."""

    def watch() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool decides what an interruption ends
    end_with(int(sys.argv[2]))
    serve(Connection(int(sys.argv[1])))
