"""A directory of devices as LDIF (RFC 2849), to be loaded into an LDAP server (PS3.15 H.1.4.4)."""

import base64

from gateway.domain.directory import Directory
from gateway.edges import ldap_schema as schema
from gateway.edges.ldap_changes import entries_of, registry_entry, unwritable
from gateway.edges.ldap_entries import Entry
from gateway.wire.distinguished_names import parse_dn


def ldif_of(directory: Directory, base: str) -> str:
    """The directory as LDIF (RFC 2849) below the DN `base`: root, devices and registry, for an empty server.

    Raises DNError where `base` is no DN, ValueError where a device lacks what Annex H demands.
    """
    root = schema.root_dn(parse_dn(base))
    records = [
        Entry(dn, {"objectclass": (kind.encode(),)} | {name: (value.encode(),) for name, value in attributes})
        for dn, kind, attributes in schema.init_entries(root)
    ]
    titles: dict[str, None] = {}
    for device in directory.devices:
        faults = unwritable(device)
        if faults:
            raise ValueError(f"device {device.name}: {'; '.join(faults)}")
        records += entries_of(device, schema.devices_dn(root))
        titles |= dict.fromkeys(ae.ae_title for ae in device.aes)
    records += [registry_entry(title, root) for title in titles]
    return "version: 1\n\n" + "\n".join(ldif_record(each) for each in records)


def ldif_record(entry: Entry) -> str:
    """One entry as LDIF, with an empty line to follow."""
    lines = [_ldif_line("dn", str(entry.dn).encode())]
    for name, values in entry.attributes.items():
        row = schema.ATTRIBUTES.get(name)
        shown = row.name if row else "objectClass" if name == "objectclass" else name
        lines += [_ldif_line(shown, value) for value in values]
    return "\n".join(lines) + "\n"


def _ldif_line(name: str, value: bytes) -> str:
    """A line, in base64 unless the value is a SAFE-STRING."""
    safe = (
        all(0x20 <= byte < 0x7F for byte in value) and not value.startswith((b" ", b":", b"<")) and value[-1:] != b" "
    )
    return schema.folded(f"{name}: {value.decode()}" if safe else f"{name}:: {base64.b64encode(value).decode()}")
