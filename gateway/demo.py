"""A radiology department's day in about a minute: a RIS, an EHR, modalities, a PACS, the service as its own process.

Everything is real: HL7 v2 over MLLP, FHIR over HTTP, DICOM over TCP, a database file, and a kill in
the middle. The people are not.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.edges.tls import client_context
from gateway.testing import (
    Acknowledgement,
    Draft,
    EHRRefused,
    ImagingOrder,
    Person,
    ReceivedMessage,
    ServiceFailed,
    ServiceProcess,
    SimulatedEHR,
    SimulatedModality,
    SimulatedRIS,
    SimulatedRISReceiver,
    StatusError,
    appointment,
    bare_orm,
    cancel,
    free_port,
    invented_person,
    merge_patients,
    omi,
    order_bundle,
    rad4_orm,
    register,
    site,
)
from gateway.testing.ehr import ORDERS, PATIENTS
from gateway.testing.modality import performed_step
from gateway.testing.performed_receiver import PerformedReceiver

TOLD: Mapping[tuple[str, str], str] = {
    ("SC", "IP"): "in process",
    ("SC", "CM"): "completed",
    ("SC", "SC"): "scheduled again",
}
"""What the RIS reads in ORC-1 and ORC-5."""

REGISTRY = """\
# Who may call. An entry binds an AE title to what nobody else has.
devices:
  - ae_title: CT1
    types: [CT]
    addresses: [127.0.0.1]
  - ae_title: MR1
    types: [MR]
    certificates: ["subject:MR1"]
