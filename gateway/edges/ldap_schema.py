"""The LDAP schema of devices: one table of attributes and one of classes, and the files that servers load.

The standard's part is PS3.15 H.1.3. What we add stands under an arc of our own, in auxiliary classes only, so that
entries stay those of the standard to everyone else. `python -m gateway.edges.ldap_schema` writes the files in
`config/ldap`; a test fails when they and the tables differ. The client reads and writes by the same names.

Where the printed schema does not load, this is what was made of it:

- 1.2.840.10008.15.0.3.31 is printed twice. Here it is dicomSupportedCharacterSet, which AEs have;
  dicomInstitutionDepartmentType, which no class has and whose matching rule is foreign to its syntax, is left out.
- dicomVendorData has the syntax Binary, which RFC 4517 retired. `dicom.ldif` keeps it; a server that refuses it takes
  Octet String (...1466.115.121.1.40) in its place.
- dicomIssuerOfPatientID may have several values in the formal schema and one in the text: several are read, one is
  written.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.wire.distinguished_names import DN, Part

ATTRIBUTE_ARC = "1.2.840.10008.15.0.3"
CLASS_ARC = "1.2.840.10008.15.0.4"
OWN_ARC = "2.25.179322962406433552326835211642641137101"
"""Of a UUID, as X.667 lets anyone have one: attributes below .1, classes below .2."""

ROOT_NAME = "DICOM Configuration"
DEVICES_NAME = "Devices"
REGISTRY_NAME = "Unique AE Titles Registry"

ROOT = "dicomConfigurationRoot"
DEVICES_ROOT = "dicomDevicesRoot"
REGISTRY_ROOT = "dicomUniqueAETitlesRegistryRoot"
DEVICE = "dicomDevice"
NETWORK_AE = "dicomNetworkAE"
CONNECTION = "dicomNetworkConnection"
UNIQUE_AE_TITLE = "dicomUniqueAETitle"
CAPABILITY = "dicomTransferCapability"
OWN_AE = "gatewayNetworkAE"
OWN_CONNECTION = "gatewayNetworkConnection"


@dataclass(frozen=True, slots=True)
class Syntax:
    """A syntax of RFC 4517 by its last number, and the matching rules that go with it."""

    number: int
    rules: tuple[str, ...]


_SYNTAX = "1.3.6.1.4.1.1466.115.121.1"
DIRECTORY_STRING = Syntax(15, ("EQUALITY caseIgnoreMatch", "SUBSTR caseIgnoreSubstringsMatch"))
IA5_STRING = Syntax(26, ("EQUALITY caseExactIA5Match",))
NAME = Syntax(12, ("EQUALITY distinguishedNameMatch",))
BOOLEAN = Syntax(7, ("EQUALITY booleanMatch",))
INTEGER = Syntax(27, ("EQUALITY integerMatch",))
OID = Syntax(38, ("EQUALITY objectIdentifierMatch",))
BINARY = Syntax(5, ())


@dataclass(frozen=True, slots=True)
class AttributeType:
    """One attribute. `single`: at most one value."""

    oid: str
    name: str
    syntax: Syntax
    single: bool
    meaning: str

    def __str__(self) -> str:
        words = [
            self.oid, f"NAME '{self.name}'", f"DESC '{self.meaning}'", *self.syntax.rules,
            f"SYNTAX {_SYNTAX}.{self.syntax.number}",
        ]  # fmt: skip
        return f"( {' '.join(words + ['SINGLE-VALUE'] * self.single)} )"


@dataclass(frozen=True, slots=True)
class ObjectClass:
    """One class of entries; `auxiliary` ones go beside a structural one."""

    oid: str
    name: str
    meaning: str
    must: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    auxiliary: bool = False

    def __str__(self) -> str:
        words = [
            self.oid, f"NAME '{self.name}'", f"DESC '{self.meaning}'", "SUP top",
            "AUXILIARY" if self.auxiliary else "STRUCTURAL",
        ]  # fmt: skip
        words += [
            f"{word} ( {' $ '.join(names)} )" for word, names in (("MUST", self.must), ("MAY", self.may)) if names
        ]
        return f"( {' '.join(words)} )"


def _numbered(arc: str, rows: Iterable[tuple[int, str, Syntax, bool, str]]) -> tuple[AttributeType, ...]:
    return tuple(
        AttributeType(f"{arc}.{number}", name, syntax, single, meaning)
        for number, name, syntax, single, meaning in rows
    )


_S, _M = True, False

STANDARD_ATTRIBUTES = _numbered(ATTRIBUTE_ARC, [
    (1, "dicomDeviceName", DIRECTORY_STRING, _S, "Unique name of a device"),
    (2, "dicomDescription", DIRECTORY_STRING, _S, "Text for people"),
    (3, "dicomManufacturer", DIRECTORY_STRING, _S, "Manufacturer (0008,0070)"),
    (4, "dicomManufacturerModelName", DIRECTORY_STRING, _S, "Manufacturer Model Name (0008,1090)"),
    (5, "dicomSoftwareVersion", DIRECTORY_STRING, _M, "Software Versions (0018,1020)"),
    (6, "dicomVendorData", BINARY, _M, "Configuration that only its vendor reads"),
    (7, "dicomAETitle", IA5_STRING, _S, "AE title"),
    (8, "dicomNetworkConnectionReference", NAME, _M, "Connections that an AE uses"),
    (9, "dicomApplicationCluster", DIRECTORY_STRING, _M, "Groups that an AE belongs to"),
    (10, "dicomAssociationInitiator", BOOLEAN, _S, "Whether it opens associations"),
    (11, "dicomAssociationAcceptor", BOOLEAN, _S, "Whether it accepts associations"),
    (12, "dicomHostname", DIRECTORY_STRING, _S, "DNS name of a connection"),
    (13, "dicomPort", INTEGER, _S, "TCP port; none where it only initiates"),
    (14, "dicomSOPClass", OID, _S, "SOP class UID"),
    (15, "dicomTransferRole", DIRECTORY_STRING, _S, "SCU or SCP"),
    (16, "dicomTransferSyntax", OID, _M, "Transfer syntax UIDs"),
    (17, "dicomPrimaryDeviceType", IA5_STRING, _M, "Codes of CID 30, such as CT"),
    (18, "dicomRelatedDeviceReference", NAME, _M, "Entries elsewhere that are about the device"),
    (19, "dicomPreferredCalledAETitle", IA5_STRING, _M, "AE titles that it prefers to call"),
    (20, "dicomTLSCipherSuite", IA5_STRING, _M, "TLS suites; with any of them TLS must be used"),
    (21, "dicomAuthorizedNodeCertificateReference", NAME, _M, "Entries of certificates that may call"),
    (22, "dicomThisNodeCertificateReference", NAME, _M, "Entries of certificates of the device itself"),
    (23, "dicomInstalled", BOOLEAN, _S, "Whether it is on the network"),
    (24, "dicomStationName", DIRECTORY_STRING, _S, "Station Name (0008,1010)"),
    (25, "dicomDeviceSerialNumber", DIRECTORY_STRING, _S, "Device Serial Number (0018,1000)"),
    (26, "dicomInstitutionName", DIRECTORY_STRING, _M, "Institution Name (0008,0080)"),
    (27, "dicomInstitutionAddress", DIRECTORY_STRING, _M, "Institution Address (0008,0081)"),
    (28, "dicomInstitutionDepartmentName", DIRECTORY_STRING, _M, "Institutional Department Name (0008,1040)"),
    (29, "dicomIssuerOfPatientID", DIRECTORY_STRING, _M, "Issuer of Patient ID (0010,0021)"),
    (30, "dicomPreferredCallingAETitle", IA5_STRING, _M, "AE titles that it prefers to be called by"),
    (31, "dicomSupportedCharacterSet", IA5_STRING, _M, "Terms of Specific Character Set it can receive"),
])  # fmt: skip
"""PS3.15 H.1.3, attributes by number."""

STANDARD_CLASSES = tuple(
    ObjectClass(f"{CLASS_ARC}.{number}", name, meaning, must, may)
    for number, name, meaning, must, may in [
        (1, ROOT, "Root of the DICOM configuration", ("cn",), ("description",)),
        (2, DEVICES_ROOT, "Root of the devices", ("cn",), ("description",)),
        (3, REGISTRY_ROOT, "Root of the registry of AE titles", ("cn",), ("description",)),
        (4, DEVICE, "A device", ("dicomDeviceName", "dicomInstalled"), (
            "dicomDescription", "dicomManufacturer", "dicomManufacturerModelName", "dicomSoftwareVersion",
            "dicomStationName", "dicomDeviceSerialNumber", "dicomInstitutionName", "dicomInstitutionAddress",
            "dicomInstitutionDepartmentName", "dicomIssuerOfPatientID", "dicomVendorData", "dicomPrimaryDeviceType",
            "dicomRelatedDeviceReference", "dicomAuthorizedNodeCertificateReference",
            "dicomThisNodeCertificateReference",
        )),
        (5, NETWORK_AE, "An application entity", (
            "dicomAETitle", "dicomNetworkConnectionReference", "dicomAssociationInitiator",
            "dicomAssociationAcceptor",
        ), (
            "dicomDescription", "dicomVendorData", "dicomApplicationCluster", "dicomPreferredCalledAETitle",
            "dicomPreferredCallingAETitle", "dicomSupportedCharacterSet", "dicomInstalled",
        )),
        (6, CONNECTION, "An address on the network", ("dicomHostname",), (
            "cn", "dicomPort", "dicomTLSCipherSuite", "dicomInstalled",
        )),
        (7, UNIQUE_AE_TITLE, "An AE title that is taken", ("dicomAETitle",), ()),
        (8, CAPABILITY, "A SOP class in one role", ("dicomSOPClass", "dicomTransferRole", "dicomTransferSyntax"), (
            "cn",
        )),
    ]
)  # fmt: skip
"""PS3.15 H.1.3, classes by number."""

OWN_ATTRIBUTES = _numbered(f"{OWN_ARC}.1", [
    (1, "gatewayProfile", DIRECTORY_STRING, _S, "Entry of profiles.yaml that bends the rules for it"),
    (2, "gatewaySees", DIRECTORY_STRING, _S, "Which steps it is shown: all, own or group"),
    (3, "gatewaySite", DIRECTORY_STRING, _M, "Sites whose orders it may see"),
    (4, "gatewayMPPSStrict", BOOLEAN, _S, "Whether incomplete MPPS are refused"),
    (5, "gatewayMPPSAnswers", DIRECTORY_STRING, _S, "What its MPPS are answered with: status or dataset"),
    (6, "gatewayMay", DIRECTORY_STRING, _M, "What it may do; none: everything"),
    (7, "gatewayAddress", DIRECTORY_STRING, _M, "Addresses or networks it calls from; none: any"),
    (8, "gatewayCertificate", DIRECTORY_STRING, _M, "What its certificate must be one of; none: any trusted"),
    (9, "gatewayCalledAETitle", IA5_STRING, _M, "AE titles it may call; none: any"),
    (10, "gatewayTLSRequired", BOOLEAN, _S, "Whether it has to use TLS"),
    (11, "gatewayUserRequired", BOOLEAN, _S, "Whether each association has to name a user"),
    (12, "gatewayProtocol", DIRECTORY_STRING, _S, "What is spoken on a connection: DICOM or HL7"),
])  # fmt: skip

OWN_CLASSES = (
    ObjectClass(
        f"{OWN_ARC}.2.1",
        OWN_AE,
        "How modality-gateway treats an AE",
        may=tuple(row.name for row in OWN_ATTRIBUTES[:11]),
        auxiliary=True,
    ),
    ObjectClass(
        f"{OWN_ARC}.2.2", OWN_CONNECTION, "What is spoken on a connection", may=("gatewayProtocol",), auxiliary=True
    ),
)  # fmt: skip

ATTRIBUTES: Mapping[str, AttributeType] = {row.name.lower(): row for row in (*STANDARD_ATTRIBUTES, *OWN_ATTRIBUTES)}
"""Every attribute that the client knows, by its name in lower case."""


def attributes_of(*classes: str) -> frozenset[str]:
    """The names, in lower case, of all attributes that entries of these classes may have."""
    return frozenset(
        name.lower() for row in (*STANDARD_CLASSES, *OWN_CLASSES) if row.name in classes for name in row.must + row.may
    )


def root_dn(base: DN) -> DN:
    """Where the configuration's root stands: at `base` if that is one by name, else right below it."""
    return base if base.value("cn").casefold() == ROOT_NAME.casefold() else base.child(("cn", ROOT_NAME))


