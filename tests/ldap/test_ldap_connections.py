"""How a server is reached: TLS that verifies, binds, several servers, DNS, and servers that do what none may do."""

import datetime
import socket
import ssl
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
import trustme

from gateway.domain.directory import DeviceEntry, Directory, NetworkAE, NetworkConnection
from gateway.edges.ldap_directory import LDAPAccess, LDAPDirectory, LDAPFailed
from gateway.edges.ldap_servers import DiscoveryError, LDAPServer, discovered, named
from gateway.testing import free_port
from tests.ldap.slapd import BASE, PASSWORD, READER, READER_PASSWORD, dnsmasq, slapd

CT = DeviceEntry("ct1", connections=(NetworkConnection("dicom", "h", 104),), aes=(NetworkAE("CT1", ("dicom",)),))


def failure(access):
    with pytest.raises(LDAPFailed) as failed:
        LDAPDirectory(access).read()
    text = str(failed.value)
    assert PASSWORD not in text
    return text


# --- TLS and binds, against OpenLDAP


@pytest.mark.interop
def test_ldaps_and_start_tls_serve_and_plain_only_where_it_is_said(server):
    assert LDAPDirectory(server.access).read() == Directory()
    plain = f"ldap://localhost:{server.port}"
    assert LDAPDirectory(replace(server.access, servers=(plain,), start_tls=True)).read() == Directory()
    assert LDAPDirectory(server.plain).read() == Directory()
    assert "is not encrypted: write ldaps://" in failure(replace(server.access, servers=(plain,)))


NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.mark.interop
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda ca: ca.issue_cert("other.example"), "its certificate is for another host; name the server as its"),
        (lambda ca: trustme.CA().issue_cert("localhost"), "comes from an authority that is not trusted; put that"),
        (
            lambda ca: ca.issue_cert("localhost", not_before=NOW - 2 * DAY, not_after=NOW - DAY),
            "its certificate has expired; give the server a new one",
        ),
        (
            lambda ca: ca.issue_cert("localhost", not_before=NOW + DAY, not_after=NOW + 2 * DAY),
            "its certificate is not yet valid; compare the clocks",
        ),
    ],
    ids=["other host", "other authority", "expired", "not yet valid"],
)
def test_a_certificate_that_does_not_verify_is_refused(tmp_path, make, words):
    ca = trustme.CA()
    with slapd(tmp_path / "slapd", ca=ca, certificate=make(ca)) as server:
        assert words in failure(server.access)
        start_tls = replace(server.access, servers=(f"ldap://localhost:{server.port}",), start_tls=True)
        assert words in failure(start_tls)


@pytest.mark.interop
def test_a_port_that_does_not_speak_tls_is_told(server):
    text = failure(replace(server.access, servers=(f"ldaps://localhost:{server.port}",)))
    assert "see whether that port speaks TLS" in text or "was cut off" in text


@pytest.mark.interop
def test_files_that_cannot_be_used_are_told(server, tmp_path):
    assert "no TLS with the files" in failure(replace(server.access, ca=str(tmp_path / "absent.pem")))


@pytest.mark.interop
def test_binds_say_who_we_are(server):
    reader = replace(server.access, user=READER, password=READER_PASSWORD)
    assert LDAPDirectory(reader).read() == Directory()
    assert LDAPDirectory(replace(server.access, bind="anonymous")).read() == Directory()
    assert "wrong user or password" in failure(replace(server.access, password="guessed"))  # noqa: S106


@pytest.mark.interop
def test_a_client_certificate_is_who_we_are(server, tmp_path):
    """SASL EXTERNAL: the server makes cn=admin of the certificate into its administrator, who may write."""
    access = replace(server.access, bind="external", user="", password="")
    for name in ("admin", "gateway"):
        leaf = server.ca.issue_cert(f"{name}.example", common_name=name)
        leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    admin, reader = (replace(access, certificate=str(tmp_path / f"{name}.pem")) for name in ("admin", "gateway"))
    LDAPDirectory(admin).write_device(CT)
    assert LDAPDirectory(reader).read() == Directory((CT,))
    with pytest.raises(LDAPFailed, match="access rules"):
        LDAPDirectory(reader).delete_device("ct1")
    assert "the bind" in failure(access), "without a certificate nobody is anybody"


# --- several servers


@pytest.mark.interop
def test_the_next_server_is_asked_where_one_does_not_serve(server):
    dead = f"ldaps://localhost:{free_port()}"
    access = replace(server.access, servers=(dead, *server.access.servers))
    directory = LDAPDirectory(access)
    directory.write_device(CT)
    assert directory.snapshot().server == server.access.servers[0]
    text = failure(replace(access, servers=(dead, f"ldaps://localhost:{free_port()}")))
    assert text.count("nobody listens there; start the server, or see host and port") == 2


