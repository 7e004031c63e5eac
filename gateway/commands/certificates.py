"""`gateway certs`: an authority for a pilot, certificates of devices, and why a handshake fails.

What an authority of this kind is and is not: docs/adr/0015. Keys are written once, readable for their owner alone, and
never printed.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.console import CONFIG, ConfigOption, JSONOption, fail, out, print_json, print_table

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.edges.certificates import Facts
    from gateway.edges.handshake_steps import Files, Step
    from gateway.edges.site_authority import Issued, SiteAuthority

certs = typer.Typer(help="Certificates: an authority for a pilot, and why a handshake fails.", no_args_is_help=True)

CA_PASSPHRASE = "GATEWAY_CA_PASSPHRASE"  # noqa: S105 -- the name of a variable
P12_PASSPHRASE = "GATEWAY_P12_PASSPHRASE"  # noqa: S105 -- the name of a variable

CAOption = Annotated[Path, typer.Option("--ca", help="Folder of the authority, as `gateway certs ca` made it.")]
CA_FOLDER = Path("ca")
TIMEOUT_S = 10.0

AE_CHARACTERS_MAX = 16
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_HOST = re.compile(r"\[?([0-9A-Za-z_.:%-]+?)\]?:([0-9]{1,5})")


# --- the authority ----------------------------------------------------------------------------------------------------


@certs.command("ca")
def certs_ca(
    directory: Annotated[Path, typer.Argument(help="A new folder; keep it where only administrators come.")],
    name: Annotated[str, typer.Option(help="What the authority is called in its certificate.")] = "Gateway pilot CA",
    days: Annotated[int, typer.Option(min=1, max=7300, help="How long it is good for.")] = 3650,
    json_output: JSONOption = False,
) -> None:
    """Make an authority: its certificate, its key (0600) and an empty revocation list.

    Where GATEWAY_CA_PASSPHRASE is set the key is encrypted with it, and every command that signs needs it.
    """
    from gateway.edges.certificates import facts_of
    from gateway.edges.site_authority import AuthorityError, SiteAuthority

    try:
        made = SiteAuthority.make(directory, name, _ca_passphrase(), days)
    except AuthorityError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or directory}: {error.strerror}")
    facts = facts_of(made.certificate)
    files = {"ca": directory / "ca.pem", "key": directory / "ca.key", "crl": directory / "crl.pem"}
    if json_output:
        print_json({**_plain(facts), "files": files})
        return
    _say(f"{files['ca']}: {facts}. Everybody who shall trust its certificates gets this file.")
    _say(
        f"{files['key']}: its key. Who has it can make certificates for any device: back it up, and show it to nobody."
    )
    _say(f"{files['crl']}: its revocation list; renew it with `gateway certs crl`.")


@certs.command("issue")
def certs_issue(
    name: Annotated[str, typer.Argument(help="Names the files: NAME.pem, NAME.key, NAME.p12.")],
    ca: CAOption = CA_FOLDER,
    ae: Annotated[str, typer.Option(help="AE title; stands as common name, for `subject:` rules. Default: NAME.")] = "",
    host: Annotated[list[str] | None, typer.Option(help="Host name it is called by; may be repeated.")] = None,
    address: Annotated[list[str] | None, typer.Option(help="Address it is called by; may be repeated.")] = None,
    server: Annotated[bool, typer.Option("--server", help="Only for whoever is called.")] = False,
    client: Annotated[bool, typer.Option("--client", help="Only for whoever calls. Default: for both.")] = False,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is good for.")] = 730,
    key: Annotated[str, typer.Option(help="Kind of key: rsa2048, rsa3072 or ec256.")] = "rsa2048",
    csr: Annotated[Path | None, typer.Option(help="The device's own request (PEM); its key stays with it.")] = None,
    p12: Annotated[bool, typer.Option("--p12", help="Also a PKCS#12 file, under a passphrase.")] = False,
    p12_old: Annotated[bool, typer.Option("--p12-old", help="The same for consoles that know 3DES only.")] = False,
    to: Annotated[Path, typer.Option("--out", help="Folder that the files are written to.")] = Path(),
    force: Annotated[bool, typer.Option(help="Replace what is there: a renewal.")] = False,
    json_output: JSONOption = False,
) -> None:
    """A certificate for a device or for the gateway: certificate and key, or PKCS#12 for devices that want that."""
    from gateway.edges.site_authority import KEYS, AuthorityError, Wanted
    from gateway.whole_files import write_whole

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise typer.BadParameter("letters, digits and - _ . only, as it names files", param_hint="NAME")
    if key not in KEYS:
        raise typer.BadParameter(f"one of {', '.join(KEYS)}", param_hint="--key")
    if csr is not None and (p12 or p12_old):
        raise typer.BadParameter(
            "with --csr the key is the device's, so there is none to put into it", param_hint="--p12"
        )
    both = server == client
    _see_whom_it_names(ae, host or (), server or both, bool(host or address))
    wanted = Wanted(
        ae or name, tuple(host or ()), tuple(map(_address, address or ())), server or both, client or both, days, key
    )
    files = {"certificate": to / f"{name}.pem"}
    if csr is None:
        files["key"] = to / f"{name}.key"
    if p12 or p12_old:
        files["p12"] = to / f"{name}.p12"
    there = [str(file) for file in files.values() if file.exists()]
    if there and not force:
        fail(f"{', '.join(there)} exists already; --force replaces it. Nothing was made.")
    passphrase = _passphrase(P12_PASSPHRASE, f"Passphrase of {name}.p12") if p12 or p12_old else b""
    try:
        authority = _authority(ca)
        made = authority.issue_for(wanted, csr.read_bytes()) if csr is not None else authority.issue(wanted)
        to.mkdir(parents=True, exist_ok=True)
        if "key" in files:
            write_whole(files["key"], made.key_pem(), secret=True)
        write_whole(files["certificate"], made.pem())
        if "p12" in files:
            write_whole(files["p12"], made.pkcs12(name, passphrase, p12_old), secret=True)
    except AuthorityError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or to}: {error.strerror}")
    _tell_issued(made, files, json_output)


