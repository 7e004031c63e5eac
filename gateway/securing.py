"""TLS of the listeners of one process: from a site's settings to contexts, and their renewal while it runs.

What may live here: which files a listener goes by, and when they are looked at. What is in them is `edges.tls`.
Certificates are replaced while everything runs: on SIGHUP and when a file changes, new connections get the new ones,
and those that are open go on.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import structlog

from gateway.config import HL7Settings, Settings
from gateway.edges.tls import ServerTLS, ServingContext, TLSFileError, outdated
from gateway.edges.tls_listener import TLSLimits, TLSPort
from gateway.security_settings import ListenerTLSSettings, TLSSettings, tls_of

LOOK_S = 3.0
"""How often files are looked at: some system calls for each."""

PER_ADDRESS_MIN = 8
"""Handshakes that each of several processes allows one address: the system spreads connections by chance."""

_log = structlog.get_logger()


def server_tls(base: Path, common: TLSSettings, own: TLSSettings) -> ServerTLS:
    """What a listener with this block shows and whom it lets in; paths are relative to the folder `base`."""
    said = tls_of(common, own)

    def path(name: str) -> str:
        return str(base / name) if name else ""

    return ServerTLS(
        path(said.certificate), path(said.key), path(said.ca), path(said.crl),
        said.profile or "bcp195", said.clients or "required",
    )  # fmt: skip


class ListenersTLS:
    """The contexts of every listener that has a block `tls`, by its name: `dicom`, `http`, and those of HL7."""

    def __init__(self, base: Path, settings: Settings, hl7: Iterable[HL7Settings], processes: int = 1) -> None:
        """`base` is the folder of the configuration. `processes` share the limits, this one among them.

        Raises TLSFileError, which is an OSError, where a file cannot be used.
        """
        blocks: dict[str, ListenerTLSSettings | None] = {"dicom": settings.dicom.tls, "http": settings.http.tls}
        blocks |= {f"hl7 {each.name}": each.tls for each in hl7}
        self._limits = limits_of(processes)
        self._asked = {
            name: (block.port, server_tls(base, settings.tls, block)) for name, block in blocks.items() if block
        }
        self._contexts = {name: ServingContext(asked) for name, (_, asked) in self._asked.items()}
        self._served: dict[str, ServingContext] = {}  # by this process; others were only made to see that they can be
        self._not_renewed: dict[str, str] = {}  # why, as it was said

    def port(self, name: str) -> TLSPort | None:
        """Where and how this listener speaks TLS; None: it does not."""
        if name not in self._asked:
            return None
        self._served[name] = self._contexts[name]
        return TLSPort(self._asked[name][0], self._contexts[name], self._limits)

    def described(self, name: str) -> str:
        """How this listener speaks TLS, for people."""
        asked = self._asked[name][1]
        return f"TLS, profile {asked.profile}, certificates {_CLIENTS[asked.clients]}"

    def warn(self) -> None:
        """Say in the log what a listener offers that it had better not."""
        for name, (_, asked) in self._asked.items():
            for text in outdated(asked):
                _log.warning("tls_weak", listener=name, text=text)

    def renew(self, *, always: bool = False) -> None:
        """Go by the files as they are now, where they changed or `always`; those that cannot be used change nothing."""
        for name, context in self._served.items():
            try:
                if context.renew(always=always):
                    _log.info("tls_renewed", listener=name)
            except TLSFileError as error:
                self._say_not_renewed(name, error.text, error.hint)
            except OSError as error:  # as of a full disk; nothing of that kind may end the watch
                text = (error.strerror or type(error).__name__).lower()
                self._say_not_renewed(name, text, "the machine lacks something; it is tried again")
            else:
                self._not_renewed.pop(name, None)

    def _say_not_renewed(self, name: str, text: str, hint: str) -> None:
        """Once for each trouble: it is tried again every few seconds."""
        if self._not_renewed.get(name) != text:
            self._not_renewed[name] = text
            _log.error("tls_not_renewed", listener=name, text=text, hint=hint, meaning="the old ones go on")

    async def watch(self, look_s: float = LOOK_S, looked: Callable[[], None] = lambda: None) -> None:
        """Renew what has changed, until cancelled; `looked` is called after each look."""
        while self._served:
            await asyncio.sleep(look_s)
            self.renew()
            looked()


_CLIENTS = {"required": "required", "requested": "asked for", "none": "not asked for"}


def limits_of(processes: int) -> TLSLimits:
    """The limits of one of so many processes: they are meant for all of them together."""
    of_all = TLSLimits()
    return replace(
        of_all,
        handshakes_max=-(-of_all.handshakes_max // processes),
        handshakes_per_address_max=max(-(-of_all.handshakes_per_address_max // processes), PER_ADDRESS_MIN),
    )
