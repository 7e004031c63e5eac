"""Associations that name a user: the listener while it waits for a proof, and the whole service with real peers."""

import asyncio
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from access_peers import logged, rejection, secured, until, with_user_item
from dimse_peers import MARK, RudePeer, Serve, associated, message_pdus, request_pdu
from identity_tokens import AUDIENCE, ISSUER, Provider
from pynetdicom import AE, Association
from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.pdu_items import UserIdentitySubItemAC, UserIdentitySubItemRQ
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from gateway.config import load_site
from gateway.domain.access import User
from gateway.edges.dimse_server import Limits, Rejection
from gateway.edges.dimse_service import Admission
from gateway.edges.identity_memory import TRIES_MAX
from gateway.edges.store import Store
from gateway.identity_files import put_user
from gateway.testing import ServiceProcess, site
from gateway.wire.upper_layer import MODALITY_WORKLIST, MPPS, VERIFICATION
from gateway.wire.user_identity import UserIdentity

PROVED = User("mta1", 2, proved=True)
FAILED_ON_THE_WIRE = (1, 2, 1)
FAILED = Rejection(*FAILED_ON_THE_WIRE)
ABORT = bytes.fromhex("07000000000400000000")


def identified_pdu(*, response: bool = False) -> bytes:
    """A request for the worklist that names mta1 with a passcode."""
    item = UserIdentitySubItemRQ()
    item.user_identity_type, item.positive_response_requested = 2, int(response)
    item.primary_field, item.secondary_field = b"mta1", MARK.encode()
    return with_user_item(request_pdu(MODALITY_WORKLIST), item.encode())


def responses(answer: bytes) -> list[bytes]:
    """The server responses in an A-ASSOCIATE-AC."""
    pdu = A_ASSOCIATE_AC()
    pdu.decode(answer)
    assert pdu.user_information is not None
    items = pdu.user_information.user_data
    return [each.server_response or b"" for each in items if isinstance(each, UserIdentitySubItemAC)]


class Slow:
    """A proof that ends when it is told to."""

    def __init__(self, result: User | Rejection | Exception) -> None:
        self.result = result
        self.begun = threading.Event()
        self.asked: list[UserIdentity] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._may_end: asyncio.Event | None = None

    async def __call__(self, identity: UserIdentity) -> User | Rejection:
        self.asked.append(identity)
        self._loop, self._may_end = asyncio.get_running_loop(), asyncio.Event()
        self.begun.set()
        await self._may_end.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def end(self) -> None:
        assert self.begun.wait(10)
        assert self._loop is not None
        assert self._may_end is not None
        self._loop.call_soon_threadsafe(self._may_end.set)


@pytest.mark.parametrize(("asked", "proved", "answered"), [
    (True, True, [b""]), (False, True, []), (True, False, []), (False, False, []),
])  # fmt: skip
def test_a_response_is_sent_where_it_was_asked_for_and_the_identity_proved(
    serve: Serve, asked: bool, proved: bool, answered: list[bytes]
) -> None:
    running = serve()
    proof = Slow(User("mta1", 2, proved=proved))
    running.service.proof = proof
    with RudePeer(running.port) as peer:
        peer.send(identified_pdu(response=asked))
        proof.end()
        assert responses(peer.pdu()) == answered
    assert proof.asked == [UserIdentity(2, asked, b"mta1", MARK.encode())]
    assert running.service.callers[0].user == User("mta1", 2, proved=proved)


def test_where_nobody_looks_at_users_an_identity_is_taken_silently(serve: Serve) -> None:
    running = serve()
    with RudePeer(running.port) as peer:
        peer.send(identified_pdu(response=True))
        assert responses(peer.pdu()) == []
    assert running.service.callers[0].user is None


def test_a_failed_proof_is_rejected_and_nobody_is_asked_whether_to_let_it_in(serve: Serve) -> None:
    running = serve()
    proof = Slow(FAILED)
    running.service.proof = proof
    with RudePeer(running.port) as peer:
        peer.send(identified_pdu(response=True))
        proof.end()
        assert peer.pdu() == b"\x03\x00\x00\x00\x00\x04\x00\x01\x02\x01"
    running.seen("association_rejected", result=1, source=2, reason=1)
    assert running.service.callers == []
    assert MARK not in repr(running.events)