def _see_whom_it_names(ae: str, hosts: Iterable[str], server: bool, is_called: bool) -> None:
    if len(ae) > AE_CHARACTERS_MAX:
        raise typer.BadParameter(f"an AE title has at most {AE_CHARACTERS_MAX} characters", param_hint="--ae")
    for host in hosts:
        if not all(map(_LABEL.fullmatch, host.removeprefix("*.").split("."))):
            raise typer.BadParameter(f"{host!r} is no host name; each gets a --host of its own", param_hint="--host")
    if server and not is_called:
        fail(
            "A server's certificate needs a host name or address that callers use for it: --host or --address. "
            "For a device that only calls say --client. Nothing was made."
        )


def _tell_issued(made: "Issued", files: dict[str, Path], json_output: bool) -> None:
    from gateway.edges.certificates import facts_of

    facts = facts_of(made.certificate)
    if json_output:
        print_json({**_plain(facts), "files": files})
        return
    said = {
        "certificate": f"{facts}" + (f", for {', '.join(facts.names)}" if facts.names else ""),
        "key": "its key; it belongs to the device alone",
        "p12": "both, with the authority's certificate, under the passphrase",
    }
    for what, file in files.items():
        _say(f"{file}: {said[what]}")
    _say(f"In devices.yaml: certificates: [{facts.pin}]")
    _say(f"or, so that renewals need no change there: certificates: ['subject:{facts.common_name}']")


@certs.command("revoke")
def certs_revoke(
    what: Annotated[str, typer.Argument(help="The certificate's file, or the name (AE title) it was made for.")],
    ca: CAOption = CA_FOLDER,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long the list is good for.")] = 90,
    json_output: JSONOption = False,
) -> None:
    """Put a certificate onto the revocation list: a device was lost, sold, or its key seen by others."""
    from gateway.edges.certificates import CertificateFileError, certificates_in, facts_of
    from gateway.edges.site_authority import AuthorityError

    try:
        authority = _authority(ca)
        found = list(certificates_in(Path(what))[:1]) if Path(what).is_file() else authority.of_name(what)
        if not found:
            fail(f"there is no file {what}, and {ca} signed nothing for this name that is still good")
        listed = authority.revoke(found, days)
    except (AuthorityError, CertificateFileError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or ca}: {error.strerror}")
    revoked = [facts_of(each) for each in found]
    if json_output:
        print_json(
            {"revoked": [_plain(each) for each in revoked], "crl": ca / "crl.pem", "until": listed.next_update_utc}
        )
        return
    for each in revoked:
        _say(f"revoked: {each}, {each.pin}")
    _say(f"{ca / 'crl.pem'}: put it where `crl` of the configuration names it; the service takes it up by itself.")


