"""SAML 2.0 assertions as user identities: whether one is signed by whom we believe, for us, and for now.

What may live here: the checks of assertions and their words, which quote nothing of an assertion. The signature is
checked by signxml; what an assertion says is read only from what was signed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import InvalidCertificate, SignXMLException
from signxml.verifier import SignatureConfiguration, XMLVerifier

from gateway.edges.identity_memory import WatchedFile
from gateway.edges.token_proofs import LEEWAY_S, NAME_CHARACTERS_MAX, Checked, Finding

ASSERTION_BYTES_MAX = 65_535
"""The longest assertion that is looked at, which is the longest that a user identity has room for."""

SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
SIGNATURE = "http://www.w3.org/2000/09/xmldsig#"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"

_NAMESPACES = {"s": SAML, "d": SIGNATURE}
_LEEWAY = timedelta(seconds=LEEWAY_S)

METHODS = frozenset({
    SignatureMethod.RSA_SHA256, SignatureMethod.RSA_SHA384, SignatureMethod.RSA_SHA512,
    SignatureMethod.SHA256_RSA_MGF1, SignatureMethod.SHA384_RSA_MGF1, SignatureMethod.SHA512_RSA_MGF1,
    SignatureMethod.ECDSA_SHA256, SignatureMethod.ECDSA_SHA384, SignatureMethod.ECDSA_SHA512,
})  # fmt: skip
"""Signatures that are believed: none with SHA-1, none with a shared key."""
DIGESTS = frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512})

_EXPECTED = SignatureConfiguration(
    require_x509=True, location="./", expect_references=1, signature_methods=METHODS, digest_algorithms=DIGESTS
)
"""The signature is a child of the assertion, and signs one thing."""

_UNDERSTOOD = frozenset(f"{{{SAML}}}{name}" for name in ("AudienceRestriction", "OneTimeUse", "ProxyRestriction"))
"""Conditions that are understood; an assertion with another one proves nothing (SAML Core 2.5.1.1)."""


@dataclass(frozen=True, slots=True)
class AssertionIssuer:
    """Whose assertions are believed, for which audience, by which certificates."""

    issuer: str
    audience: str
    certificates: WatchedFile[tuple[x509.Certificate, ...]]


@dataclass(frozen=True, slots=True)
class CheckedAssertion(Checked):
    """With what it takes to notice that an assertion comes again: its ID and until when it could be used."""

    number: str = ""
    until: datetime | None = None
    issuer: str = ""


def check_assertion(assertion: bytes, issuers: Sequence[AssertionIssuer], at: datetime) -> CheckedAssertion:
    """Everything that is to be said of an assertion at this moment."""
    root, fault = _parsed(assertion)
    if root is None:
        return CheckedAssertion((Finding("form", fault),))
    said = _text(root, "s:Issuer")
    known = [each for each in issuers if each.issuer == said]
    if not known:
        found = Finding("issuer", "nobody whose assertions are taken has issued it (Issuer)")
        return CheckedAssertion((Finding("form"), found))
    checked = [_by(root, each, at) for each in known]
    return next((each for each in checked if not each.fault), checked[0])


def _parsed(assertion: bytes) -> "tuple[etree._Element | None, str]":
    """The assertion, or why it is none. Nothing outside of it is read, and nothing in it is expanded."""
    if len(assertion) > ASSERTION_BYTES_MAX:
        return None, f"the assertion is longer than {ASSERTION_BYTES_MAX} bytes"
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(assertion, parser)
    except (etree.XMLSyntaxError, ValueError):
        return None, "it is no XML"
    document = root.getroottree().docinfo
    if document.internalDTD is not None or document.externalDTD is not None:
        return None, "it has a document type, which no assertion has"
    if any(True for _ in root.iter(etree.Entity)):
        return None, "it has entities, which no assertion has"
    if root.tag == f"{{{SAML}}}EncryptedAssertion":
        return None, "it is encrypted: let its issuer send it signed and not encrypted; TLS protects it"
    if root.tag != f"{{{SAML}}}Assertion" or root.get("Version") != "2.0":
        return None, "it is no assertion of SAML 2.0"
    return root, ""


def _by(root: "etree._Element", issuer: AssertionIssuer, at: datetime) -> CheckedAssertion:
    signed, fault = _signed(root, issuer)
    # An assertion that is not signed proves nothing; what else is wrong with it is told all the same.
    content = root if signed is None else signed
    name = _text(content, "s:Subject/s:NameID")
    is_named = 0 < len(name) <= NAME_CHARACTERS_MAX
    until, time_fault = _times(content, at)
    findings = (
        Finding("form"),
        Finding("issuer", "" if _text(content, "s:Issuer") == issuer.issuer else "what was signed has another issuer"),
        Finding("signature", fault),
        Finding("audience", _audience_fault(content, issuer.audience)),
        Finding("time", time_fault),
        Finding("conditions", _conditions_fault(content)),
        Finding("user", "" if is_named else "it names no user (Subject, NameID)"),
        Finding("confirmation", _confirmation_fault(content, at)),
    )
    return CheckedAssertion(findings, name if is_named else "", content.get("ID") or "", until, issuer.issuer)


def _signed(root: "etree._Element", issuer: AssertionIssuer) -> "tuple[etree._Element | None, str]":
    """What was signed, read anew from the very bytes that the signature is for; or why nothing was."""
    if len(root.findall("d:Signature", _NAMESPACES)) != 1:
        return None, "it has not one signature of its own: let its issuer sign the assertion, not what it came in"
    file = issuer.certificates.path.name
    certificates = issuer.certificates.content()
    if not certificates:
        return None, f"{file} holds no certificate that can be used: see `gateway check`"
    fault = f"no certificate in {file} made its signature: it was changed, or others signed it"
    data = etree.tostring(root)
    for each in certificates:
        try:
            verified = XMLVerifier().verify(data, x509_cert=each, id_attribute="ID", expect_config=_EXPECTED)
        except InvalidCertificate:
            fault = f"the certificate in {file} is not valid now: ask its issuer for the new one"
            continue
        except (SignXMLException, ValueError, etree.LxmlError):
            continue
        results = verified if isinstance(verified, list) else [verified]
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True, remove_pis=True
        )
        signed = etree.fromstring(results[0].signed_data, parser)
        if signed.tag != root.tag or signed.get("ID") != root.get("ID") or not signed.get("ID"):
            return None, "its signature is for something else in it: it was put together from several"
        return signed, ""
    return None, fault


def _text(element: "etree._Element", path: str) -> str:
    """The text of an element, all of it; "" where there is none or more than one."""
    found = element.findall(path, _NAMESPACES)
    return "".join(str(part) for part in found[0].itertext()).strip() if len(found) == 1 else ""


def _audience_fault(assertion: "etree._Element", audience: str) -> str:
    restrictions = assertion.findall("s:Conditions/s:AudienceRestriction", _NAMESPACES)
    if not restrictions:
        return "it says not for whom it is (AudienceRestriction)"
    for each in restrictions:  # all of them hold (SAML Core 2.5.1.4)
        named = {
            "".join(str(part) for part in one.itertext()).strip() for one in each.findall("s:Audience", _NAMESPACES)
        }
        if audience not in named:
            return "it is for somebody else (Audience)"
    return ""


def _conditions_fault(assertion: "etree._Element") -> str:
    found = assertion.findall("s:Conditions", _NAMESPACES)
    if len(found) > 1:
        return "it has several Conditions"
    unknown = any(str(each.tag) not in _UNDERSTOOD for each in (found[0] if found else ()) if isinstance(each.tag, str))
    return "it has conditions that are not understood" if unknown else ""


def _times(assertion: "etree._Element", at: datetime) -> tuple[datetime | None, str]:
    """Until when it can be used, and why it cannot now."""
    conditions = assertion.find("s:Conditions", _NAMESPACES)
    if conditions is None or conditions.get("NotOnOrAfter") is None:
        return None, "it never expires (NotOnOrAfter)"
    try:
        until = _moment(conditions.get("NotOnOrAfter") or "") + _LEEWAY
        since = _moment(conditions.get("NotBefore") or "") if conditions.get("NotBefore") else at
        issued = _moment(assertion.get("IssueInstant") or "")
        if at >= until:
            return until, "it has expired (NotOnOrAfter)"
        if at < since - _LEEWAY or at < issued - _LEEWAY:
            return (
                until,
                "it is not valid yet (NotBefore, IssueInstant): compare the clocks of its issuer and the gateway",
            )
    except (ValueError, OverflowError):
        return None, "its times cannot be read (NotBefore, NotOnOrAfter, IssueInstant)"
    return until, ""


def _confirmation_fault(assertion: "etree._Element", at: datetime) -> str:
    """Whoever shows it may use it, now: one confirmation of the subject has to say so, if there is any."""
    confirmations = assertion.findall("s:Subject/s:SubjectConfirmation", _NAMESPACES)
    if not confirmations:
        return ""
    bearers = [each for each in confirmations if each.get("Method") == BEARER]
    if not bearers:
        return "it is not for whoever shows it (SubjectConfirmation is not bearer), and a key cannot be shown here"
    return "" if any(_holds(each, at) for each in bearers) else "its confirmation has expired or is not valid yet"


def _holds(confirmation: "etree._Element", at: datetime) -> bool:
    data = confirmation.find("s:SubjectConfirmationData", _NAMESPACES)
    if data is None:
        return True
    until, since = data.get("NotOnOrAfter"), data.get("NotBefore")
    try:
        return (until is None or at < _moment(until) + _LEEWAY) and (since is None or at >= _moment(since) - _LEEWAY)
    except (ValueError, OverflowError):
        return False


def _moment(said: str) -> datetime:
    """An xs:dateTime; without a zone it is UTC (SAML Core 1.3.3). Raises ValueError."""
    at = datetime.fromisoformat(said.strip())
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at