@pytest.mark.interop
def test_a_server_without_the_configuration_is_followed_by_the_next(server, tmp_path):
    with slapd(tmp_path / "empty", ca=server.ca) as empty:
        empty.load(f"dn: cn=gateway,{BASE}\nchangetype: modify\nreplace: userPassword\nuserPassword: x\n")
        for name in ("cn=Devices,", "cn=Unique AE Titles Registry,", ""):
            empty.load(f"dn: {name}cn=DICOM Configuration,{BASE}\nchangetype: delete\n")
        access = replace(server.access, servers=(*empty.access.servers, *server.access.servers))
        assert LDAPDirectory(access).snapshot().server == server.access.servers[0]


@pytest.mark.interop
def test_a_server_that_hangs_is_followed_by_the_next(server, tmp_path):
    with slapd(tmp_path / "hung", ca=server.ca) as hung:
        hung.pause()
        access = replace(server.access, servers=(*hung.access.servers, *server.access.servers), timeout_s=1)
        assert LDAPDirectory(access).snapshot().server == server.access.servers[0]
        assert "got no answer in time; see whether the server hangs" in failure(replace(hung.access, timeout_s=0.3))


@pytest.mark.interop
def test_servers_are_discovered_by_dns_in_their_order(server):
    records = [
        f"--srv-host=_ldap._tcp.hosp.example,localhost,{server.port},10,5",
        f"--srv-host=_ldap._tcp.hosp.example,second.hosp.example,{free_port()},20,5",
        "--srv-host=_ldap._tcp.secure.example,localhost,636,0,0",
        "--srv-host=_ldap._tcp.none.example",
        "--local=/example/",
        "--host-record=empty.example,127.0.0.1",
    ]
    with dnsmasq(records) as name_server:
        found = discovered("hosp.example", plain=False, timeout_s=10, name_servers=(name_server,))
        assert [(each.host, each.tls, each.start_tls) for each in found] == [
            ("localhost", False, True), ("second.hosp.example", False, True),
        ]  # fmt: skip
        assert discovered("secure.example", plain=False, timeout_s=10, name_servers=(name_server,)) == [
            LDAPServer("localhost", 636, tls=True)
        ]
        access = replace(server.access, servers=(), discover="hosp.example", name_servers=(name_server,))
        assert LDAPDirectory(access).snapshot().server == f"ldap://localhost:{server.port}"
        for domain in ("absent.example", "none.example"):
            with pytest.raises(DiscoveryError, match="name the servers"):
                discovered(domain, plain=False, timeout_s=10, name_servers=(name_server,))
        named_first = replace(access, servers=server.access.servers, discover="absent.example")
        assert LDAPDirectory(named_first).snapshot().server == server.access.servers[0]
        assert "DNS has no records _ldap._tcp.absent.example" in failure(replace(access, discover="absent.example"))


def test_a_silent_name_server_is_told():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        text = failure(LDAPAccess(discover="hosp.example", name_servers=(place,), timeout_s=0.3))
    assert "DNS did not answer for _ldap._tcp.hosp.example" in text


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("ldaps://a.example", LDAPServer("a.example", 636, tls=True)),
        ("ldap://a.example", LDAPServer("a.example", 389, tls=False, start_tls=True)),
        ("ldap://[::1]:1389", LDAPServer("::1", 1389, tls=False, start_tls=True)),
    ],
)
def test_addresses_are_read(url, server):
    assert named(url, start_tls=True) == server
    assert str(server).startswith(url.partition(":")[0])


@pytest.mark.parametrize("url", ["http://a", "ldap://", "a.example", "ldap://a:99999"])
def test_what_is_no_address_is_told(url):
    assert failure(LDAPAccess(servers=(url,), plain=True))


def test_without_a_server_it_is_told():
    assert "no server is named" in failure(LDAPAccess())


def test_an_empty_password_is_not_taken_for_nobody():
    """A server would bind us as anonymous and say that all is well (RFC 4513 5.1.2)."""
    access = LDAPAccess(servers=("ldap://127.0.0.1:1",), bind="simple", user="cn=us", plain=True)
    assert "needs `user` and `password`" in failure(access)


# --- servers that do what none may do


def ber(tag, *parts):
    body = b"".join(parts)
    length = bytes([len(body)]) if len(body) < 128 else b"\x82" + len(body).to_bytes(2, "big")
    return bytes([tag]) + length + body


def text(value):
    return ber(4, value.encode())


def message(number, operation):
    return ber(0x30, ber(2, number.to_bytes(4, "big")), operation)


def done(tag, code=0, said="", *more):
    return ber(tag, ber(10, bytes([code])), text(""), text(said), *more)


BOUND = done(0x61)


def found(dn, **attributes):
    return ber(
        0x64,
        text(dn),
        ber(0x30, *(ber(0x30, text(n), ber(0x31, *(text(v) for v in vs))) for n, vs in attributes.items())),
    )


