"""`gateway devices` pull, accept, push, publish, titles, reserve, release and ldif: between file and directory.

What changes a file or the directory shows first what it would do and does it with --yes. A password is never shown.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.console import CONFIG, ConfigOption, JSONOption, err, fail, out, print_json, print_table, site_of
from gateway.commands.devices import devices, ldap_of, read_devices, tell

if TYPE_CHECKING:
    from gateway.config import Site
    from gateway.domain.directory import DeviceEntry, Directory
    from gateway.domain.directory_checks import Findings
    from gateway.domain.directory_diff import Difference
    from gateway.domain.problem import Problem
    from gateway.edges.ldap_directory import LDAPDirectory

YesOption = Annotated[bool, typer.Option("--yes", help="Do it; without this, only show.")]
TitleArgument = Annotated[str, typer.Argument(help="The AE title; case counts.")]
ReservedOption = Annotated[
    list[str] | None,
    typer.Option(
        help="An AE title that `devices reserve` reserved for this before; may be repeated.", show_default=False
    ),
]

CHANGES_SHOWN_MAX = 200
"""Lines of a preview; --json has all of them."""


@devices.command("pull")
def devices_pull(
    config: ConfigOption = CONFIG,
    to: Annotated[Path | None, typer.Option(help="File to write; default: `devices.file`.", show_default=False)] = None,
    yes: YesOption = False,
    json_output: JSONOption = False,
) -> None:
    """Write the devices of the LDAP directory into a file like devices.yaml. Shows what would change in it.

    Entries that stay as they are keep their comments. The file as it was is kept beside it, with .bak, and the next
    ones with .bak.2 and so on. Our own entry is left out. What would keep the gateway from starting is not written.
    """
    from gateway.config import own_name, with_devices_of
    from gateway.described_devices import others
    from gateway.device_files import write_devices
    from gateway.domain.directory import Directory

    site = site_of(config, devices=False)
    file = _file(site, to, "to")
    with ldap_of(site) as ldap:
        found = ldap.snapshot()
    theirs = others(found.directory, own_name(site.settings))
    _refuse(_findings(site, theirs, "LDAP").refused, "the directory")
    mistakes, doubts = with_devices_of(site, theirs, "LDAP")
    tell((*found.problems, *doubts, *mistakes))
    if yes and mistakes:
        fail(
            f"With {len(mistakes)} problem(s) in {file} the gateway would not start; nothing was done. Mend them in "
            f"LDAP, or in what {site.file.name} names, then pull again."
        )
    held = _held(file, is_ours=to is None)
    changes = _changes(held or Directory(), theirs)
    if yes and (changes or held is None or not file.exists()):
        try:
            kept = write_devices(file, theirs, anew=held is None)
        except (OSError, ValueError) as error:
            fail(f"{file} cannot be written: {getattr(error, 'strerror', None) or error}")
        if kept:
            err.print(f"What it said before is in {kept}.", highlight=False, markup=False, soft_wrap=True)
    _print_changes(changes, str(file), done=yes, json_output=json_output)


@devices.command("accept")
def devices_accept(config: ConfigOption = CONFIG, yes: YesOption = False, json_output: JSONOption = False) -> None:
    """Serve by the LDAP directory although most of its devices are gone. Shows what would change.

    A running gateway takes every change but this one by itself: an account that may no longer read sees the same.
    What was served before is kept beside the snapshot, with .bak.
    """
    from gateway.snapshot import write_snapshot

    site = site_of(config)
    ldap = site.settings.devices.ldap
    if ldap is None or not ldap.use:
        fail(f"{site.file.name} serves no directory: `devices.ldap` with `use: true` would.")
    with ldap_of(site) as client:
        found = client.snapshot()
    _refuse(_findings(site, found.directory, "LDAP").refused, "the directory")
    tell(found.problems)
    snapshot = site.file.parent / ldap.snapshot
    changes = _changes(site.directory, found.directory)
    if yes and changes:
        try:
            write_snapshot(snapshot, found.directory)
        except OSError as error:
            fail(f"{snapshot} cannot be written: {error.strerror or error}")
        err.print(f"Read from {found.server}. A running gateway serves it after SIGHUP.", highlight=False, markup=False)
    _print_changes(changes, str(snapshot), done=yes, json_output=json_output)


@devices.command("push")
def devices_push(
    config: ConfigOption = CONFIG,
    source: Annotated[
        Path | None, typer.Option("--from", help="File to read; default: `devices.file`.", show_default=False)
    ] = None,
    reserved: ReservedOption = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete devices that the file does not have.")] = False,
    yes: YesOption = False,
    json_output: JSONOption = False,
) -> None:
    """Bring the LDAP directory in line with a file like devices.yaml. Shows what would change in it.

    Only what differs is written, and AE titles are reserved in the registry of unique ones. Devices that only the
    directory has stay there unless --delete is said; our own entry (`publish`) always stays.
    """
    from gateway.config import own_name
    from gateway.domain.directory_names import all_called_as_there

    site = site_of(config, devices=False)
    file = _file(site, source, "from")
    wanted = read_devices(file)
    _refuse(_findings(site, wanted, file.name).mistakes, file.name)
    with ldap_of(site) as ldap:
        found = ldap.snapshot()
        wanted = all_called_as_there(wanted, found.directory)
        changes = _changes(found.directory, wanted, _NOT_WRITTEN)
        own = own_name(site.settings).casefold()
        changes = {
            name: change
            for name, change in changes.items()
            if change.new is not None or (delete and name.casefold() != own)
        }
        after = _findings(site, _afterwards(found.directory, changes), "LDAP")
        _refuse(after.refused, "what the directory would be")
        _refuse([*_unwritable(changes, file.name), *_taken(ldap, found.directory, changes, reserved or ())], file.name)
        if yes:
            _push(ldap, changes, reserved or ())
    _print_changes(changes, "the directory", done=yes, json_output=json_output)


@devices.command("publish")
def devices_publish(
    config: ConfigOption = CONFIG,
    reserved: ReservedOption = None,
    yes: YesOption = False,
    json_output: JSONOption = False,
) -> None:
    """Write our own entry into the LDAP directory: AE titles, connections and what each offers, as the code has it."""
    from gateway.domain.directory import Directory
    from gateway.domain.problem import Problem
    from gateway.own_device import REACHED_HINT, own_device, unreachable

    site = site_of(config, devices=False)
    entry = own_device(site.settings)
    _refuse([Problem(site.file.name, "", fault, REACHED_HINT) for fault in unreachable(entry)], "our own entry")
    with ldap_of(site) as ldap:
        found = ldap.snapshot()
        held = tuple(each for each in found.directory.devices if each.name.casefold() == entry.name.casefold())
        changes = _changes(Directory(held), Directory((entry,)), _NOT_WRITTEN)
        _refuse(_findings(site, Directory((entry,)), "our own entry").mistakes, "our own entry")
        after = _findings(site, _afterwards(found.directory, changes), "LDAP")
        _refuse(after.refused, "what the directory would be")
        _refuse([*_taken(ldap, found.directory, changes, reserved or ())], "our own entry")
        if yes:
            _push(ldap, changes, reserved or ())
    _print_changes(changes, "the directory", done=yes, json_output=json_output)


@devices.command("titles")
def devices_titles(config: ConfigOption = CONFIG, json_output: JSONOption = False) -> None:
    """AE titles in the directory's registry of unique ones, and which device has each."""
    with ldap_of(site_of(config, devices=False)) as ldap:
        reserved, found = ldap.reserved(), ldap.snapshot()
    owners = {ae.ae_title: device.name for device in found.directory.devices for ae in device.aes}
    rows = [(title, owners.get(title, ""), title in reserved) for title in sorted({*reserved, *owners})]
    if json_output:
        print_json([{"ae_title": title, "device": owner, "reserved": there} for title, owner, there in rows])
        return
    print_table(
        ("AE title", "Device", "Reserved"),
        ((title, owner or "(none: reserved only)", "yes" if there else "no") for title, owner, there in rows),
    )


