"""The figures of the package's structure, measured from its files and imports: `make house`.

A room is a folder or module at the package's root. Imports that only a type checker reads do not count.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

import grimp

PACKAGE = Path(__file__).parents[1] / "insightv"


def lengths() -> dict[str, int]:
    """Lines of each file."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {str(file.relative_to(PACKAGE)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}


def imports() -> dict[str, set[str]]:
    """Which module imports which others."""
    graph = grimp.build_graph("insightv", exclude_type_checking_imports=True)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def between_rooms(files: dict[str, set[str]]) -> dict[str, set[str]]:
    """Which room imports which others."""
    rooms: dict[str, set[str]] = {}
    for module, imported in files.items():
        room = room_of(module)
        rooms.setdefault(room, set()).update({room_of(other) for other in imported} - {room})
    return rooms


def room_of(module: str) -> str:
    """The room of a module: `insightv.runs` for `insightv.runs.store`."""
    return ".".join(module.split(".")[:2])


def circle_among(arrows: dict[str, set[str]]) -> list[str]:
    """The nodes of a circle, in order; none where there is no circle."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def floors(arrows: dict[str, set[str]]) -> int:
    """How many floors the rooms stand on, where each stands above all that it imports."""
    sorter = TopologicalSorter(arrows)
    sorter.prepare()
    count = 0
    while sorter.is_active():
        ready = sorter.get_ready()
        sorter.done(*ready)
        count += 1
    return count


def main() -> None:
    """Print the figures."""
    lines, files = lengths(), imports()
    rooms = between_rooms(files)
    longest = max(lines, key=lambda name: lines[name])
    print(f"modules at the root   {len(list(PACKAGE.glob('*.py'))) - 1} beside __init__.py")
    print(
        f"rooms                 {len(list(PACKAGE.glob('*/__init__.py')))}, on {floors(rooms)} floors with the modules"
    )
    print(f"arrows between rooms  {sum(map(len, rooms.values()))}")
    print(f"circles               rooms: {circle_among(rooms) or 'none'}; files: {circle_among(files) or 'none'}")
    print(f"files                 {len(lines)}, median {median(lines.values()):.0f} lines")
    print(f"longest file          {longest}, {lines[longest]} lines")
    print(f"lines of the product  {sum(lines.values()):,}")


if __name__ == "__main__":
    main()