@certs.command("crl")
def certs_crl(
    ca: CAOption = CA_FOLDER,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long the list is good for.")] = 90,
    anew: Annotated[
        bool,
        typer.Option("--anew", help="Begin an empty list: the old one is lost, and who was on it forgiven."),
    ] = False,
    json_output: JSONOption = False,
) -> None:
    """Renew the revocation list: one that is out of date refuses everybody."""
    from gateway.edges.certificates import CertificateFileError
    from gateway.edges.site_authority import AuthorityError

    try:
        listed = _authority(ca).renew_list(days, anew=anew)
    except (AuthorityError, CertificateFileError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or ca}: {error.strerror}")
    if json_output:
        print_json({"crl": ca / "crl.pem", "revoked": len(listed), "until": listed.next_update_utc})
        return
    _say(f"{ca / 'crl.pem'}: {len(listed)} revoked, good until {listed.next_update_utc:%Y-%m-%d}")


def _authority(folder: Path) -> "SiteAuthority":
    from gateway.edges.certificates import CertificateFileError
    from gateway.edges.site_authority import AuthorityError, SiteAuthority

    try:
        return SiteAuthority(folder, _ca_passphrase())
    except AuthorityError as error:
        fail(f"{error}; set {CA_PASSPHRASE}")
    except CertificateFileError as error:
        fail(f"{error}; `gateway certs ca {folder}` makes an authority")


def _ca_passphrase() -> bytes:
    return os.environ.get(CA_PASSPHRASE, "").encode()


def _passphrase(variable: str, prompt: str) -> bytes:
    said = os.environ.get(variable) or typer.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True)
    return str(said).encode()


def _address(said: str) -> Any:
    from ipaddress import ip_address

    try:
        return ip_address(said)
    except ValueError:
        raise typer.BadParameter(f"{said!r} is no address; a name goes with --host", param_hint="--address") from None


# --- looking ----------------------------------------------------------------------------------------------------------


@certs.command("show")
def certs_show(
    what: Annotated[list[str], typer.Argument(help="Files, or HOST:PORT of somebody who speaks TLS.")],
    config: ConfigOption = CONFIG,
    ca: Annotated[list[Path] | None, typer.Option(help="File of authorities to hold it against.")] = None,
    json_output: JSONOption = False,
) -> None:
    """What certificates are: whose, until when, who trusts them, what is weak, and their pins for devices.yaml."""
    from gateway.edges.certificates import CertificateFileError, facts_of
    from gateway.edges.handshake_steps import trusting

    every: list[dict[str, Any]] = []
    for each in what:
        try:
            ders = _ders(each)
        except CertificateFileError as error:
            fail(str(error))
        trusts = [*(ca or ()), *_authority_files(config)]
        for place, der in enumerate(ders):
            try:
                facts = facts_of(der)
            except ValueError as error:
                fail(f"{each}: certificate {place + 1} cannot be shown: {error}")
            by = trusting(der, ders[place + 1 :], trusts)
            every.append({"from": each, **_plain(facts), "trusted_by": by, "weak": list(_weak(facts))})
    if json_output:
        print_json(every)
        return
    for each_shown in every:
        print_table(
            ("", each_shown["from"]), ((key, _cell(key, value)) for key, value in each_shown.items() if key != "from")
        )
        out.print()


def _cell(key: str, value: object) -> object:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    if key == "not_after":
        days = (datetime.fromisoformat(str(value)) - datetime.now(UTC)).days
        return f"{value}  ({f'{days} days left' if days >= 0 else 'expired'})"
    return value if value != "" else "-"


def _ders(what: str) -> list[bytes]:
    """Of a file or a peer. Raises CertificateFileError."""
    from gateway.edges.certificates import ders_of
    from gateway.edges.channel import why
    from gateway.edges.handshake_steps import shown_by

    peer = _peer(what)
    if peer is None:
        return ders_of(Path(what))
    try:
        ders, failed = shown_by(*peer, peer[0], TIMEOUT_S)
    except OSError as error:
        fail(f"{what}: {why(error)}")
    if failed is not None:
        fail(f"{what}: {failed}")
    return ders


def _weak(facts: "Facts") -> Sequence[str]:
    from gateway.edges.certificates import allows, weaknesses

    return () if facts.authority else weaknesses(facts, allows(facts, "server"))


def _plain(facts: "Facts") -> dict[str, Any]:
    """A certificate in words that go into JSON too."""
    return {
        "subject": facts.subject,
        "issuer": "itself" if facts.self_signed else facts.issuer,
        "common_name": facts.common_name,
        "names": list(facts.names),
        "not_before": facts.not_before.isoformat(),
        "not_after": facts.not_after.isoformat(),
        "key": facts.key,
        "signature": facts.signature,
        "usages": list(facts.usages) or ["any"],
        "authority": facts.authority,
        "serial": f"{facts.serial:x}",
        "pin": facts.pin,
    }


# --- explaining -------------------------------------------------------------------------------------------------------


