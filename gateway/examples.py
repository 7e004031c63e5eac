"""The example site that travels with the package: configuration, devices, mappings, catalogue, golden cases."""

import shutil
from importlib.resources import files
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent


def folder(name: str) -> Path:
    """The folder `config` or `mappings`: of the checkout we run in, else of the installed package."""
    in_checkout = _CHECKOUT / name
    if in_checkout.is_dir() and (_CHECKOUT / "pyproject.toml").is_file():
        return in_checkout
    return Path(str(files("gateway"))) / "site" / name


def lay_out(target: Path) -> list[Path]:
    """Copy the example site to `target`. Raises FileExistsError rather than overwrite anything."""
    plan = [(source, target / source.name) for source in sorted(folder("config").glob("*.yaml"))]
    plan += [(folder("config") / name, target / name) for name in ("schemas", "ldap")]
    plan += [(folder("mappings"), target / "mappings")]
    for _, destination in plan:
        if destination.exists():
            raise FileExistsError(str(destination))
    target.mkdir(parents=True, exist_ok=True)
    for source, destination in plan:
        if source.is_dir():
            shutil.copytree(source, destination)
        else:
            shutil.copy(source, destination)
    return [destination for _, destination in plan]
