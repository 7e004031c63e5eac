"""`gateway devices` knocks, approve and dismiss: who was not let in, and whom a person lets in from now on.

An approval is an entry of the registry, in `devices.yaml` or in LDAP, and nothing else: what the gateway goes by is
read there.
"""

from collections.abc import MutableMapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from gateway.commands.console import (
    CONFIG,
    ConfigOption,
    JSONOption,
    fail,
    moment,
    out,
    print_json,
    print_table,
    site_of,
    store_at,
)
from gateway.commands.devices import devices
from gateway.domain.access import Permission

if TYPE_CHECKING:
    from gateway.config import Site
    from gateway.domain.directory import DeviceEntry, Directory
    from gateway.workflow.knocks import Knock

TitleArgument = Annotated[str, typer.Argument(help="The AE title; case counts.")]
FromOption = Annotated[str, typer.Option("--from", help="Only what came from this address.")]


@devices.command("knocks")
def devices_knocks(config: ConfigOption = CONFIG, json_output: JSONOption = False) -> None:
    """AE titles that were not let in: unknown ones where `devices.unknown` is ask, and known ones that came from
    another address, without TLS or with another certificate. Newest first."""
    from gateway.domain.access import Denial

    site = site_of(config)
    found = store_at(site).reader.knocks()
    if json_output:
        print_json([asdict(knock) for knock in found])
        return
    print_table(
        ("AE title", "From", "Called", "Last", "Times", "Why not", "TLS", "Certificate", "Software"),
        (
            (
                knock.ae_title,
                knock.address,
                knock.called_ae_title,
                moment(knock.last_at, site.zone),
                knock.times,
                Denial[knock.reason.upper()].value if knock.reason.upper() in Denial.__members__ else knock.reason,
                "yes" if knock.tls else "no",
                _certificate(knock),
                knock.implementation_version,
            )
            for knock in found
        ),
    )
    if not found and not site.devices.ask:
        out.print("Unknown AE titles are remembered where gateway.yaml says `devices: {unknown: ask}`.")


