"""Names of connections that mean the same address, brought together.

A file like devices.yaml need not name connections; another tool has names of its own for the same addresses. Whoever
carries a device from one to the other wants the address, not a second connection beside the first.
"""

from dataclasses import replace

from gateway.domain.directory import DeviceEntry, Directory, NetworkConnection


def called_as_there(device: DeviceEntry, there: DeviceEntry) -> DeviceEntry:
    """The device, with its connections called as `there` calls those of the same protocol, host and port.

    A name that both use is left to the connection that has it in `device`.
    """
    own = {each.name for each in device.connections}
    free = [each for each in sorted(there.connections, key=lambda each: each.name) if each.name not in own]
    settled = {(each.name, _address(each)) for each in there.connections}
    names: dict[str, str] = {}
    for connection in device.connections:
        same = next((each for each in free if _address(each) == _address(connection)), None)
        if same is not None and (connection.name, _address(connection)) not in settled:
            free.remove(same)
            names[connection.name] = same.name
    if not names:
        return device
    return replace(
        device,
        connections=tuple(replace(each, name=names.get(each.name, each.name)) for each in device.connections),
        aes=tuple(
            replace(ae, connections=tuple(names.get(name, name) for name in ae.connections)) for ae in device.aes
        ),
    )


def all_called_as_there(directory: Directory, there: Directory) -> Directory:
    """The same for every device that both have; names of devices are the same whatever their case."""
    by_name = {device.name.casefold(): device for device in there.devices}
    return Directory(
        tuple(
            called_as_there(device, by_name[device.name.casefold()]) if device.name.casefold() in by_name else device
            for device in directory.devices
        )
    )


def _address(connection: NetworkConnection) -> tuple[str, str, int | None]:
    return connection.protocol.value, connection.host.casefold(), connection.port
