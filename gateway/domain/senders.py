"""Senders of HL7 messages that are bound to where they come from: who may not say to be whom (MSH-3, MSH-4).

Pure decisions over values, as `domain.access` has them for associations.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from gateway.domain.access import Certificate, CertificateRule, Denial, Network, fits, in_networks


@dataclass(frozen=True, slots=True)
class SenderRule:
    """One place that a sender may come from. `sender` is MSH-3|MSH-4, or MSH-3 alone for every facility.

    Several rules of one sender are several places; one of them has to fit.
    """

    sender: str
    networks: tuple[Network, ...] = ()
    certificates: tuple[CertificateRule, ...] = ()


def strange(
    networks: Sequence[Network], certificates: Sequence[CertificateRule], address: str, certificate: Certificate | None
) -> Denial | None:
    """Why whoever has this address and certificate is none of those; None if it is. Empty bounds bind nobody."""
    if networks and not in_networks(address, networks):
        return Denial.ADDRESS
    if certificates and not any(fits(rule, certificate) for rule in certificates):
        return Denial.CERTIFICATE if certificate is not None else Denial.PLAIN
    return None


def barred(rules: Iterable[SenderRule], address: str, certificate: Certificate | None) -> tuple[str, ...]:
    """The senders that whoever has this address and certificate must not say to be."""
    fitting: dict[str, bool] = {}
    for rule in rules:
        fit = strange(rule.networks, rule.certificates, address, certificate) is None
        fitting[rule.sender] = fitting.get(rule.sender, False) or fit
    return tuple(sender for sender, fit in fitting.items() if not fit)


def says_to_be(application: str, facility: str, senders: Collection[str]) -> bool:
    """Whether a message names itself as one of these.

    Letter case and blanks around do not count: whoever reads `ris` as the RIS must not be fooled by it.
    """
    if not senders:
        return False
    named = _plain(application)
    known = {_plain(sender) for sender in senders}
    return named in known or f"{named}|{_plain(facility)}" in known


def _plain(sender: str) -> str:
    return "|".join(part.strip().casefold() for part in sender.split("|"))