def test_our_own_fault_in_a_proof_is_told_as_that(serve: Serve) -> None:
    running = serve()
    proof = Slow(ValueError(MARK))
    running.service.proof = proof
    with RudePeer(running.port) as peer:
        peer.send(identified_pdu())
        proof.end()
        assert peer.pdu()[7:] == bytes((2, 1, 1))
    running.seen("association_rejected", error="ValueError")
    assert MARK not in repr(running.events)


def test_while_a_proof_takes_its_time_others_are_served(serve: Serve) -> None:
    running = serve()
    proof = Slow(PROVED)
    running.service.proof = proof
    with RudePeer(running.port) as peer:
        peer.send(identified_pdu())
        assert proof.begun.wait(10)
        with associated(running) as association:
            assert association.send_c_echo().Status == 0
        proof.end()
        assert peer.pdu()[0] == 2


@pytest.mark.parametrize("meanwhile", ["close", "abort", "data"])
def test_a_peer_that_does_not_wait_for_the_proof_is_not_let_in(serve: Serve, meanwhile: str) -> None:
    running = serve()
    proof = Slow(PROVED)
    running.service.proof = proof
    with RudePeer(running.port) as peer:
        peer.send(identified_pdu())
        assert proof.begun.wait(10)
        if meanwhile == "abort":
            peer.send(ABORT)
        elif meanwhile == "data":
            peer.send(message_pdus(1, 0x0030, VERIFICATION, dataset=None))
            assert peer.pdu()[0] == 7
    running.seen("association_aborted")
    proof.end()
    running.until(lambda: not running.server._workers)
    assert running.service.callers == []
    assert running.server.associations == 0


def test_a_request_that_came_with_something_it_may_not_bring_is_not_worth_a_proof(serve: Serve) -> None:
    running = serve()
    proof = Slow(PROVED)
    running.service.proof = proof
    with RudePeer(running.port) as peer:
        peer.send(identified_pdu() + message_pdus(1, 0x0030, VERIFICATION, dataset=None))
        assert peer.pdu()[0] == 7
    running.seen("association_aborted", by="gateway")
    assert proof.asked == []


def test_where_there_is_no_room_nothing_is_proved(serve: Serve) -> None:
    running = serve(limits=Limits(associations_max=1))
    proof = Slow(PROVED)
    running.service.proof = proof
    with associated(running), RudePeer(running.port) as peer:
        peer.send(identified_pdu())
        assert peer.pdu()[7:] == bytes((2, 3, 2))
    assert proof.asked == []


def test_the_service_stops_while_a_proof_is_in_progress(serve: Serve) -> None:
    running = serve()
    proof = Slow(PROVED)
    running.service.proof = proof
    with RudePeer(running.port) as peer:
        peer.send(identified_pdu())
        assert proof.begun.wait(10)
        running.stop()
        assert peer.pdu()[0] == 7
    assert running.server.associations == 0


def test_only_what_somebody_may_do_is_accepted(serve: Serve) -> None:
    running = serve()
    running.service.admission = Admission(frozenset({VERIFICATION, MODALITY_WORKLIST}))
    with associated(running) as association:
        assert {each.abstract_syntax for each in association.accepted_contexts} == {VERIFICATION, MODALITY_WORKLIST}
        assert {each.result for each in association.rejected_contexts} == {1}
        assert association.send_c_echo().Status == 0


def test_a_message_on_a_context_that_was_not_let_in_is_answered_with_abort(serve: Serve) -> None:
    running = serve()
    running.service.admission = Admission(frozenset({VERIFICATION}))
    with RudePeer(running.port) as peer:
        peer.send(request_pdu(MPPS))
        assert peer.pdu()[0] == 2
        peer.send(message_pdus(1, 0x0140, MPPS, dataset=b""))
        assert peer.pdu()[0] == 7
    assert running.service.changes == []


# The whole service, and real peers


PROVIDER = Provider()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A gateway that looks at passcodes, tokens and assertions, and lets in those without a user."""
    config = site(
        tmp_path_factory.mktemp("site"),
        users={
            "passwords": {"file": "users.yaml"},
            "jwt": [{"issuer": ISSUER, "audience": AUDIENCE, "keys": "keys.pem"}],
            "saml": [{"issuer": ISSUER, "audience": AUDIENCE, "certificate": "idp.pem"}],
        },
    )
    PROVIDER.write(config.parent)
    put_user(config.parent / "users.yaml", "MARKED-user", b"MARKED-right")
    with ServiceProcess(config) as running:
        yield running


def caller(
    service: ServiceProcess,
    kind: int,
    primary: bytes,
    secondary: bytes = b"",
    *,
    response: bool,
) -> Association:
    """An association of pynetdicom's that names a user."""
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.positive_response_requested = kind, response
    identity.primary_field = primary
    if secondary:
        identity.secondary_field = secondary
    ae = AE(ae_title="CT1")
    ae.add_requested_context(VERIFICATION)
    return ae.associate(service.host, service.dicom_port, ae_title="GATEWAY", ext_neg=[identity])


