"""pynetdicom's requestor without its race: a request is sent only while the reactor's thread really stands still.

pynetdicom 3.0 asks the reactor to pause and believes a flag that the reactor sets just before it looks whether it may
go on. Between the two the reactor may pass, take the answer off the queue as an "unexpected message", and the requestor
waits for it until its time is up. On a busy machine this fails one test in thousands.
"""

import threading

from pynetdicom.association import Association


class _Gate:
    """A `threading.Event` that knows whether somebody stands before it."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._open = True
        self.blocked = False

    def set(self) -> None:
        with self._moved:
            self._open, self.blocked = True, False
            self._moved.notify_all()

    def clear(self) -> None:
        with self._moved:
            self._open = False

    def wait(self) -> None:
        with self._moved:
            self.blocked = not self._open
            self._moved.wait_for(lambda: not self.blocked)


def _is_paused(association: Association) -> bool:
    own = threading.current_thread() is association  # the reactor itself may send: it reads nothing meanwhile
    return association._kill or own or association._reactor_checkpoint.blocked


def settle() -> None:
    """Make it so for every association of this process, from now on."""
    made = Association.__init__

    def init(self: Association, *args: object, **named: object) -> None:
        made(self, *args, **named)
        self._reactor_checkpoint = _Gate()

    Association.__init__ = init
    Association._is_paused = property(_is_paused, lambda _, __: None)