def devices_dn(root: DN) -> DN:
    """Below which devices stand."""
    return root.child(("cn", DEVICES_NAME))


def registry_dn(root: DN) -> DN:
    """Below which AE titles are reserved."""
    return root.child(("cn", REGISTRY_NAME))


def init_entries(root: DN) -> tuple[tuple[DN, str, tuple[Part, ...]], ...]:
    """The three entries that an empty configuration has: name, class, attributes."""
    return (
        (root, ROOT, (("cn", ROOT_NAME), ("description", "DICOM configuration (PS3.15 Annex H)"))),
        (devices_dn(root), DEVICES_ROOT, (("cn", DEVICES_NAME),)),
        (registry_dn(root), REGISTRY_ROOT, (("cn", REGISTRY_NAME),)),
    )


_ABOUT_STANDARD = """\
PS3.15 H.1.3, the schema of DICOM configuration, from the tables of modality-gateway.
The OID printed twice (3.31) is dicomSupportedCharacterSet; dicomInstitutionDepartmentType, in no class, is left out."""
_ABOUT_OWN = """\
What modality-gateway adds to PS3.15 Annex H, in auxiliary classes, under an arc of its own. Load dicom first.
Without it the gateway reads and writes devices all the same; profiles and rules of access then stay in files."""


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in text.splitlines())


