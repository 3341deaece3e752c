"""Who may import whom: the table of the design, held by reading every import statement."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("train", "evaluate", "predict", "prepare", "study", "inspect", "report", "select", "export")
SHARED = ("evaluation", "previews", "runs", "sharing", "training", "warm_start")
ENTRY_POINTS = (*COMMANDS, *SHARED, "command", "__main__", "cli")
ALLOWED = {
    "types": set(),
    "text": {"types"},
    "locks": {"types"},
    "processes": set(),
    "ranks": {"types"},
    "config": {"types", "config"},
    "recipes": {"config"},
    "catalog": {"types", "config", "recipes", "catalog"},
    "presets": {"types", "config", "recipes", "catalog"},
    "method": {"types", "config", "recipes", "catalog", "kernels", "ranks", "method"},
    "data": {"types", "text", "locks", "config", "processes", "data"},
    "models": {"types", "config", "kernels", "models"},
    "engine": {"types", "text", "config", "engine"},
    "prediction": {"types", "text", "config", "data", "models", "engine", "kernels", "evaluation", "prediction"},
    "selection": {"types", "config", "data", "engine", "models", "kernels", "selection"},
    "exporting": {"types", "text", "config", "data", "models", "engine", "exporting"},
    "studies": {
        "types",
        "text",
        "locks",
        "processes",
        "config",
        "data",
        "engine",
        "cli",
        "runs",
        "train",
        "prediction",
        "studies",
    },
    "reports": {
        "types",
        "text",
        "config",
        "presets",
        "data",
        "models",
        "engine",
        "cli",
        "runs",
        "evaluation",
        "prediction",
        "studies",
        "reports",
    },
}
EXTRA = {"engine/metrics.py": {"kernels"}}


def imported_rooms(path: Path, package: tuple[str, ...]) -> set[str]:
    """First name below `iidm` of everything a file imports; relative imports are resolved."""
    return imported_names(path, package, "iidm.")


def imported_names(path: Path, package: tuple[str, ...], below: str) -> set[str]:
    """First name below `below` of everything a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, node.module or "")).strip(".")
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "iidm" else [module]
        else:
            continue
        found |= {name.removeprefix(below).split(".")[0] for name in names if name.startswith(below)}
    return found


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    place = ROOT / "iidm" / room
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files
    for file in files:
        relative = file.relative_to(ROOT / "iidm")
        package = ("iidm", *relative.parts[:-1])
        allowed = ALLOWED[room] | EXTRA.get(str(relative), set())
        assert imported_rooms(file, package) <= allowed, file


DATA_FLOORS = (
    "files",
    "labels",
    "annotating",
    "specs",
    "scenes",
    "prepared",
    "datasets",
    "loading",
    "preparation",
    "inspection",
)
"""The rooms of the data, lowest first: each imports only those before it."""


def test_the_data_rooms_stand_on_each_other() -> None:
    data = ROOT / "iidm" / "data"
    assert {p.name for p in data.iterdir() if (p / "__init__.py").exists()} == set(DATA_FLOORS)
    assert [p.name for p in data.glob("*.py")] == ["__init__.py"]
    for floor, name in enumerate(DATA_FLOORS):
        for file in sorted((data / name).rglob("*.py")):
            package = ("iidm", *file.relative_to(ROOT / "iidm").parts[:-1])
            above = set(DATA_FLOORS[floor + 1 :])
            assert not imported_names(file, package, "iidm.data.") & above, file


def test_kernels_import_nothing_of_iidm() -> None:
    for file in sorted((ROOT / "kernels").rglob("*.py")):
        package = ("iidm", "kernels", *file.relative_to(ROOT / "kernels").parts[:-1])
        assert imported_rooms(file, package) <= {"kernels"}, file


def test_every_room_stands_in_the_table() -> None:
    rooms = {p.stem for p in (ROOT / "iidm").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - {"__init__"} == set(ALLOWED) | set(ENTRY_POINTS)


def test_entry_points_read_like_a_page() -> None:
    for name in COMMANDS:
        assert len((ROOT / "iidm" / f"{name}.py").read_text().splitlines()) <= 200, name