@devices.command("reserve")
def devices_reserve(ae_title: TitleArgument, config: ConfigOption = CONFIG) -> None:
    """Reserve an AE title in the directory's registry, so that nobody else takes it; exit 1 where it is taken."""
    with ldap_of(site_of(config, devices=False)) as ldap:
        ldap.reserve(ae_title)
    out.print(f"{ae_title} is reserved.", highlight=False, markup=False)


@devices.command("release")
def devices_release(ae_title: TitleArgument, config: ConfigOption = CONFIG) -> None:
    """Give a reserved AE title back; refused while a device has it."""
    with ldap_of(site_of(config, devices=False)) as ldap:
        was_reserved = ldap.release(ae_title)
    if not was_reserved:
        fail(f"{ae_title} is not reserved.")
    out.print(f"{ae_title} is free again.", highlight=False, markup=False)


@devices.command("ldif")
def devices_ldif(
    config: ConfigOption = CONFIG,
    base: Annotated[str, typer.Option(help="DN to stand below; default: `devices.ldap.base`.")] = "",
    source: Annotated[
        Path | None, typer.Option("--from", help="File to read; default: the registry in use.", show_default=False)
    ] = None,
) -> None:
    """Print the registry as LDIF (RFC 2849), to be loaded into an empty LDAP server."""
    from gateway.edges.ldif import ldif_of

    site = site_of(config, devices=source is None)
    ldap = site.settings.devices.ldap
    below = base or (ldap.base if ldap else "")
    if not below:
        raise typer.BadParameter("say below which DN, such as dc=hospital,dc=example", param_hint="--base")
    try:
        text = ldif_of(read_devices(source) if source else site.directory, below)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--base") from error
    print(text, end="")


