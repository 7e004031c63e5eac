"""Proofs beside the event loop: how many may wait, what a reload changes, and who is told of a failure."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from identity_tokens import AUDIENCE, ISSUER, Provider

from gateway import identifying
from gateway.config import load_site
from gateway.domain.access import Denial, User
from gateway.edges.dimse_server import Association
from gateway.edges.identity_proofs import Proof, Proofs
from gateway.identifying import WAITING_MAX, Identifying
from gateway.testing import site
from gateway.wire.upper_layer import AUTHENTICATION_FAILED, TEMPORARY_CONGESTION
from gateway.wire.user_identity import UserIdentity

CALLER = Association(1, "CT1", "GATEWAY", "10.1.2.3", "", 0)
NAME = UserIdentity(1, True, b"MARKED-user")
TICKET = UserIdentity(3, True, b"MARKED-ticket")


def test_where_users_says_nothing_nobody_looks(tmp_path: Path) -> None:
    assert Identifying(load_site(site(tmp_path)), lambda *_: None).identify(CALLER, NAME) is None


def test_a_reload_begins_and_ends_looking_at_users(tmp_path: Path) -> None:
    before = load_site(site(tmp_path))
    after = load_site(site(tmp_path, users={"trust_names": True}))

    async def ask() -> None:
        looking = Identifying(before, lambda *_: None)
        looking.serve(after)
        found = looking.identify(CALLER, NAME)
        assert found is not None
        assert await found == User("MARKED-user", 1, proved=True)
        looking.serve(before)
        assert looking.identify(CALLER, NAME) is None
        looking.stop()

    asyncio.run(ask())


def test_an_assertion_that_was_used_stays_used_though_users_change(tmp_path: Path) -> None:
    provider = Provider()
    provider.write(tmp_path)
    saml = [{"issuer": ISSUER, "audience": AUDIENCE, "certificate": "idp.pem"}]
    before = load_site(site(tmp_path, users={"saml": saml}))
    after = load_site(site(tmp_path, users={"saml": saml, "trust_names": True}))
    caller, assertion = replace(CALLER, remote_host="127.0.0.1"), UserIdentity(4, True, provider.assertion())

    async def ask() -> None:
        looking = Identifying(before, lambda *_: None)
        first = looking.identify(caller, assertion)
        assert first is not None
        assert isinstance(await first, User)
        looking.serve(after)
        again = looking.identify(caller, assertion)
        assert again is not None
        assert await again == AUTHENTICATION_FAILED
        looking.stop()

    asyncio.run(ask())


def test_a_failure_is_told_once_and_rejected(tmp_path: Path) -> None:
    told: list[tuple[Association, Denial]] = []

    async def ask() -> None:
        looking = Identifying(load_site(site(tmp_path, users={"trust_names": True})), lambda *what: told.append(what))
        found = looking.identify(CALLER, TICKET)
        assert found is not None
        assert await found == AUTHENTICATION_FAILED
        looking.stop()

    asyncio.run(ask())
    assert told == [(CALLER, Denial.USER)]


def test_more_identities_than_can_be_proved_soon_are_told_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()
    at_once, most = 0, 0
    lock = threading.Lock()

    def slow(self: Proofs, identity: UserIdentity, address: str, *, tls: bool) -> Proof:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        may_end.wait(10)
        with lock:
            at_once -= 1
        return User("", identity.kind, proved=False)

    monkeypatch.setattr(Proofs, "prove", slow)

    async def ask() -> list[object]:
        looking = Identifying(load_site(site(tmp_path, users={"trust_names": True})), lambda *_: None)
        found = [looking.identify(CALLER, NAME) for _ in range(WAITING_MAX + 3)]
        waiting = [asyncio.ensure_future(each) for each in found if each is not None]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert {each.result() for each in done} == {TEMPORARY_CONGESTION}
        may_end.set()
        answers: list[object] = await asyncio.gather(*waiting)
        looking.stop()
        return answers

    answers = asyncio.run(ask())
    assert answers[WAITING_MAX:] == [TEMPORARY_CONGESTION] * 3
    assert all(isinstance(each, User) for each in answers[:WAITING_MAX])
    assert most == identifying.THREADS
