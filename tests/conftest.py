"""Settings for every test: a property is about values, not about how busy the machine is."""

import os

import pytest
import structlog
from hypothesis import HealthCheck, settings
from settled_reactor import settle

settings.register_profile("gateway", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("gateway")

settle()

os.environ.pop(
    "COLUMNS", None
)  # a test process that runs beside others has it, and what commands print would be cut to it


@pytest.fixture(autouse=True)
def _loggers_can_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command run in this process sets up the logs; loggers that keep it would say nothing to `capture_logs`."""
    configure = structlog.configure
    monkeypatch.setattr(
        structlog, "configure", lambda **said: configure(**{**said, "cache_logger_on_first_use": False})
    )