# --- both sides -------------------------------------------------------------------------------------------------------


def _file(site: "Site", said: Path | None, option: str) -> Path:
    if said is not None:
        return said
    if not site.settings.devices.file:
        raise typer.BadParameter("`devices.file` is empty: say which file", param_hint=f"--{option}")
    return site.file.parent / site.settings.devices.file


def _held(file: Path, *, is_ours: bool) -> "Directory | None":
    """What the file says; None where the registry's own cannot be read, and is to be written anew."""
    from gateway.described_devices import entries_in
    from gateway.domain.directory import Directory
    from gateway.domain.problem import Problem

    if not file.exists():
        return Directory()
    if not is_ours:
        return read_devices(file)
    problems: list[Problem] = []
    found = entries_in(file, problems)
    if problems:
        tell(problems)
        err.print(
            f"{file} cannot be read, so all of it is written anew.", markup=False, highlight=False, soft_wrap=True
        )
        return None
    return found


def _refuse(problems: "Sequence[Problem]", what: str) -> None:
    tell(problems)
    if problems:
        fail(f"{len(problems)} problem(s) in {what}; nothing was done.")


def _findings(site: "Site", directory: "Directory", source: str) -> "Findings":
    from gateway.config import known_to
    from gateway.domain.directory_checks import check

    return check(directory, source, known_to(site))


# --- what differs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Change:
    """What becomes of a device: what it is to be (None: nothing), and how that differs from what it is."""

    new: "DeviceEntry | None"
    differences: "tuple[Difference, ...]"


def _changes(old: "Directory", new: "Directory", leave_out: Collection[str] = ()) -> dict[str, _Change]:
    """What differs, by name of device."""
    from gateway.domain.directory_diff import differences

    after = {each.name.casefold(): each for each in new.devices}
    found: dict[str, list[Difference]] = {}
    for difference in differences(old, new, leave_out=leave_out):
        found.setdefault(difference.device, []).append(difference)
    return {name: _Change(after.get(name.casefold()), tuple(each)) for name, each in found.items()}


_NOT_WRITTEN = ("fingerprints",)
"""What is not written into LDAP, but found there in other entries."""