"""
"""The CT speaks without TLS, and is bound to its address; the MR is bound to its certificate."""

TOLD_WITHIN_S = 20.0
"""A loaded machine takes its time; an idle one needs a tenth of a second."""


class Surprise(Exception):  # noqa: N818  (reads as what happened)
    """The day did not go as it should; the message says what was expected."""


def play(console: Console) -> int:
    """Run the day. Returns the exit code: 0 if everything went as told, 1 otherwise."""
    began = time.monotonic()
    pacs = PerformedReceiver("PACS", port=free_port())
    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder, SimulatedRISReceiver() as ris:
        try:
            _make_certificates(Path(folder))
            tls_port = free_port()
            service = ServiceProcess(_site(Path(folder), ris, pacs, tls_port))
            with service, pacs:
                _Day(console, service, ris, pacs, tls_port).play()
        except (Surprise, ServiceFailed, StatusError, EHRRefused, OSError) as error:
            console.print(f"\nThis should not have happened: {error}", style="red", markup=False)
            return 1
    console.print(f"\nThe day took {time.monotonic() - began:.0f} seconds. How to go on:", highlight=False)
    for command, meaning in (
        ("make run", "lay out a site in ./site and run the gateway on it, with its ports printed"),
        (
            ".venv/bin/gateway explain --config site/gateway.yaml MESSAGE.hl7",
            "what one of your own orders would become",
        ),
        (".venv/bin/gateway --help", "everything else; docs/tutorial.md takes it step by step"),
    ):
        console.print(f"  [bold]{command}[/bold]\n      {meaning}", highlight=False)
    return 0


def _make_certificates(folder: Path) -> None:
    """An authority and two certificates, by the commands that a pilot uses (docs/how-to/from-plain-to-tls.md)."""
    here = ("--ca", str(folder / "ca"), "--out", str(folder / "tls"))
    for arguments in (
        ("ca", str(folder / "ca")),
        ("issue", "gateway", "--ae", "GATEWAY", "--address", "127.0.0.1", *here),
        ("issue", "mr1", "--ae", "MR1", "--client", *here),
    ):
        made = subprocess.run(  # noqa: S603  (our own command line)
            [sys.executable, "-m", "gateway", "certs", *arguments], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise Surprise(f"certificates were to be made: {made.stderr.strip()}")


def _site(folder: Path, ris: SimulatedRISReceiver, pacs: PerformedReceiver, tls_port: int) -> Path:
    """The configuration: who may call, who is told what, and whose numbers patient IDs are."""
    here = "127.0.0.1"
    (folder / "devices.yaml").write_text(REGISTRY, encoding="utf-8")
    return site(
        folder,
        tls={"certificate": "tls/gateway.pem", "key": "tls/gateway.key", "ca": "ca/ca.pem", "crl": "ca/crl.pem"},
        dicom={"tls": {"port": tls_port}},
        devices={"file": "devices.yaml", "unknown": "ask"},
        hl7=[{"name": "ris", "host": here, "port": free_port(), "mapping": "ihe-swf", "issuer": "HOSPITAL"}],
        destinations=[
            {"name": "ris", "host": here, "port": ris.port, "application": "RIS", "status": {"mapping": "status-orm"}},
            {"name": "pacs", "host": here, "port": pacs.port, "performed": {"ae_title": "PACS"}, "retry_most_s": 1},
        ],
        fhir={},
        issuers=[{"name": "HOSPITAL", "fhir": [PATIENTS]}],  # so a patient of the RIS is the EHR's
        timezone="",  # the machine's, which the modalities have as well
    )


class _Day:
    def __init__(
        self,
        console: Console,
        service: ServiceProcess,
        told: SimulatedRISReceiver,
        pacs: PerformedReceiver,
        tls_port: int,
    ) -> None:
        self._console = console
        self._service = service
        self._told, self._pacs = told, pacs
        self._shown: set[str] = set()
        self._step = 0
        self._messages = self._reports = 0
        self._ris = SimulatedRIS(service.host, service.hl7_port)
        self._ct = SimulatedModality(service.host, service.dicom_port, "CT1")
        folder = service.config.parent
        shown = (str(folder / name) for name in ("ca/ca.pem", "tls/mr1.pem", "tls/mr1.key"))
        self._mr = SimulatedModality(service.host, tls_port, "MR1", tls=client_context(*shown))
        self._tls_port = tls_port
        today = datetime.now().replace(hour=8, minute=0, second=0, microsecond=0)  # the department's wall clock
        anna, niels = invented_person(0), invented_person(3)
        hana = Person("PAT0000700", "Yamada^Hana^^^^^L^A~山田^花^^^^^L^I", datetime(1975, 6, 15).date(), "F")
        self._head = ImagingOrder(1, anna, today + timedelta(hours=1))
        self._abdomen = ImagingOrder(2, niels, today + timedelta(hours=2), code="CTABD", text="CT abdomen")
        self._brain = ImagingOrder(
            3, hana, today + timedelta(hours=1.5), "MR1", "MR", code="MRHEAD", text="MR head plain"
        )
        self._ultrasound = ImagingOrder(
            4, anna, today + timedelta(hours=3), "US1", "US", code="USABD", text="Ultrasound abdomen"
        )

    def play(self) -> None:
        """From the first patient to the summary."""
        self._say(
            "The gateway starts",
            f"One process, an empty database. HL7 v2 on port {self._service.hl7_port}, DICOM on "
            f"{self._service.dicom_port}, over TLS on {self._tls_port}, FHIR on {self._service.http_port},\n   "
            f"all on loopback. It tells the RIS by HL7 v2 on port {self._told.port} and the PACS by DICOM on "
            f"{self._pacs.port} what becomes of orders.",
        )
        self._orders_come()
        self._modalities_ask()
        self._the_door_opens_to_whom_it_should()
        self._ris_changes_its_mind()
        self._messages_overtake_each_other()
        self._someone_asks_why()
        self._the_interface_engineer_looks()
        self._a_scan_is_cut_short_by_a_power_failure()
        self._an_examination_is_broken_off()
        self._nobody_had_ordered_it()
        self._an_ehr_orders_by_fhir()
        self._two_patients_are_one()
        self._pacs_has(self._reports)
        self._console.print(
            f"\n[bold]Summary[/bold]: {self._messages} HL7 messages answered, {self._reports} MPPS reports taken and "
            f"passed on to the PACS, the RIS told {len(self._shown)} times, one crash, nothing lost.",
            highlight=False,
        )

    def _orders_come(self) -> None:
        self._say("The RIS registers patients and sends orders, in three dialects")
        self._send("a patient (ADT^A04)", register(self._head.person))
        self._send("head CT: everything in the message (ORM^O01, RAD-4)", rad4_orm(self._head))
        self._send("abdomen CT: a bare procedure code; the catalogue knows the rest (ORM^O01)", bare_orm(self._abdomen))
        self._send("brain MR: version 2.5.1, a Japanese name (OMI^O23)", omi(self._brain))
        self._send("ultrasound (ORM^O01, RAD-4)", rad4_orm(self._ultrasound))
        self._say("One message is broken: it has no patient ID. The sender learns what, where, and what to do")
        broken = rad4_orm(self._head)
        nobody = Draft(broken.message_type, broken.version, ("PID|1||||Nobody^At^All", *broken.segments[1:]))
        answer = self._send("an order for nobody", nobody, expected="AE")
        for error in answer.errors:
            self._console.print(f"      {error}", markup=False, highlight=False)

    def _modalities_ask(self) -> None:
        self._say("The CT asks for its own station's list of today")
        self._look(self._ct, "CT1", 2, ScheduledStationAETitle="CT1", **self._today())
        self._say("The MR asks broadly, for everything of today, over TLS and with its own certificate")
        self._look(self._mr, "MR1", 4, **self._today())

    def _the_door_opens_to_whom_it_should(self) -> None:
        self._say(
            "Somebody calls himself MR1 without its certificate, and a new ultrasound that nobody registered asks",
            "Both are rejected, and remembered for a person to look at.",
        )
        for ae_title in ("MR1", "US1"):
            self._is_rejected(ae_title)
        self._wait_until(lambda: len(self._knocks()) == 2, "both callers were to be remembered")
        self._ask("devices", "knocks")
        self._say("The ultrasound is approved, bound to the address it called from; it is served from the reload on")
        self._ask("devices", "approve", "US1", "--here", "--description", "Ultrasound, room 4")
        self._service.reload()
        us = SimulatedModality(self._service.host, self._service.dicom_port, "US1")
        self._wait_until(lambda: _let_in(us), "US1 was to be let in")
        self._look(us, "US1", 1, ScheduledStationAETitle="US1", **self._today())
        self._ask("devices", "list")

    def _is_rejected(self, ae_title: str) -> None:
        if _let_in(SimulatedModality(self._service.host, self._service.dicom_port, ae_title)):
            raise Surprise(f"{ae_title} was to be rejected")
        self._console.print(f"   [yellow]rejected[/yellow]  {ae_title}, from 127.0.0.1, without TLS", highlight=False)

    def _knocks(self) -> Sequence[object]:
        """Who was not let in, as `gateway devices knocks` has it."""
        said = json.loads(self._run("devices", "knocks", "--json").stdout or "[]")
        return said if isinstance(said, list) else []

    @staticmethod
    def _wait_until(happened: Callable[[], bool], expected: str) -> None:
        deadline = time.monotonic() + TOLD_WITHIN_S
        while not happened():
            if time.monotonic() > deadline:
                raise Surprise(f"{expected} within {TOLD_WITHIN_S:g} s")
            time.sleep(0.05)

    def _ris_changes_its_mind(self) -> None:
        self._say("The RIS moves the head CT by two hours and cancels the ultrasound; the next query shows it")
        self._head = self._head.moved(self._head.start + timedelta(hours=2))
        self._send("head CT, new time (XO)", rad4_orm(self._head, "XO"))
        self._send("ultrasound, cancelled (CA)", cancel(self._ultrasound))
        self._look(self._mr, "MR1", 3, **self._today())

    def _messages_overtake_each_other(self) -> None:
        self._say("The appointment system moves the brain MR, which the RIS ordered (SIU^S13)")
        self._brain = self._brain.moved(self._brain.start + timedelta(minutes=45))
        self._send("the appointment, 45 minutes later", appointment(self._brain))
        self._look(self._mr, "MR1", 1, ScheduledStationAETitle="MR1")
        self._say("A cancel overtakes its order. It is kept, and acts when the order comes: nothing is listed")
        chest = ImagingOrder(5, self._head.person, self._head.start, "CR1", "CR", code="CRCHEST", text="Chest 2 views")
        self._send("chest X-ray, cancelled: nobody knows it yet", cancel(chest), expected="AE")
        minute_ago = datetime.now(UTC) - timedelta(minutes=1)
        self._send("chest X-ray, the order, made a minute before", rad4_orm(chest), made=minute_ago)
        self._look(self._mr, "MR1", 3, **self._today())

    def _the_interface_engineer_looks(self) -> None:
        self._say("The interface engineer looks for what was refused today, and what a cancel had to wait for")
        self._ask("messages", "list", "--outcome", "refused", "--since", "today")
        self._ask("messages", "list", "--type", "ORM^O01", "--accession", "A000000005")

    def _someone_asks_why(self) -> None:
        self._say(
            "The CT's technologist misses the brain MR, and the ultrasound's the patient: why are they not on the list?"
        )
        self._look(self._ct, "CT1", 2, ScheduledStationAETitle="CT1", **self._today())
        SimulatedModality(self._service.host, self._service.dicom_port, "US1").worklist(**self._today())
        for modality, order in (("CT1", self._brain), ("US1", self._ultrasound)):
            self._why(modality, order)

    def _why(self, ae_title: str, order: ImagingOrder) -> None:
        """What `gateway worklist why` says, as a person at the gateway would ask."""
        said = self._ask("worklist", "why", "--as", ae_title, "--accession", order.accession)
        if "No" not in said and "not" not in said:
            raise Surprise("a reason was expected")

    def _ask(self, *arguments: str) -> str:
        """What a command of `gateway` prints, as a person at its terminal would see it."""
        self._console.print(f"   [dim]gateway {' '.join(arguments)}[/dim]", highlight=False)
        said = self._run(*arguments)
        for line in said.stdout.splitlines():
            self._console.print(f"      {line}", markup=False, highlight=False)
        return said.stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603  (our own command line)
            [sys.executable, "-m", "gateway", *arguments, "--config", str(self._service.config)],
            capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "140"},
        )  # fmt: skip

    def _a_scan_is_cut_short_by_a_power_failure(self) -> None:
        self._pacs.stop()
        self._say(
            "The CT starts the head scan and reports it (MPPS N-CREATE, IN PROGRESS): the item stays, STARTED",
            "The RIS is told at once. The PACS is switched off: what it would get waits, and delays nobody.",
        )
        (item,) = self._ct.worklist(AccessionNumber=self._head.accession)
        scan = self._ct.start(item)
        self._reports += 1
        self._look(self._ct, "CT1", 2, ScheduledStationAETitle="CT1")
        self._ris_is_told(self._head, "IP")
        self._ask("queues")
        self._say("Power failure: the service is killed (SIGKILL) and started again on the same database")
        began = time.monotonic()
        self._service.kill()
        self._service.start()
        self._ris.close()
        self._console.print(
            f"   back after {time.monotonic() - began:.1f} s; everything that was acknowledged is there:",
            highlight=False,
        )
        self._look(self._mr, "MR1", 3, **self._today())
        self._say("The PACS is switched on again, and gets the report that was made before the failure")
        self._pacs.start()
        self._pacs_has(self._reports)
        self._say("The scan that began before the failure is completed (MPPS N-SET, COMPLETED): the item leaves")
        self._ct.complete(scan)
        self._reports += 1
        self._look(self._ct, "CT1", 1, ScheduledStationAETitle="CT1")
        self._ris_is_told(self._head, "CM")
        self._pacs_has(self._reports)

    def _an_examination_is_broken_off(self) -> None:
        self._say("The MR starts and breaks off: equipment failure (110501). The item returns to be done again")
        (item,) = self._mr.worklist(ScheduledStationAETitle="MR1")
        scan = self._mr.start(item)
        self._ris_is_told(self._brain, "IP")
        self._mr.discontinue(scan, "110501")
        self._reports += 2
        self._look(self._mr, "MR1", 1, ScheduledStationAETitle="MR1")
        self._ris_is_told(self._brain, "SC")

    def _nobody_had_ordered_it(self) -> None:
        self._say(
            "Emergency: the CT scans a patient for whom nothing was ordered. The report is taken and kept",
            "It names no order, so there is nothing to tell the RIS yet. The PACS gets it as it is.",
        )
        trauma = ImagingOrder(6, invented_person(8), datetime.now(), "CT1", code="CTTHX", text="CT chest")
        scan = "2.25.600000006"
        self._ct.create(scan, performed_step(_typed_at_the_scanner(trauma.person), "CT1", trauma.start))
        self._ct.complete(scan)
        self._reports += 2
        self._say("The order comes afterwards, with other numbers. A person at the reconciliation desk links the two")
        self._send("chest CT (ORM^O01, RAD-4)", rad4_orm(trauma))
        self._ask("performed", "list", "--attention", "no-order")
        self._ask("performed", "propose", scan)
        self._ask("performed", "link", scan, "--accession", trauma.accession)
        self._ris_is_told(trauma, "CM")

    def _an_ehr_orders_by_fhir(self) -> None:
        order = ImagingOrder(7, self._head.person, self._head.start + timedelta(hours=3))
        with SimulatedEHR(f"http://{self._service.host}:{self._service.http_port}/fhir") as ehr:
            self._say(
                "The EHR speaks FHIR R4: it subscribes to what becomes of orders, and sends one (a transaction Bundle)",
                "The patient is one whom the RIS registered by HL7: the numbers are known to be of one authority.",
            )
            ehr.subscribe("order-status")
            for entry in ehr.send(order_bundle(order))["entry"]:
                made = entry["response"]
                self._console.print(
                    f"   [green]{made['status']}[/green]  {made['location'].partition('/')[0]}", highlight=False
                )
            listed = self._look(self._ct, "CT1", 2, ScheduledStationAETitle="CT1")
            self._say("The CT does it (MPPS). The EHR is told, and reads what has become of its order")
            (item,) = (each for each in listed if each.PatientID == order.person.patient_id)
            scan = self._ct.start(item)
            self._ris_is_told(order, "IP")
            self._ct.complete(scan)
            self._reports += 2
            self._ris_is_told(order, "CM")
            (request,) = ehr.find("ServiceRequest", identifier=f"{ORDERS}|{order.placer}")
            self._ehr_reads(ehr, request)

    def _ehr_reads(self, ehr: SimulatedEHR, request: Mapping[str, Any]) -> None:
        """Wait until the EHR was told of its order, and show what it finds then."""
        named = f"ServiceRequest/{request['id']}"
        self._wait(ehr.wait_for, lambda: ehr.told_of(named) > 0, "the EHR was to be notified")
        (study,) = ehr.find("ImagingStudy", basedon=named)
        self._console.print("   What the EHR reads:", style="dim", highlight=False)
        self._console.print(
            f"    ServiceRequest {request['identifier'][0]['value']}: [green]{request['status']}[/green]\n"
            f"    ImagingStudy {study['description']}: [green]{study['status']}[/green], "
            f"{study['numberOfSeries']} series, began {study['started'][11:16]}",
            highlight=False,
        )
        if request["status"] != "completed":
            raise Surprise("the ServiceRequest was to be completed")

    def _ris_is_told(self, order: ImagingOrder, status: str) -> None:
        """Wait until the RIS was told of this order, and show what of it matters."""

        def new() -> list[ReceivedMessage]:
            # What was told shortly before the failure may come again, with the same control ID.
            return [each for each in self._told.received if each.control_id not in self._shown]

        self._wait(self._told.wait_for, lambda: bool(new()), f"the RIS was to be told {status}")
        (message,) = new()
        self._shown.add(message.control_id)
        said = message.text("ORC-1"), message.text("ORC-5")
        self._console.print("   What the RIS is told:", style="dim", highlight=False)
        self._console.print(
            f"    {message.message_type}, order {message.text('ORC-2')}: {' '.join(said)}, "
            f"[green]{TOLD.get(said, 'unknown')}[/green]"
            + _more("reason:", message.text("ORC-16.2"))
            + _more("began", _clock(message.text("OBR-7")))
            + _more("ended", _clock(message.text("OBR-8"))),
            highlight=False,
        )
        if (message.text("ORC-2"), said[1]) != (order.placer, status):
            raise Surprise(f"the RIS was to be told {status} of {order.placer}")

    def _pacs_has(self, reports: int) -> None:
        """Wait until the PACS was told so much, and show the performed steps that it has."""
        reported = self._pacs.reported
        self._wait(self._pacs.wait_for, lambda: len({(each.operation, each.uid) for each in reported}) >= reports,
                   f"the PACS was to get {reports} reports")  # fmt: skip
        self._console.print("   What the PACS has:", style="dim", highlight=False)
        for uid, state in self._pacs.steps.items():
            came = ", ".join(dict.fromkeys(each.operation for each in reported if each.uid == uid))
            self._console.print(f"    performed step ...{uid[-8:]}: {state} ({came})", highlight=False)

    @staticmethod
    def _wait(wait: Callable[[Callable[[], bool], float], None], happened: Callable[[], bool], expected: str) -> None:
        try:
            wait(happened, TOLD_WITHIN_S)
        except TimeoutError:
            raise Surprise(f"{expected} within {TOLD_WITHIN_S:g} s") from None

    def _two_patients_are_one(self) -> None:
        self._say("Two registrations were one person (ADT^A40): the open item shows the surviving ID at once")
        prior = self._abdomen.person
        surviving = Person("PAT0000999", prior.name, prior.birth_date, prior.sex)
        self._send("merge", merge_patients(surviving, prior))
        (item,) = self._look(self._ct, "CT1", 1, ScheduledStationAETitle="CT1")
        if item.PatientID != surviving.patient_id:
            raise Surprise(f"patient ID {surviving.patient_id} was expected")

    def _say(self, headline: str, detail: str = "") -> None:
        self._step += 1
        self._console.print(f"\n[bold cyan]{self._step:2}[/bold cyan] [bold]{headline}[/bold]", highlight=False)
        if detail:
            self._console.print(f"   {detail}", highlight=False)

    def _send(self, what: str, draft: Draft, expected: str = "AA", made: datetime | None = None) -> Acknowledgement:
        answer = self._ris.send(draft, made=made)
        self._messages += 1
        colour = "green" if answer.code == "AA" else "yellow"
        self._console.print(f"   [{colour}]{answer.code}[/{colour}]  {what}", highlight=False)
        if answer.code != expected:
            raise Surprise(f"{expected} was expected, not {answer.code} {answer.text}")
        return answer

    def _today(self) -> dict[str, str]:
        return {"ScheduledProcedureStepStartDate": self._head.start.strftime("%Y%m%d")}

    def _look(self, modality: SimulatedModality, name: str, expected: int, **keys: str) -> Sequence[Dataset]:
        """Query as this modality and show what its screen would."""
        items = modality.worklist(**keys)
        table = Table("Time", "Station", "Patient", "ID", "Procedure", "Status", box=None, pad_edge=False)
        for item in items:
            step = item.ScheduledProcedureStepSequence[0]
            time_of_day = str(step.ScheduledProcedureStepStartTime)
            stations = step.ScheduledStationAETitle
            table.add_row(
                f"{time_of_day[:2]}:{time_of_day[2:4]}",
                Text(stations if isinstance(stations, str) else ", ".join(stations)),
                Text(str(item.PatientName)),
                Text(str(item.PatientID)),
                Text(str(item.RequestedProcedureDescription)),
                Text(str(step.ScheduledProcedureStepStatus)),
            )
        self._console.print(Text(f"   What {name} sees:", style="dim"))
        grid = Table.grid(padding=(0, 0, 0, 3))
        grid.add_row("", table)
        self._console.print(grid)
        if len(items) != expected:
            raise Surprise(f"{expected} item(s) were expected, not {len(items)}")
        return items


def _let_in(modality: SimulatedModality) -> bool:
    try:
        modality.echo()
    except ConnectionError:
        return False
    return True


def _typed_at_the_scanner(person: Person) -> Dataset:
    """What a technologist types who finds no worklist item, in the form of one."""
    item = Dataset()
    item.StudyInstanceUID = generate_uid()
    item.PatientName, item.PatientID = person.name, person.patient_id
    item.PatientBirthDate, item.PatientSex = f"{person.birth_date:%Y%m%d}", person.sex
    step = Dataset()
    step.Modality, step.ScheduledProcedureStepDescription = "CT", "Trauma"
    item.ScheduledProcedureStepSequence = [step]
    return item


def _clock(stamp: str) -> str:
    """The time of day of an HL7 date and time."""
    return f"{stamp[8:10]}:{stamp[10:12]}" if len(stamp) >= 12 else ""


def _more(what: str, value: str) -> str:
    return f", {what} {value}" if value else ""