@devices.command("approve")
def devices_approve(
    ae_title: TitleArgument,
    config: ConfigOption = CONFIG,
    address: FromOption = "",
    group: Annotated[str, typer.Option(help="The group of devices that it is in.")] = "",
    profile: Annotated[str, typer.Option(help="The profile that bends its rules.")] = "",
    description: Annotated[str, typer.Option(help="What it is, for people.")] = "",
    here: Annotated[bool, typer.Option("--here", help="Let it in only from the address it knocked from.")] = False,
    certificate: Annotated[
        bool, typer.Option("--certificate", help="Let it in only with the certificate it showed.")
    ] = False,
    fingerprint: Annotated[
        str, typer.Option(help="Let it in only with the certificate of this SHA-256 fingerprint, of several it showed.")
    ] = "",
    may: Annotated[list[Permission] | None, typer.Option(help="What it may do; repeat for more. Default: all.")] = None,
) -> None:
    """Register a device that knocked. One that is registered already gets the address (--here) or the certificate
    (--certificate) it knocked with besides those it has. What it is bound to is printed: compare the fingerprint with
    the one that the device shows."""
    site = site_of(config)
    store = store_at(site)
    certificate = certificate or bool(fingerprint)
    found = _from(store.reader.knocks(ae_title), ae_title, address)
    knock = _with_certificate(found, fingerprint) if certificate else found[0]
    said = {
        "description": description,
        "group": group,
        "profile": profile,
        "may": [str(each) for each in may or ()],
        "addresses": [knock.address] if here else [],
        "certificates": [f"sha256:{knock.fingerprint}"] if certificate else [],
    }
    approval = _Approval(ae_title, {key: value for key, value in said.items() if value})
    ldap = site.settings.devices.ldap
    if ldap is not None and ldap.use:
        _approve_in_ldap(site, approval)
        taken = f"the running gateway takes it from there within {ldap.refresh_s:g} s, or at SIGHUP"
    else:
        _approve_in_file(site, approval)
        taken = f"send the running gateway SIGHUP (kill -HUP PID), and {ae_title} is served"
    of_others = knock.fingerprint if certificate else None  # what others showed there is still to be looked at
    store.write(lambda unit: unit.forget_knocks(ae_title, knock.address, of_others)).result()
    if here:
        out.print(f"It is bound to the address {knock.address}.", markup=False, highlight=False)
    if certificate:
        out.print(
            f"It is bound to the certificate of {knock.common_name or '(no name)'}, shown at {knock.address}:\n"
            f"sha256:{knock.fingerprint}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    if not here and not certificate and knock.reason == "calling_unknown":
        out.print(
            f"Whoever calls itself {ae_title} is served, from any address; --here or --certificate would bind it.",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    out.print(f"{ae_title} is registered; {taken}.", markup=False, highlight=False, soft_wrap=True)


@devices.command("dismiss")
def devices_dismiss(ae_title: TitleArgument, config: ConfigOption = CONFIG, address: FromOption = "") -> None:
    """Forget that an AE title knocked. It is listed again when it does so again."""
    store = store_at(site_of(config))
    gone = store.write(lambda unit: unit.forget_knocks(ae_title, address)).result()
    if not gone:
        _never_knocked(ae_title, address)
    out.print(f"{gone} line(s) about {ae_title} forgotten.", markup=False, highlight=False)


@dataclass(frozen=True)
class _Approval:
    """What is to be said of an AE title in the registry, by the keys of `devices.yaml`."""

    ae_title: str
    said: dict[str, Any]

    def new_entry(self) -> dict[str, Any]:
        """The entry of a device that is not registered."""
        return {"ae_title": self.ae_title, **self.said}

    def widen(self, entry: MutableMapping[str, Any]) -> None:
        """Let the AE of this entry in also from where it knocked, with what it showed. Nothing else of it changes."""
        bounds = {key: self.said[key] for key in ("addresses", "certificates") if key in self.said}
        if not bounds:
            fail(
                f"{self.ae_title} is registered already. Say --here to let it in also from the address it knocked "
                "from, or --certificate for the certificate it showed; for anything else change its entry."
            )
        others = sorted(self.said.keys() - bounds.keys())
        if others:
            fail(f"{self.ae_title} is registered already: change {', '.join(others)} in its entry.")
        for key, values in bounds.items():
            held = list(entry.get(key) or ())
            if not held:
                fail(
                    f"The entry of {self.ae_title} has no {key}, so it is not bound to any: that is not why it was not "
                    "let in."
                )
            entry[key] = [*held, *(value for value in values if value not in held)]


def _approve_in_file(site: "Site", approval: _Approval) -> None:
    """Write `devices.yaml`, which then says something that can be served, or is as it was."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    from gateway.config import ConfigError, load_site
    from gateway.whole_files import write_whole

    if not site.settings.devices.file:
        fail("gateway.yaml names no `devices.file`: write `devices: {file: devices.yaml, ...}` first.")
    file = site.file.parent / site.settings.devices.file
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    before = file.read_text(encoding="utf-8-sig")
    if any(line.lstrip().startswith("- ") and line.startswith("  ") for line in before.splitlines()):
        yaml.indent(mapping=2, sequence=4, offset=2)
    tree = yaml.load(before) or CommentedMap()
    written = tree.get("devices")
    if not isinstance(written, CommentedSeq) or not written:  # an empty list is written in one line, this one is not
        tree["devices"] = written = CommentedSeq()
    held = _entry_of(written, approval.ae_title)
    if held is not None:
        approval.widen(held)
    else:
        written.append(_node(approval.new_entry()))
    write_whole(file, _text(yaml, tree))
    try:
        load_site(site.file)
    except ConfigError as error:
        write_whole(file, before)
        fail("\n".join(map(str, error.problems)) + "\nNothing was changed.")


def _approve_in_ldap(site: "Site", approval: _Approval) -> None:
    from gateway.directory_source import access_of
    from gateway.domain.directory import Directory
    from gateway.edges.ldap_directory import LDAPDirectory, LDAPFailed
    from gateway.registry import entries_of

    access = access_of(site)
    if access is None:
        fail("devices.ldap names no directory that can be written to.")
    try:
        ldap = LDAPDirectory(access)
        found = ldap.read().device_of(approval.ae_title)
        entry = approval.new_entry()
        if found is not None:
            entry = entries_of(Directory((found[0],)))["devices"][0]
            of_ae = _entry_of([entry], approval.ae_title)
            approval.widen(entry if of_ae is None else of_ae)
        ldap.write_device(_device(entry))
    except LDAPFailed as error:
        fail(str(error))


def _device(entry: dict[str, Any]) -> "DeviceEntry":
    from pydantic import ValidationError

    from gateway.device_settings import DevicesFile
    from gateway.registry import directory_of

    try:
        directory: Directory = directory_of(DevicesFile.model_validate({"devices": [entry]}))
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
        fail("\n".join(f"{'.'.join(map(str, each['loc'][2:]))}: {each['msg']}" for each in details))
    return directory.devices[0]


def _entry_of(written: Sequence[Any], ae_title: str) -> MutableMapping[str, Any] | None:
    """The part of a file like devices.yaml that is about this AE title."""
    for entry in written:
        if isinstance(entry, MutableMapping):
            for part in (entry, *(entry.get("aes") or ())):
                if str(part.get("ae_title", "")).strip() == ae_title:
                    return part if isinstance(part, MutableMapping) else None
    return None


def _node(entry: dict[str, Any]) -> Any:
    """An entry as people write it: lists in one line."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    node = CommentedMap()
    for key, value in entry.items():
        node[key] = value
        if isinstance(value, list):
            node[key] = CommentedSeq(value)
            node[key].fa.set_flow_style()
    return node


def _text(yaml: Any, tree: Any) -> str:
    import io

    written = io.StringIO()
    yaml.dump(tree, written)
    return written.getvalue()


def _from(found: "Sequence[Knock]", ae_title: str, address: str) -> "list[Knock]":
    """The knocks from the address that is meant; fails in words where there is none, or several."""
    meant = [knock for knock in found if address in ("", knock.address)]
    if not meant:
        _never_knocked(ae_title, address)
    times: dict[str, int] = {}
    for knock in meant:
        times[knock.address] = times.get(knock.address, 0) + knock.times
    if len(times) > 1:
        places = ", ".join(f"{place} ({count} times)" for place, count in times.items())
        fail(f"{ae_title} knocked from several addresses: {places}. Say with --from which of them it is.")
    return meant


def _with_certificate(found: "Sequence[Knock]", fingerprint: str) -> "Knock":
    """The one of these with the certificate that is meant; fails in words where it showed none, or several."""
    ae_title, address = found[0].ae_title, found[0].address
    shown = [knock for knock in found if knock.fingerprint]
    digits = fingerprint.strip().lower().removeprefix("sha256:").replace(":", "")
    meant = [knock for knock in shown if digits in ("", knock.fingerprint)]
    if not shown:
        fail(f"{ae_title} showed no certificate at {address}: leave out --certificate.")
    listed = "".join(
        f"\n  {knock.common_name or '(no name)'} ({knock.times} times)  sha256:{knock.fingerprint}" for knock in shown
    )
    if not meant:
        fail(f"{ae_title} showed no certificate of this fingerprint at {address}, but:{listed}")
    if len(meant) > 1:
        fail(f"{ae_title} showed several certificates at {address}. Say with --fingerprint which is its own:{listed}")
    return meant[0]


def _never_knocked(ae_title: str, address: str) -> NoReturn:
    where = f" from {address}" if address else ""
    fail(f"{ae_title} did not knock{where}; `gateway devices knocks` lists who did.")


def _certificate(knock: "Knock") -> str:
    if not knock.fingerprint:
        return ""
    return f"{knock.common_name or '(no name)'}\nsha256:{knock.fingerprint}"