def _afterwards(directory: "Directory", changes: Mapping[str, _Change]) -> "Directory":
    """The directory once this is done."""
    from gateway.domain.directory import Directory

    changed = {name.casefold() for name in changes}
    kept = (each for each in directory.devices if each.name.casefold() not in changed)
    return Directory((*kept, *(change.new for change in changes.values() if change.new is not None)))


def _unwritable(changes: Mapping[str, _Change], source: str) -> "Iterator[Problem]":
    """What cannot stand in LDAP as it is, before anything is written."""
    from gateway.domain.problem import Problem
    from gateway.edges.ldap_changes import unwritable

    for name, change in changes.items():
        for fault in unwritable(change.new) if change.new is not None else ():
            yield Problem(
                source,
                f"devices {name}",
                fault,
                "LDAP takes no such entry (PS3.15 H.1.3); where it is, is said by `host`",
            )


def _taken(
    ldap: "LDAPDirectory", directory: "Directory", changes: Mapping[str, _Change], reserved: Collection[str]
) -> "Iterator[Problem]":
    """AE titles that are new and reserved already, before anything is written."""
    from gateway.domain.problem import Problem

    had = {ae.ae_title for each in directory.devices for ae in each.aes}
    after = {ae.ae_title: name for name, change in changes.items() if change.new for ae in change.new.aes}
    new = {title: name for title, name in after.items() if title not in had and title not in reserved}
    for title in sorted(new.keys() & set(ldap.reserved()) if new else ()):
        yield Problem(
            "LDAP", f"devices {new[title]}", f"AE title {title} is reserved for another device",
            f"choose another, or say --reserved {title} if the reservation is yours",
        )  # fmt: skip


def _order(change: tuple[str, _Change]) -> tuple[bool, int]:
    """First what goes, then what gets fewer AE titles: they may be another's from now on."""
    new = change[1].new
    return new is not None, sum(each.change == "added" for each in change[1].differences)


def _push(ldap: "LDAPDirectory", changes: Mapping[str, _Change], reserved: Collection[str] = ()) -> None:
    """Write what differs."""
    from gateway.edges.ldap_directory import LDAPFailed

    done = 0
    try:
        for name, change in sorted(changes.items(), key=_order):
            if change.new is None:
                ldap.delete_device(name)
            else:
                ldap.write_device(change.new, reserved=frozenset(reserved))
            done += 1
    except LDAPFailed:
        err.print(f"{done} of {len(changes)} device(s) were written before this:", style="red", highlight=False)
        raise


def _print_changes(changes: Mapping[str, _Change], what: str, *, done: bool, json_output: bool) -> None:
    lines = [each for change in changes.values() for each in change.differences]
    if json_output:
        print_json({"done": done and bool(changes), "changes": [asdict(each) for each in lines]})
        return
    if not changes:
        out.print(f"{what} says the same already.", highlight=False, markup=False, soft_wrap=True)
        return
    print_table(
        ("Device", "Part", "Change", "What", "Old -> new"),
        ((each.device, each.part, each.change, each.attribute, _pair(each)) for each in lines[:CHANGES_SHOWN_MAX]),
    )
    if len(lines) > CHANGES_SHOWN_MAX:
        out.print(f"... and {len(lines) - CHANGES_SHOWN_MAX} more; --json has all of them.", highlight=False)
    said = f"{len(changes)} device(s) {'changed' if done else 'would change'} in {what}."
    out.print(said if done else f"{said} Nothing is done without --yes.", highlight=False, markup=False, soft_wrap=True)


def _pair(difference: "Difference") -> str:
    if not difference.attribute:
        return ""
    return f"{_short(difference.before)} -> {_short(difference.after)}"


def _short(value: str) -> str:
    return value[:_SHOWN_CHARACTERS_MAX] + "..." if len(value) > _SHOWN_CHARACTERS_MAX else value or "(none)"


_SHOWN_CHARACTERS_MAX = 120