@certs.command("explain")
def certs_explain(
    what: Annotated[
        list[str] | None, typer.Argument(help="HOST:PORT, or files; nothing: the files of the configuration.")
    ] = None,
    config: ConfigOption = CONFIG,
    ca: Annotated[Path | None, typer.Option(help="File of authorities, in place of the configuration's.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="Our certificate, likewise.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key, likewise.")] = None,
    name: Annotated[str, typer.Option(help="Host name that the certificate has to bear; default: HOST.")] = "",
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, max=300, help="Seconds for each step.")] = TIMEOUT_S,
    json_output: JSONOption = False,
) -> None:
    """Say step by step why TLS works or does not: with HOST:PORT by trying it, else by looking at the files.

    To a peer that is a destination of the configuration the files of that destination are shown, else those of `tls`.
    Nothing but the handshake is sent.
    """
    from gateway.edges.handshake_steps import connection_steps, file_steps

    given = what or []
    peers = [each for each in given if _peer(each) is not None]
    if peers and len(given) > 1:
        raise typer.BadParameter("one HOST:PORT at a time, and no files with it", param_hint="WHAT")
    at = datetime.now(UTC)
    if peers and (peer := _peer(peers[0])) is not None:
        files, said = _files_for(config, peer, ca, certificate, key)
        steps = list(connection_steps(*peer, name or said or peer[0], files, at, timeout_s))
    else:
        named = [Path(each) for each in given] or _own_files(config)
        steps = list(file_steps([*named, *(each for each in (ca, certificate, key) if each is not None)], at))
    _print_steps(steps, json_output)
    raise typer.Exit(1 if any(step.fine is False for step in steps) else 0)


def _print_steps(steps: "Sequence[Step]", json_output: bool) -> None:
    if json_output:
        print_json({"ok": all(step.fine is not False for step in steps), "steps": [asdict(step) for step in steps]})
        return
    for step in steps:
        mark = {True: "ok  ", False: "FAIL", None: "    "}[step.fine]
        _say(f"{mark} {step.what}: {step.text}")
        if step.todo:
            _say(f"     -> {step.todo}")


def _peer(said: str) -> tuple[str, int] | None:
    """Host and port, where it is these and no file."""
    found = _HOST.fullmatch(said)
    if found is None or Path(said).exists() or not 0 < int(found[2]) < 65536:
        return None
    return found[1], int(found[2])


def _settings(config: Path) -> "Settings | None":
    """What the configuration says; None where there is no file, and nobody named one."""
    from gateway.config import Settings
    from gateway.domain.problem import Problem
    from gateway.yaml_files import read_strict

    if not config.exists():
        if config != CONFIG:
            fail(f"there is no file {config}")
        return None
    problems: list[Problem] = []
    settings = read_strict(config, Settings, problems)
    if settings is None:
        fail("\n".join(map(str, problems)))
    return settings


def _files_for(
    config: Path, peer: tuple[str, int], ca: Path | None, certificate: Path | None, key: Path | None
) -> "tuple[Files, str]":
    """With which files of ours a peer is tried, and what it is called there."""
    from gateway.edges.handshake_steps import Files

    def at(named: str) -> str:
        return str(config.parent / named) if named else ""

    settings, said, name = _settings(config), Files(), ""
    if settings is not None:
        said = Files(at(settings.tls.ca), at(settings.tls.certificate), at(settings.tls.key), at(settings.tls.crl))
        places = [each for each in settings.destinations if (each.host, each.port) == peer and each.tls is not None]
        for place in places[:1]:
            tls = place.tls
            if tls is not None:
                said, name = Files(at(tls.ca), at(tls.certificate), at(tls.key), at(tls.crl)), tls.host_name
    if certificate is not None:  # its key is in the same file where none is named
        said = replace(said, certificate=str(certificate), key=str(key or ""))
    if ca is not None:  # the lists are of other authorities
        said = replace(said, ca=str(ca), crl="")
    return said, name


def _own_files(config: Path) -> list[Path]:
    """Every file of certificates, keys and lists that the configuration names."""
    from gateway.certificate_files import certificate_files

    settings = _settings(config)
    if settings is None:
        raise typer.BadParameter("name HOST:PORT, files, or a configuration with --config", param_hint="WHAT")
    files = certificate_files(settings, config.parent)
    if not files:
        fail(f"{config} names no files of certificates")
    return [*(file.path for file in files), *(file.key for file in files if file.key is not None)]


def _authority_files(config: Path) -> Iterable[Path]:
    from gateway.certificate_files import Kind, certificate_files

    settings = _settings(config)
    files = certificate_files(settings, config.parent) if settings is not None else ()
    return [file.path for file in files if file.kind is Kind.AUTHORITY]


def _say(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)
