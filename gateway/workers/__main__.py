"""`python -m gateway.workers NUMBER CHANNEL DICOM DICOM-TLS [HL7 HL7-TLS]...`: a worker, started by the main process
and by nobody else.

All but its number are descriptors of sockets: of its channel, and with commas between them those that it listens on for
DICOM and for each HL7 listener, plain and then with TLS; an empty argument where that is not served.

Its life is the channel's. A signal for the service may reach every process of it (systemd, a terminal); the main
process answers it, and the workers end when that tells them to.
"""

import signal

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)

from gateway.workers.process import main  # noqa: E402  (the signals first: the import takes a second)

main()
