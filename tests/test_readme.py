"""What the README shows is what is there."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

from insightv.config import check_settings

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


def test_every_module_stands_in_the_tree() -> None:
    tree = README[README.index("## The tree") :]
    hinted = ("cli_", "image_", "question_", "__", "py.typed")
    for path in sorted((ROOT / "insightv").iterdir()):
        name = path.name
        if not name.startswith(hinted) and (path.suffix == ".py" or path.is_dir()):
            assert (name if path.suffix else f"{name}/") in tree, name