def answered(association: Association) -> list[bytes]:
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()
    response = association.acceptor.user_identity
    return [] if response is None else [response.server_response or b""]


def rejected(association: Association) -> tuple[int, int, int]:
    assert association.is_rejected
    primitive = association.acceptor.primitive
    assert primitive is not None
    return primitive.result, primitive.result_source, primitive.diagnostic


@pytest.mark.parametrize("response", [False, True])
def test_pynetdicom_is_let_in_by_a_passcode_a_token_and_an_assertion(service: ServiceProcess, response: bool) -> None:
    expected = [b""] if response else []
    assertion = PROVIDER.assertion(number=f"_{response}")
    assert answered(caller(service, 2, b"MARKED-user", b"MARKED-right", response=response)) == expected
    assert answered(caller(service, 5, PROVIDER.token(sub="MARKED-user"), response=response)) == expected
    assert answered(caller(service, 4, assertion, response=response)) == expected


def test_a_wrong_passcode_with_a_response_requested_is_rejected_for_good(service: ServiceProcess) -> None:
    """Vector 4 of the security digest."""
    assert rejected(caller(service, 2, b"MARKED-user", b"MARKED-wrong", response=True)) == (1, 2, 1)


def test_a_name_without_a_response_requested_is_let_in_and_not_answered(service: ServiceProcess) -> None:
    """Vector 5 of the security digest, but for its audit record."""
    assert answered(caller(service, 1, b"MARKED-user", response=False)) == []


def test_a_name_proves_nothing_and_is_not_answered_though_a_response_is_requested(service: ServiceProcess) -> None:
    assert answered(caller(service, 1, b"MARKED-user", response=True)) == []


def test_expired_replayed_and_kerberos_are_rejected(service: ServiceProcess) -> None:
    assertion = PROVIDER.assertion(number="_replayed")
    assert answered(caller(service, 4, assertion, response=True)) == [b""]
    assert rejected(caller(service, 4, assertion, response=True)) == (1, 2, 1)
    assert rejected(caller(service, 5, PROVIDER.token(exp=1_000_000_000), response=True)) == (1, 2, 1)
    assert rejected(caller(service, 3, b"ticket", response=True)) == (1, 2, 1)