@contextmanager
def rude(*answers, ends=True):
    """A server on loopback that gives each request the next answer: bytes, or a function of the message's number."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve():
        with suppressing():
            connection, _ = listener.accept()
            with connection:
                for answer in answers:
                    request = connection.recv(65_536)
                    if not request:
                        return
                    # SEQUENCE { INTEGER messageID, ... }: short or long lengths, numbers below 2**31
                    start = 2 + (request[1] & 0x7F if request[1] & 0x80 else 0)
                    number = int.from_bytes(request[start + 2 : start + 2 + request[start + 1]], "big")
                    connection.sendall(answer(number) if callable(answer) else answer)
                if not ends:
                    over.wait(30)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield LDAPAccess(
            servers=(f"ldap://127.0.0.1:{listener.getsockname()[1]}",), base=BASE, bind="simple", user="cn=us",
            password=PASSWORD, plain=True, timeout_s=0.5,
        )  # fmt: skip
    finally:
        over.set()
        listener.close()
        thread.join(30)


@contextmanager
def suppressing():
    """The client hangs up on rude servers."""
    try:
        yield
    except (OSError, ssl.SSLError):
        return


def bound(number):
    return message(number, BOUND)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "does not speak LDAP"),
        ([b"\x30\x84\x7f\xff\xff\xff\x02"], "an answer that is too long"),
        ([b"\x30\x0c\x02\x01"], "closed the connection in the middle"),
        ([b""], "was cut off"),
        ([b"\x30\x03\x02\x01\x01" * 3], "the bind failed"),
        ([b"\x30\x80\x00\x00\x00\x00\x00\x00"], "the bind failed"),
        ([lambda n: message(n + 1, BOUND)], "the bind failed"),
        ([lambda n: message(n, found("dc=x"))], "was cut off"),
        ([lambda n: message(n, done(0x61, 49, f"no, not {PASSWORD}"))], "it says: no, not ***"),
        ([lambda n: message(n, done(0x61, 99))], "the bind"),
        ([lambda n: message(n, done(0x61, 52))], "not available; try again"),
        ([bound, lambda n: message(n, found("no dn", objectClass=["x"])) + message(n, done(0x65))], "whose DN is none"),
        (
            [bound, lambda n: message(n, done(0x65, 10, "", ber(0xA3, text("ldap://evil.example/dc=x"))))],
            "was referred to ldap://evil.example/dc=x, where nobody follows; name that server in `servers`",
        ),
    ],
    ids=[
        "another protocol", "endless length", "half a header", "nothing", "no message", "indefinite length",
        "another number", "an entry for a bind", "repeats the password", "unknown code", "unavailable", "no dn",
        "referral",
    ],
)  # fmt: skip
def test_a_server_that_breaks_the_rules_is_told_in_words(answers, words):
    with rude(*answers) as access:
        said = failure(access)
    assert words in said
    assert access.servers[0] in said


@pytest.mark.parametrize(
    "answers",
    [[b""], [bound, b""], [bound, message(1, found(f"dc={'x' * 100}"))[:40]]],
    ids=["before the bind's answer", "before the search's", "in the middle of one"],
)
def test_a_server_that_hangs_half_way_hangs_nobody(answers):
    with rude(*answers, ends=False) as access:
        assert "got no answer in time" in failure(access)


def test_a_server_that_sends_a_byte_now_and_then_hangs_nobody():
    """The limit is that of the whole answer, not of the next byte."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def drip():
        with suppressing():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"\x30\x82\x10\x00")
                while not over.wait(0.05):
                    connection.sendall(b"\x00")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        url = f"ldap://127.0.0.1:{listener.getsockname()[1]}"
        assert "got no answer in time" in failure(LDAPAccess(servers=(url,), base=BASE, plain=True, timeout_s=0.5))
    finally:
        over.set()
        listener.close()
        thread.join(30)


@pytest.mark.parametrize("url", ["ldaps", "start_tls"])
def test_a_server_that_says_nothing_in_the_handshake_hangs_nobody(url, tmp_path):
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    answers = [b""] if url == "ldaps" else [lambda n: message(n, done(0x78))]
    with rude(*answers, ends=False) as plain:
        server = plain.servers[0] if url == "start_tls" else plain.servers[0].replace("ldap:", "ldaps:")
        access = replace(plain, servers=(server,), start_tls=url == "start_tls", ca=str(tmp_path / "ca.pem"))
        assert "got no answer in time" in failure(access)


def test_start_tls_that_is_refused_is_no_plain_connection(tmp_path):
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    with rude(lambda n: message(n, done(0x78, 2))) as access:
        said = failure(replace(access, start_tls=True, ca=str(tmp_path / "ca.pem")))
    assert "StartTLS was refused" in said


@pytest.mark.interop
def test_a_tree_of_which_a_part_is_elsewhere_is_not_whole(server):
    """A continuation reference in the middle of the devices: none of them are taken for all of them."""
    name = f"cn=other,cn=Devices,cn=DICOM Configuration,{BASE}"
    server.load(
        f"dn: {name}\nobjectClass: referral\nobjectClass: extensibleObject\ncn: other\nref: ldap://evil.example/dc=x\n",
        "-M",
    )
    assert "was referred to ldap://evil.example/dc=x" in failure(server.access)