def _config_form(name: str, about: str, attributes: Iterable[AttributeType], classes: Iterable[ObjectClass]) -> str:
    """For `ldapadd` to a running OpenLDAP, or `slapadd -n0` to a new one."""
    lines = [f"dn: cn={name},cn=schema,cn=config", "objectClass: olcSchemaConfig", f"cn: {name}"]
    lines += [f"olcAttributeTypes: {row}" for row in attributes]
    lines += [f"olcObjectClasses: {row}" for row in classes]
    return _comment(about) + "\n".join(folded(line) for line in lines) + "\n"


def _schema_form(about: str, attributes: Iterable[AttributeType], classes: Iterable[ObjectClass]) -> str:
    """For `include` in a slapd.conf."""
    rows = [f"attributetype {row}" for row in attributes] + [f"objectclass {row}" for row in classes]
    return _comment(about) + "\n" + "\n".join(rows) + "\n"


def _init_tree() -> str:
    lines = [_comment("The empty configuration below a DN that exists; put yours in place of the example's.")]
    for dn, kind, attributes in init_entries(root_dn(DN((((("dc", "hospital"),)), (("dc", "example"),))))):
        lines += [f"dn: {dn}", f"objectClass: {kind}", *(f"{name}: {value}" for name, value in attributes), ""]
    return "\n".join(lines)


