"""Who the users are that associations name: identities proved beside the event loop, by the site as it is now.

What may live here: threads for proofs, how many may wait for them, and what the log learns: never a name or a secret.
"""

import asyncio
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from gateway.answering import REJECTIONS, Denied
from gateway.config import Site
from gateway.domain.access import Denial, User
from gateway.edges.dimse_service import Association
from gateway.edges.flood import Flood
from gateway.edges.identity_memory import IdentityMemory, Unreadable
from gateway.identity_files import proves_anything
from gateway.wire.upper_layer import TEMPORARY_CONGESTION, Rejection
from gateway.wire.user_identity import UserIdentity

if TYPE_CHECKING:
    from gateway.edges.identity_proofs import Proofs

THREADS = 2
"""Proofs at once: each of a passcode has 16 MB and a processor for a quarter of a second."""
WAITING_MAX = 64
"""Proofs in progress or waiting, then others are told to come back: these take eight seconds."""

_log = structlog.get_logger()


class Identifying:
    """Proves the identities of one process."""

    def __init__(self, site: Site, denied: Denied) -> None:
        """`denied` is told of each identity that was not accepted; it must neither wait nor fail."""
        self._site = site
        self._denied = denied
        self._memory = IdentityMemory()
        self._flood = Flood()
        self._proofs = _proofs(site, self._memory)
        self._threads: ThreadPoolExecutor | None = None  # until somebody names a user
        self._waiting = 0

    def serve(self, site: Site) -> None:
        """Prove by this site from now on. What is remembered of failures and used assertions stays."""
        if site.settings.users != self._site.settings.users or site.file.parent != self._site.file.parent:
            self._proofs = _proofs(site, self._memory)
        self._site = site

    def stop(self) -> None:
        """Start no more proofs."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self._flood.flush()

    def identify(self, association: Association, identity: UserIdentity) -> Awaitable[User | Rejection] | None:
        """As `DIMSEService.identify`."""
        return None if self._proofs is None else self._identified(self._proofs, association, identity)

    async def _identified(self, proofs: "Proofs", association: Association, identity: UserIdentity) -> User | Rejection:
        if self._waiting >= WAITING_MAX:
            self._refused(association, identity, "too many user identities wait to be proved")
            return TEMPORARY_CONGESTION
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, "identity")
        self._waiting += 1
        try:
            proof = await asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: proofs.prove(identity, association.remote_host, tls=association.tls)
            )
        finally:
            self._waiting -= 1
        if isinstance(proof, User):
            return proof
        self._refused(association, identity, proof.words)
        self._denied(association, Denial.USER)
        return REJECTIONS[Denial.USER]

    def _refused(self, association: Association, identity: UserIdentity, words: str) -> None:
        if self._flood.lets("user_identity_refused", words):
            _log.warning(
                "user_identity_refused",
                association=association.number,
                calling_ae_title=association.calling_ae_title,
                remote_host=association.remote_host,
                kind=identity.kind,
                words=words,
            )


def _proofs(site: Site, memory: IdentityMemory) -> "Proofs | None":
    """None where nobody looks at users: then an identity is taken silently (PS3.7 D.3.3.7)."""
    users = site.settings.users
    if not proves_anything(users):
        return None
    from gateway.edges.identity_proofs import Proofs  # late: it brings libraries that few sites need

    return Proofs(users, site.file.parent, _tell, memory)


def _tell(unreadable: Unreadable) -> None:
    _log.error("identity_file_unreadable", file=unreadable.path.name, words=unreadable.words)
