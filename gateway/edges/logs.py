"""Logs that tell the story without the patient (design D15).

Our events have fixed names and fields. Library loggers pass one filter: what they say may quote values (pydicom
warnings, SQL errors), so only their name and level are told.
"""

import contextlib
import logging
import sys
import warnings
from typing import Any, TextIO, cast

import structlog

_LIBRARIES_TOLD_ABOUT = logging.WARNING


class _Unfailing:
    """A stream whose failures stay its own: a full disk under the log must not stop the answer to a scanner."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write if that can be done."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream was closed
            self._stream.write(text)

    def flush(self) -> None:
        """Flush if that can be done."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _WithoutValues(logging.Handler):
    """Turns a library's record into an event that carries none of its text."""

    def emit(self, record: logging.LogRecord) -> None:
        """Tell that a library had something to say."""
        failure = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        structlog.get_logger().warning("library_message", logger=record.name, level=record.levelname, failure=failure)


def configure(stream: TextIO = sys.stderr) -> None:
    """Set up structlog on `stream`: readable on a terminal, JSON lines elsewhere."""
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=True) if stream.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _failure_without_text,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Unfailing(stream))),
        cache_logger_on_first_use=True,
    )
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    root = logging.getLogger()
    root.handlers[:] = [_WithoutValues()]
    root.setLevel(_LIBRARIES_TOLD_ABOUT)
    for name in ("pydicom", "pynetdicom", "sqlalchemy", "alembic", "uvicorn", "uvicorn.error", "apscheduler"):
        library = logging.getLogger(name)
        library.handlers[:] = []
        library.propagate = True
        library.setLevel(_LIBRARIES_TOLD_ABOUT)


def _failure_without_text(_logger: Any, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
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