_README = f"""\
# Devices in LDAP: what to load into the server

Generated from the tables of modality-gateway, and tested with OpenLDAP 2.5.

| File | Is |
| --- | --- |
| `dicom.ldif` | the schema of PS3.15 H.1.3 for a server that keeps its configuration in `cn=config` |
| `gateway.ldif` | what the gateway adds: classes `{OWN_AE}` and `{OWN_CONNECTION}`, both auxiliary |
| `init-tree.ldif` | the empty configuration: root, devices, registry of AE titles |
| `dicom.schema`, `gateway.schema` | the same two schemas for a server with a `slapd.conf` |

A server that has dcm4chee's `dicom.ldif` already needs only `gateway.ldif`; one without `gateway.ldif` will do as long
as no device has a profile or rules. On the machine of the server, as root:

```sh
ldapadd -Q -Y EXTERNAL -H ldapi:/// -f dicom.ldif
ldapadd -Q -Y EXTERNAL -H ldapi:/// -f gateway.ldif
ldapadd -x -W -D cn=admin,dc=hospital,dc=example -f init-tree.ldif   # after putting your DN into it
```

What else the server should have, each with what is seen without it:

- For the gateway's account, `olcLimits: dn.exact="..." size=unlimited`. OpenLDAP gives 500 entries otherwise, also page
  by page, and the gateway refuses a directory that is cut off.
- The overlay `syncprov` on the database, so that it keeps `contextCSN`. Otherwise the gateway looks through all entries
  to see whether one has changed.
- `olcDbIndex: objectClass eq`, `dicomAETitle eq`, `dicomDeviceName eq`. Otherwise every search reads everything.
- Only who maintains devices may write below the configuration; the gateway needs to read, and to write only for
  `gateway devices push`, `publish` and `reserve`.
"""


def folded(line: str) -> str:
    """A line of LDIF in lines of at most 76 characters (RFC 2849)."""
    pieces = [line[:76]] + [f" {line[start : start + 75]}" for start in range(76, len(line), 75)]
    return "\n".join(pieces)


def render() -> dict[str, str]:
    """File name in `config/ldap` -> its text."""
    standard, own = (STANDARD_ATTRIBUTES, STANDARD_CLASSES), (OWN_ATTRIBUTES, OWN_CLASSES)
    return {
        "README.md": _README,
        "dicom.ldif": _config_form("dicom", _ABOUT_STANDARD, *standard),
        "dicom.schema": _schema_form(_ABOUT_STANDARD, *standard),
        "gateway.ldif": _config_form("gateway", _ABOUT_OWN, *own),
        "gateway.schema": _schema_form(_ABOUT_OWN, *own),
        "init-tree.ldif": _init_tree(),
    }


def write(folder: Path) -> None:
    """Write the files to where they belong."""
    folder.mkdir(exist_ok=True)
    for name, text in render().items():
        (folder / name).write_text(text, encoding="ascii")


if __name__ == "__main__":
    write(Path(__file__).resolve().parents[2] / "config" / "ldap")
