"""`gateway devices`: who is registered, what each may do, what is wrong with the registry, and whether devices answer.

What is looked at and asked is here; what changes the registry is in modules that register their commands on `devices`.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.console import (
    CONFIG,
    ConfigOption,
    JSONOption,
    err,
    fail,
    out,
    print_json,
    print_table,
    progress,
    site_of,
)

if TYPE_CHECKING:
    from gateway.config import Site
    from gateway.domain.devices import Device
    from gateway.domain.directory import DeviceEntry, Directory, NetworkAE, NetworkConnection, Rules
    from gateway.domain.problem import Problem
    from gateway.edges.ldap_directory import LDAPDirectory
    from gateway.reaching import Target

devices = typer.Typer(help="The registered devices: what is known of them, and whether they answer.")

TitleOption = Annotated[str, typer.Option("--ae", help="Only this AE title; case counts.", show_default=False)]
DeviceOption = Annotated[str, typer.Option("--device", help="Only the device of this name.", show_default=False)]
TypeOption = Annotated[str, typer.Option("--type", help="Only devices of this type, e.g. CT.", show_default=False)]
HostOption = Annotated[
    str, typer.Option("--host", help="Only where a connection has this host name or address.", show_default=False)
]
NameArgument = Annotated[str, typer.Argument(help="An AE title, or the name of a device.")]


# --- looking ----------------------------------------------------------------------------------------------------------


@devices.callback(invoke_without_command=True)
def devices_all(context: typer.Context, config: ConfigOption = CONFIG, json_output: JSONOption = False) -> None:
    """The registered devices. Without a command: `list`."""
    if context.invoked_subcommand is None:
        _list(site_of(config), json_output)
    elif config != CONFIG or json_output:
        raise typer.BadParameter(f"write options behind {context.invoked_subcommand}")


@devices.command("list")
def devices_list(
    ae_title: TitleOption = "",
    device: DeviceOption = "",
    device_type: TypeOption = "",
    host: HostOption = "",
    config: ConfigOption = CONFIG,
    json_output: JSONOption = False,
) -> None:
    """Every registered AE title: its device, how it is treated, where it is called, and what it is bound to."""
    site = site_of(config)
    wanted = Wanted(ae_title, device, device_type, host)
    _list(site, json_output, wanted)


@dataclass(frozen=True)
class Wanted:
    """What is looked for; '' for anything. Only AE titles have case, as in LDAP."""

    ae_title: str = ""
    device: str = ""
    device_type: str = ""
    host: str = ""

    def is_device(self, device: "DeviceEntry") -> bool:
        """Whether the device has all of it."""
        return (
            (not self.ae_title or any(ae.ae_title == self.ae_title for ae in device.aes))
            and _is(self.device, (device.name,))
            and _is(self.device_type, device.primary_types)
            and _is(self.host, (each.host for each in device.connections))
        )

    def is_ae(self, ae: "NetworkAE") -> bool:
        """Whether it is one of a device that is looked for."""
        return not self.ae_title or ae.ae_title == self.ae_title


def _is(wanted: str, have: Iterable[str]) -> bool:
    return not wanted or wanted.casefold() in map(str.casefold, have)


def _list(site: "Site", json_output: bool, wanted: Wanted = Wanted()) -> None:
    chosen = [device for device in site.directory.devices if wanted.is_device(device)]
    views = [_ae_view(site, device, ae) for device in chosen for ae in device.aes if wanted.is_ae(ae)]
    if json_output:
        print_json(views)
        return
    print_table(
        ("AE title", "Device", "Type", "Group", "Profile", "Address", "Bounds"),
        (
            (view["ae_title"], view["device"], ", ".join(view["types"]), view["group"], view["profile"],
             "\n".join(map(_place, view["connections"])), "\n".join(view["bounds"]))
            for view in views
        ),
    )  # fmt: skip
    without = [device.name for device in chosen if not device.aes]
    if without:
        out.print(f"Devices without an AE: {', '.join(without)}", highlight=False, markup=False, soft_wrap=True)


@devices.command("find")
def devices_find(
    ae_title: TitleOption = "",
    device: DeviceOption = "",
    device_type: TypeOption = "",
    host: HostOption = "",
    config: ConfigOption = CONFIG,
    json_output: JSONOption = False,
) -> None:
    """Ask the LDAP directory itself, as it is now, for devices that fit all that is said; exit code 1 for none."""
    from gateway.domain.directory import Directory
    from gateway.registry import entries_of

    if not (ae_title or device or device_type or host):
        raise typer.BadParameter("say what to find: --ae, --device, --type or --host", param_hint="devices find")
    with ldap_of(site_of(config, devices=False)) as ldap:
        found = ldap.find(ae_title=ae_title, device=device, device_type=device_type, host=host)
    if json_output:
        print_json(entries_of(Directory(found))["devices"])
    elif found:
        print_table(
            ("Device", "AE titles", "Type", "Address", "Description"),
            (
                (each.name, ", ".join(ae.ae_title for ae in each.aes), ", ".join(each.primary_types),
                 "\n".join(f"{_address(at)}{' TLS' if at.tls else ''}" for at in each.connections), each.description)
                for each in found
            ),
        )  # fmt: skip
    if not found:
        fail("LDAP has no such device.")


@devices.command("show")
def devices_show(name: NameArgument, config: ConfigOption = CONFIG, json_output: JSONOption = False) -> None:
    """All that is known of a device: its connections, AEs, profile in words, and what it may do."""
    from gateway.domain.directory import Directory
    from gateway.registry import entries_of

    site = site_of(config)
    device, _ = _found(site, name)
    (entry,) = entries_of(Directory((device,)))["devices"]
    views = [_ae_view(site, device, ae) for ae in device.aes]
    if json_output:
        print_json({"from": _source(site), "entry": entry, "aes": views})
        return
    rows: list[tuple[str, str]] = [("Device", device.name), ("From", _source(site))]
    rows += [(label, words) for label, words in _about(device) if words]
    for connection in device.connections:
        rows.append((f"Connection {connection.name}", _connection_words(device, connection)))
    for ae, view in zip(device.aes, views, strict=True):
        rows.append(("", ""))
        rows.append(("AE title", ae.ae_title))
        rows += [(label, words) for label, words in _ae_rows(ae, view) if words]
    print_table(("What", "Value"), rows)


def _about(device: "DeviceEntry") -> Iterator[tuple[str, str]]:
    """What a device says of itself, for people."""
    yield "Description", device.description
    yield "Installed", "" if device.installed else "no: none of its AEs is served"
    yield "Made by", " ".join(filter(None, (device.manufacturer, device.model, *device.software_versions)))
    yield "Serial number", device.serial_number
    yield "Station name", device.station_name
    yield "Types", ", ".join(device.primary_types)
    yield "Institution", ", ".join((*device.institution_names, *device.institution_addresses))
    yield "Departments", ", ".join(device.departments)
    yield "Issuer of patient IDs", device.issuer_of_patient_id
    yield "Related devices", "\n".join(device.related_devices)
    yield "Its certificates", "\n".join(_certificates(device, device.own_certificates))
    yield "Trusts certificates", "\n".join(_certificates(device, device.authorized_certificates))


def _certificates(device: "DeviceEntry", names: Sequence[str]) -> Iterator[str]:
    for name in names:
        prints = ", ".join(f"sha256:{each}" for each in device.fingerprints.get(name, ()))
        yield f"{name} {prints}".strip()


def _connection_words(device: "DeviceEntry", connection: "NetworkConnection") -> str:
    words = [connection.protocol.value, _address(connection)]
    if connection.port is None:
        words.append("calls only")
    if connection.tls:
        words.append(f"TLS only, {len(connection.tls_suites)} suites")
    if not device.is_installed(connection.installed):
        words.append("not installed")
    return ", ".join(words)


def _ae_rows(ae: "NetworkAE", view: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Description", ae.description
    yield "Served", "" if view["served"] else "no: see `gateway devices check`, and whether it is installed"
    yield "Calls, is called", ", ".join((
        "calls others" if ae.initiator else "calls nobody", "is called" if ae.acceptor else "is not called",
    ))  # fmt: skip
    yield "Connections", ", ".join(ae.connections)
    yield "Groups", ", ".join(ae.clusters)
    yield "Sites", ", ".join(ae.rules.sites) or "all"
    yield "Sees", view["sees"]
    yield "Profile", "\n".join(filter(None, (view["profile"], view["reason"])))
    yield "Its rules", "\n".join(view["rules"])
    yield "May do", ", ".join(view["may"])
    yield "Bound to", "\n".join(view["bounds"]) or "nothing: whoever calls itself so is let in"
    yield "Of its groups", ", ".join(view["of_groups"])
    yield "MPPS", "\n".join(view["mpps"])
    yield "Reads", ", ".join(ae.character_sets)
    yield "Prefers to call", ", ".join(ae.preferred_called)
    yield "Prefers to be called by", ", ".join(ae.preferred_calling)
    yield "Offers", "\n".join(f"{each['role']} {each['name']}" for each in view["capabilities"])


def _ae_view(site: "Site", device: "DeviceEntry", ae: "NetworkAE") -> dict[str, Any]:
    """An AE as the gateway treats it."""
    from pydicom.uid import UID

    from gateway.conformance import profile_rules
    from gateway.registry import bounded, group_rules

    own, ae = ae, bounded(device, ae, group_rules(site.settings.devices.groups))
    served = site.devices.known.get(ae.ae_title)
    return {
        "ae_title": ae.ae_title,
        "device": device.name,
        "description": ae.description or device.description,
        "types": device.primary_types,
        "group": ae.clusters[0] if ae.clusters else "",
        "served": served is not None and served.installed,
        "profile": ae.rules.profile,
        "reason": served.profile.reason if served else "",
        "rules": [*profile_rules(served.profile)] if served else [],
        "sees": served.profile.sees.value if served else "",
        "may": sorted(served.access.may) if served else [],
        "bounds": [*_bounds(ae, served)],
        "of_groups": [field.name for field in fields(ae.rules) if _differ(field.name, ae.rules, own.rules)],
        "mpps": [*_mpps(ae)],
        "connections": [
            {"name": each.name, "host": each.host, "port": each.port, "tls": each.tls, "protocol": each.protocol.value}
            for each in device.connections_of(ae)
        ],
        "capabilities": [
            {"role": each.role.value, "sop_class": each.sop_class, "name": UID(each.sop_class).name}
            for each in ae.capabilities
        ],
    }


def _differ(name: str, rules: "Rules", others: "Rules") -> bool:
    return bool(getattr(rules, name) != getattr(others, name))


def _bounds(ae: "NetworkAE", served: "Device | None") -> Iterator[str]:
    """What a caller of this title has to be, beside calling itself so."""
    rules = ae.rules
    if rules.addresses:
        yield f"from {', '.join(rules.addresses)}"
    if rules.tls_required or (served is not None and served.access.tls_required):
        yield "TLS"
    certificates = served.access.certificates if served is not None else ()
    if certificates:
        yield f"certificate {', '.join(f'{each.kind}:{_short(each.value)}' for each in certificates)}"
    pinned = served.access.pinned if served is not None else ()
    if pinned:
        yield f"by TLS certificate {', '.join(f'{each.kind}:{_short(each.value)}' for each in pinned)}"
    if rules.users:
        yield "a user who proves to be one"
    if rules.called:
        yield f"calls only {', '.join(rules.called)}"
    if rules.may:
        yield f"only {', '.join(rules.may)}"
    if rules.sites:
        yield f"sites {', '.join(rules.sites)}"


def _short(value: str) -> str:
    return f"{value[:12]}..." if len(value) == _FINGERPRINT_DIGITS else value


_FINGERPRINT_DIGITS = 64


def _mpps(ae: "NetworkAE") -> Iterator[str]:
    if ae.rules.mpps_strict:
        yield "incomplete ones are refused"
    if ae.rules.mpps_answers == "dataset":
        yield "answered with the attributes as they are held"


def _place(view: dict[str, Any]) -> str:
    port = view["port"] if view["port"] is not None else "-"
    return f"{_bracketed(view['host'])}:{port}{' TLS' if view['tls'] else ''}"


def _address(connection: "NetworkConnection") -> str:
    host = _bracketed(connection.host)
    return host if connection.port is None else f"{host}:{connection.port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _found(site: "Site", name: str) -> "tuple[DeviceEntry, NetworkAE | None]":
    from gateway.domain.problem import one_of
    from gateway.reaching import found

    device = found(site.directory, name)
    if device is None:
        have = {ae.ae_title for each in site.directory.devices for ae in each.aes}
        have |= {each.name for each in site.directory.devices}
        hint = one_of(name, have) if len(have) <= _NAMES_SHOWN_MAX else "see `gateway devices list`"
        fail(f"There is no device or AE title {name}; {hint}")
    return device


_NAMES_SHOWN_MAX = 50


def _source(site: "Site") -> str:
    """Where the devices of this site come from, for people."""
    ldap = site.settings.devices.ldap
    if ldap is not None and ldap.use:
        where = ", ".join(ldap.servers) or f"the servers of {ldap.discover}"
        return f"LDAP ({where}), as kept in {ldap.snapshot}"
    return site.settings.devices.file or "nowhere: `devices.file` is empty"


# --- what is wrong, and what differs ----------------------------------------------------------------------------------


@devices.command("check")
def devices_check(config: ConfigOption = CONFIG, json_output: JSONOption = False) -> None:
    """Every problem of the registry; of a configured LDAP directory also as it is now, not only as it was kept."""
    from gateway.config import ConfigError, load_site

    mistakes: Sequence[Problem] = ()
    try:
        site = load_site(config)
    except ConfigError as error:  # what is wrong in LDAP can be told too, unless it is the settings that are wrong
        site, mistakes = site_of(config, devices=False), error.problems
    problems = [*mistakes, *site.device_doubts]
    if site.settings.devices.ldap is not None:
        problems += _ldap_problems(site)
    problems = list(dict.fromkeys(problems))
    others = [each for each in site.doubts if each not in problems and not mistakes]
    if json_output:
        print_json([{**asdict(each), "where": each.where} for each in problems])
    else:
        tell((*others, *problems))
        verdict = f"{len(problems)} problem(s)" if problems else "ok"
        if others:
            verdict += f", and {len(others)} doubt(s) of what is not in it"
        titles = sum(len(each.aes) for each in site.directory.devices)
        out.print(
            f"{_source(site)}: {verdict}. {len(site.directory.devices)} device(s), {titles} AE title(s).",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    if problems:
        raise typer.Exit(1)


def _ldap_problems(site: "Site") -> "Iterator[Problem]":
    """What is wrong with the directory as it is at this moment."""
    from gateway.config import known_to
    from gateway.domain.directory_checks import check
    from gateway.domain.problem import Problem
    from gateway.edges.ldap_directory import LDAPFailed

    try:
        read = _opened(site).snapshot()
    except LDAPFailed as error:
        yield Problem("LDAP", "", str(error))
        return
    yield from read.problems
    findings = check(read.directory, "LDAP", known_to(site))
    yield from (*findings.mistakes, *findings.doubts)


@contextmanager
def ldap_of(site: "Site") -> "Iterator[LDAPDirectory]":
    """The directory that the settings name; what it refuses ends the command in its words."""
    from gateway.edges.ldap_directory import LDAPFailed

    try:
        yield _opened(site)
    except LDAPFailed as error:
        fail(str(error))


def _opened(site: "Site") -> "LDAPDirectory":
    from gateway.directory_source import access_of
    from gateway.edges.ldap_directory import LDAPDirectory

    access = access_of(site)
    if access is None:
        fail(f"{site.file.name} names no directory: write `devices.ldap`, with `use: false` to keep the file in use.")
    return LDAPDirectory(access)


@devices.command("diff")
def devices_diff(
    other: Annotated[
        Path | None, typer.Argument(help="A file like devices.yaml; default: the LDAP directory.", show_default=False)
    ] = None,
    config: ConfigOption = CONFIG,
    json_output: JSONOption = False,
) -> None:
    """How the LDAP directory, or another file, differs from `devices.file`; exit code 1 where it does.

    Our own entry in the directory (`publish`) does not count.
    """
    from gateway.config import own_name
    from gateway.described_devices import others
    from gateway.domain.directory_diff import differences
    from gateway.domain.directory_names import all_called_as_there

    site = site_of(config, devices=False)
    own = site.settings.devices.file
    before = read_devices(site.file.parent / own) if own else site_of(config).directory
    if other is not None:
        after = read_devices(other)
    else:
        with ldap_of(site) as ldap:
            read = ldap.snapshot()
        tell(read.problems)
        ours = own_name(site.settings)
        before, after = others(before, ours), others(read.directory, ours)
    before = all_called_as_there(before, after)
    found = differences(before, after, leave_out={"fingerprints"})  # these are in entries of their own
    if json_output:
        print_json([asdict(each) for each in found])
    else:
        for each in found:
            out.print(str(each), highlight=False, markup=False, soft_wrap=True)
        there = str(other) if other is not None else "LDAP"
        said = f"{len(found)} difference(s)" if found else "no difference"
        out.print(
            f"{own or _source(site)} -> {there}: {said}.", highlight=False, markup=False, soft_wrap=True
        )  # fmt: skip
    if found:
        raise typer.Exit(1)


def read_devices(file: Path) -> "Directory":
    """The devices of a file. Ends the command where it cannot be read."""
    from gateway.described_devices import entries_in
    from gateway.domain.problem import Problem

    problems: list[Problem] = []
    found = entries_in(file, problems)
    tell(problems)
    if found is None or problems:
        fail(f"{file} cannot be read as devices; nothing was done.")
    return found


def tell(problems: "Iterable[Problem]") -> None:
    """Every problem in a line, beside what a command prints."""
    for problem in problems:
        err.print(str(problem), markup=False, highlight=False, soft_wrap=True)


# --- asking -----------------------------------------------------------------------------------------------------------


@devices.command("echo")
def devices_echo(
    name: Annotated[str, typer.Argument(help="An AE title, or the name of a device.", show_default=False)] = "",
    config: ConfigOption = CONFIG,
    everybody: Annotated[bool, typer.Option("--all", help="Every device that can be called.")] = False,
    calling: Annotated[str, typer.Option(help="Call ourselves so; default: `ae_title`.", show_default=False)] = "",
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, max=60, help="Seconds for an answer.")] = 5.0,
    json_output: JSONOption = False,
) -> None:
    """Whether devices answer: C-ECHO over DICOM; to HL7 connections only a connection, with TLS where they want it.

    What fails is said with how far one got: name, TCP, TLS, association, echo. Exit code 1 if anything failed.
    """
    from gateway.reaching import Reaching, targets

    if bool(name) is everybody:
        raise typer.BadParameter("name a device or AE title, or write --all", param_hint="NAME")
    site = site_of(config)
    if everybody:
        chosen = [each for device in site.directory.devices for each in targets(device)]
    else:
        chosen = list(targets(*_found(site, name)))
    if not chosen:
        what = f"{name} cannot be called" if name else "No device can be called"
        fail(f"{what}: no connection with a port is registered and installed.")
    reaching = Reaching(site, calling or site.settings.ae_title, timeout_s)
    answers = []
    with _without_a_word("pynetdicom"), progress(len(chosen), "asking") as advance:
        for target, answer in reaching.all(chosen):
            answers.append((target, answer))
            advance(1)
    failed = sum(not answer.answered for _, answer in answers)
    if json_output:
        print_json([
            {"device": target.device, "ae_title": target.ae_title, "place": target.place, "answered": answer.answered,
             **asdict(answer)}
            for target, answer in answers
        ])  # fmt: skip
    else:
        print_table(
            ("Device", "AE title", "Where", "Address", "Result", "Time"),
            (
                (target.device, target.ae_title or "(HL7)", target.place, answer.address, _result(target, answer),
                 f"{answer.seconds * 1000:.0f} ms" if answer.address else "")
                for target, answer in answers
            ),
        )  # fmt: skip
        out.print(f"{len(answers) - failed} of {len(answers)} answer.", highlight=False)
    if failed:
        raise typer.Exit(1)


@contextmanager
def _without_a_word(logger: str) -> Iterator[None]:
    """A library that tells every failure in its own words, beside ours, says nothing meanwhile."""
    its = logging.getLogger(logger)
    level = its.level
    its.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        its.setLevel(level)


def _result(target: "Target", answer: Any) -> str:
    if answer.answered:
        return "answers" if target.ae_title else "takes the connection"
    return f"{answer.phase}: {answer.text}"


@devices.command("dns")
def devices_dns(
    config: ConfigOption = CONFIG,
    zone: Annotated[
        str, typer.Option(help="Domain of the zone file; default: none is named.", show_default=False)
    ] = "",
) -> None:
    """Lines for a zone file by which devices, and this gateway, are found without being configured (DNS-SD)."""
    from gateway.own_device import REACHED_HINT, own_device, unreachable
    from gateway.zone_records import zone_records

    site = site_of(config)
    own = own_device(site.settings)
    for fault in unreachable(own):
        err.print(f"{fault}; {REACHED_HINT}", markup=False, highlight=False, soft_wrap=True)
    others = (each for each in site.directory.devices if each.name.casefold() != own.name.casefold())
    try:
        for line in zone_records((own, *others), zone):
            print(line)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--zone") from None
