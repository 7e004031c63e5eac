"""What every process of a pool of ours does first, so that none outlives the gateway."""

import multiprocessing
import os
import signal
import threading


def begin() -> None:
    """In the new process: it ends with the gateway, however that ends, and not by a Ctrl-C meant for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(0)
