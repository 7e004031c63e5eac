"""`python -m gateway.workers NUMBER CHANNEL SOCKET...`: a worker, started by the main process and by nobody else.

Its life is the channel's. A signal for the service may reach every process of it (systemd, a terminal); the main
process answers it, and the workers end when that tells them to.
"""

import signal

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)

from gateway.workers.process import main  # noqa: E402  (the signals first: the import takes a second)

main()
