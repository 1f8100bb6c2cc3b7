"""What the README shows is what is there."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

from insightv.config.settings import check_settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.rstrip("\n").split("\n"))


def test_the_custom_scorer_stands_in_the_readme_as_it_is() -> None:
    for name in ("insightv_brevity.py", "pyproject.toml"):
        assert indented((ROOT / "examples" / "custom_scorer" / name).read_text(encoding="utf-8")) in README, name


def test_the_settings_shown_are_valid() -> None:
    import tomllib

    found = re.search(r"(?m)^    seed = 0\n(?:    .*\n)+", README)
    assert found is not None
    settings = check_settings(tomllib.loads(textwrap.dedent(found[0])))
    assert [table.use for table in settings.scorers] == ["answer", "path"]


def test_the_python_shown_uses_public_names() -> None:
    found = re.search(r"(?m)^    from insightv import .*\n(?:    .*\n)+", README)
    assert found is not None
    tree = ast.parse(textwrap.dedent(found[0]))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    import insightv

    assert names
    assert all(hasattr(insightv, name) for name in names)


def test_every_room_and_every_file_on_the_map_is_there() -> None:
    tree = README[README.index("## The map") : README.index("## Building")]
    rooms = {path.parent.name for path in (ROOT / "insightv").glob("*/__init__.py")}
    assert {name for name in rooms if f"  {name}/ " not in tree} == set()
    room = ROOT / "insightv"
    for line in re.findall(r"(?m)^ {4,10}(\S.*)$", tree):
        name = line.split()[0]
        if name.endswith("/") and "  " in line:
            found = list((ROOT / "insightv").rglob(name.rstrip("/"))) or [ROOT / name.rstrip("/")]
            room = found[0]
            assert room.is_dir(), name
        for file in re.findall(r"\b(\w+\.py)\b", line):
            assert (room / file).is_file() or (ROOT / "insightv" / file).is_file(), f"{room.name}: {file}"
