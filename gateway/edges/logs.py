"""Logs that tell the story without the patient (design D15).

Our events have fixed names and fields. Library loggers pass one filter: what they say may quote values (pydicom
warnings, SQL errors), so only their name and level are told.
"""

import contextlib
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog
from pydantic_core import to_json

_LIBRARIES_TOLD_ABOUT = logging.WARNING


class Unhurried:
    """A stream that is written to a few times a second, and whose failures stay its own.

    A system call for each line makes the event loop give up the interpreter and wait for it again, which cost a tenth
    of the message rate; a full disk under the log must not stop the answer to a scanner.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line = ""
        self._lines: list[str] = []
        self._since = time.monotonic()

    def write(self, text: str) -> None:
        """Keep the text, and write what is kept once it is old or much; a line and its end may come apart."""
        self._line += text
        if not text.endswith("\n"):
            return
        self._lines.append(self._line)
        self._line = ""
        if time.monotonic() - self._since > _KEPT_S or len(self._lines) > _KEPT_MAX:
            self.let_go()

    def flush(self) -> None:
        """The logger asks for this after each line; `let_go` is what really writes."""

    def let_go(self) -> None:
        """Write what is kept, if that can be done."""
        lines, self._lines, self._since = self._lines, [], time.monotonic()
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream was closed
            for piece in _pieces(lines):
                self._stream.write(piece)
                self._stream.flush()


def _pieces(lines: Iterable[str]) -> Iterator[str]:
    """Whole lines, as many together as a pipe takes at once: other processes write to the same one."""
    piece: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode(errors="replace"))
        if piece and size + length > _PIECE_BYTES_MAX:
            yield "".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += length
    if piece:
        yield "".join(piece)


_PIECE_BYTES_MAX = 4_096  # PIPE_BUF of Linux: a shorter write is never mixed with another's
_KEPT_S = 0.2
_KEPT_MAX = 1_000  # lines; some 200 KB


class _WithoutValues(logging.Handler):
    """Turns a library's record into an event that carries none of its text."""

    def emit(self, record: logging.LogRecord) -> None:
        """Tell that a library had something to say."""
        failure = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        structlog.get_logger().warning("library_message", logger=record.name, level=record.levelname, failure=failure)


def configure(stream: TextIO = sys.stderr, **fields: Any) -> Callable[[], None]:
    """Set up structlog on `stream`: readable on a terminal, JSON lines elsewhere. Every event has these fields.

    Returns what writes the lines still kept: to be called now and then, and at the end.
    """
    unhurried = Unhurried(stream)
    structlog.configure(
        processors=[_for_people(fields) if stream.isatty() else _for_machines(fields)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: _Lines(unhurried),
        cache_logger_on_first_use=True,
    )
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    # ldap3 2.9.1 asks for names that pyasn1 has renamed, as it is imported: nobody who reads this log can change that.
    warnings.filterwarnings("ignore", "(tagMap|typeMap) is deprecated", DeprecationWarning)
    root = logging.getLogger()
    root.handlers[:] = [_WithoutValues()]
    root.setLevel(_LIBRARIES_TOLD_ABOUT)
    for name in ("pydicom", "pynetdicom", "sqlalchemy", "alembic", "uvicorn", "uvicorn.error", "apscheduler"):
        library = logging.getLogger(name)
        library.handlers[:] = []
        library.propagate = True
        library.setLevel(_LIBRARIES_TOLD_ABOUT)
    return unhurried.let_go


class _Lines:
    """What structlog hands finished lines to."""

    def __init__(self, unhurried: Unhurried) -> None:
        self._unhurried = unhurried

    def msg(self, line: str) -> None:
        """Write one line."""
        self._unhurried.write(f"{line}\n")

    debug = info = warning = error = critical = msg


def _for_machines(fields: Mapping[str, Any]) -> structlog.typing.Processor:
    """One JSON object a line. One step for all that structlog has a processor each for, which takes a third."""

    def line(_logger: Any, name: str, event: structlog.typing.EventDict) -> str:
        said = {
            "event": event.pop("event"),
            "level": name,
            "timestamp": datetime.now(UTC).isoformat(),
            **fields,
            **_failure_without_text(event),
        }
        try:
            return to_json(said, fallback=str).decode()
        except ValueError:  # a peer's text that is not even Unicode
            return json.dumps(said, default=str)

    return line


def _for_people(fields: Mapping[str, Any]) -> structlog.typing.Processor:
    """Coloured, for a terminal."""
    add_level, add_time = structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)
    render = structlog.dev.ConsoleRenderer(colors=True)

    def line(logger: Any, name: str, event: structlog.typing.EventDict) -> str:
        said = add_time(logger, name, add_level(logger, name, {**_failure_without_text(event), **fields}))
        return str(render(logger, name, said))

    return line


def _failure_without_text(event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """An exception becomes its type and the place it came from: its message may quote a value."""
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        event["failure"] = type(error).__name__
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is not None:
            event["at"] = f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
    return event