def _storescu(service: ServiceProcess, folder: Path, *options: str) -> str:
    program = shutil.which("storescu")
    if program is None:
        pytest.skip("storescu is not installed (Debian package dcmtk)")
    file = folder / "image.dcm"
    from pydicom.dataset import Dataset, FileMetaDataset

    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    image.save_as(file, enforce_file_format=True)
    arguments = [
        program,
        "-v",
        "-aet",
        "CT1",
        "-aec",
        "GATEWAY",
        *options,
        service.host,
        str(service.dicom_port),
        str(file),
    ]
    done = subprocess.run(arguments, capture_output=True, timeout=60, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")


@pytest.mark.interop
def test_dcmtk_is_let_in_by_the_right_passcode_and_told_so(service: ServiceProcess, tmp_path: Path) -> None:
    """Images are not taken here, so what it says next is that no presentation context is acceptable."""
    said = _storescu(service, tmp_path, "--user", "MARKED-user", "--password", "MARKED-right", "--pos-response")
    assert "No Acceptable Presentation Contexts" in said
    assert "Rejected" not in said


@pytest.mark.interop
def test_dcmtk_is_rejected_with_a_wrong_passcode(service: ServiceProcess, tmp_path: Path) -> None:
    said = _storescu(service, tmp_path, "--user", "MARKED-user", "--password", "MARKED-wrong", "--pos-response")
    assert "Rejected Permanent, Source: Service Provider (ACSE Related)" in said


@pytest.mark.interop
def test_dcmtk_is_let_in_by_a_token_and_an_assertion(service: ServiceProcess, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(PROVIDER.token())
    (tmp_path / "assertion").write_bytes(PROVIDER.assertion(number="_dcmtk"))
    for option, file in (("--jwt", "token"), ("--saml", "assertion")):
        said = _storescu(service, tmp_path, option, str(tmp_path / file), "--pos-response")
        assert "No Acceptable Presentation Contexts" in said


# Users who have to be named


def test_where_a_user_is_required_only_a_proved_one_is_let_in_and_log_and_metrics_name_nobody(tmp_path: Path) -> None:
    config = site(tmp_path, users={"passwords": {"file": "users.yaml"}, "required": True})
    put_user(tmp_path / "users.yaml", "MARKED-user", b"MARKED-right")
    with ServiceProcess(config) as service:
        ae = AE(ae_title="CT1")
        ae.add_requested_context(VERIFICATION)
        assert rejected(ae.associate(service.host, service.dicom_port, ae_title="GATEWAY")) == FAILED_ON_THE_WIRE
        assert rejected(caller(service, 1, b"MARKED-user", response=False)) == FAILED_ON_THE_WIRE
        assert rejected(caller(service, 5, PROVIDER.token(), response=False)) == FAILED_ON_THE_WIRE
        assert rejected(caller(service, 2, b"MARKED-user", b"MARKED-wrong", response=False)) == FAILED_ON_THE_WIRE
        assert answered(caller(service, 2, b"MARKED-user", b"MARKED-right", response=True)) == [b""]
        with urllib.request.urlopen(f"http://{service.host}:{service.http_port}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
    denied = dict(
        line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("gateway_callers_denied_total")
    )
    assert {reason: float(count) for reason, count in denied.items()} == {
        'gateway_callers_denied_total{reason="no_user"}': 1,
        'gateway_callers_denied_total{reason="user"}': 3,
    }
    log = service.output.read_text(encoding="utf-8")  # whole, since the service has stopped
    assert "user_identity_refused" in log
    assert "user name or passcode is wrong" in log
    assert "MARKED" not in log + metrics


# Who may not in whoever the user is


def passcode_item(passcode: bytes) -> bytes:
    """A sub-item that names MARKED-user, and asks for a response."""
    item = UserIdentitySubItemRQ()
    item.user_identity_type, item.positive_response_requested = 2, 1
    item.primary_field, item.secondary_field = b"MARKED-user", passcode
    return bytes(item.encode())


@pytest.mark.parametrize(("title", "source", "reason"), [
    ("STRANGER", "127.0.0.1", "calling_unknown"),
    ("CT1", "127.0.0.2", "address"),
    ("XA1", "127.0.0.1", "not_installed"),
])  # fmt: skip
def test_under_a_title_that_is_not_let_in_no_passcode_can_be_tried(
    tmp_path: Path, title: str, source: str, reason: str
) -> None:
    entries: list[dict[str, object]] = [
        {"ae_title": "CT1", "addresses": ["127.0.0.1"]}, {"ae_title": "XA1", "installed": False}
    ]  # fmt: skip
    put_user(tmp_path / "users.yaml", "MARKED-user", b"MARKED-right")
    users = {"passwords": {"file": "users.yaml"}, "required": True}
    with secured(tmp_path, entries, users=users) as service:
        for passcode in (b"MARKED-right", *[b"MARKED-wrong"] * (TRIES_MAX + 2)):
            assert rejection(service, title, source=source, user_item=passcode_item(passcode)) == (1, 1, 3)
        assert answered(caller(service, 2, b"MARKED-user", b"MARKED-right", response=True)) == [b""]
        until(lambda: len(logged(service, "caller_denied")) == TRIES_MAX + 3, service)
        assert {each["reason"] for each in logged(service, "caller_denied")} == {reason}
        assert logged(service, "user_identity_refused") == []


def test_a_stolen_title_with_a_wrong_user_is_among_those_that_knocked(tmp_path: Path) -> None:
    put_user(tmp_path / "users.yaml", "MARKED-user", b"MARKED-right")
    entries: list[dict[str, object]] = [{"ae_title": "CT1", "addresses": ["127.0.0.1"]}]
    with secured(tmp_path, entries, users={"passwords": {"file": "users.yaml"}}) as service:
        assert rejection(service, "CT1", source="127.0.0.2", user_item=passcode_item(b"MARKED-wrong")) == (1, 1, 3)

        def knocks() -> list[tuple[str, str, str]]:
            with Store(load_site(service.config).store_url) as store:
                return [(each.ae_title, each.address, each.reason) for each in store.reader.knocks()]

        until(lambda: knocks() == [("CT1", "127.0.0.2", "address")], service)
