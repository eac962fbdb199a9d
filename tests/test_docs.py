"""What the documentation shows is what the code takes, and the pages that are named exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edgemed.recipe.schema import load_recipe

REPO = Path(__file__).resolve().parent.parent
PAGES = sorted((REPO / "docs").glob("*.md"))


def test_the_recipe_shown_is_a_recipe(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", (REPO / "docs" / "recipes.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "shown.toml").write_text(block, encoding="utf-8")
    recipe = load_recipe(tmp_path / "shown.toml")
    assert [step.op for step in recipe.input.steps] == ["window", "resize", "zscore"]
    assert recipe.output.class_names == ("normal", "pneumonia")


def test_every_key_of_a_recipe_is_described() -> None:
    page = (REPO / "docs" / "recipes.md").read_text(encoding="utf-8")
    schema = json.loads((REPO / "edgemed" / "schemas" / "recipe.schema.json").read_text(encoding="utf-8"))
    keys = {key for part in schema["$defs"].values() for key in part.get("properties", ())}
    words = {
        part["properties"]["op"]["const"] for part in schema["$defs"].values() if "op" in part.get("properties", ())
    }
    named = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`[^`]+`", page.replace("```", "")))))
    assert (keys | words) - named - {"op"} == set()


def test_pages_named_in_the_code_exist() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (REPO / "edgemed").rglob("*.py"))
    named = set(re.findall(r"docs/[a-z-]+\.md", code))
    assert "docs/recipes.md" in named
    assert all((REPO / page).is_file() for page in named)


@pytest.mark.parametrize("page", [*PAGES, REPO / "README.md"], ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken


def test_the_index_lists_every_page() -> None:
    index = (REPO / "docs" / "README.md").read_text(encoding="utf-8")
    assert {f"({page.name})" in index for page in PAGES if page.name != "README.md"} == {True}


def test_the_map_of_rooms_has_every_room() -> None:
    table = (REPO / "docs" / "development.md").read_text(encoding="utf-8")
    rooms = [path.parent.name for path in (REPO / "edgemed").glob("*/__init__.py")]
    assert [room for room in rooms if f"| `{room}` |" not in table] == []


def test_the_commands_of_the_readme_are_those_of_the_help() -> None:
    from typer.main import get_command

    from edgemed.cli.app import app

    root = get_command(app)
    known = {
        name if not hasattr(command, "commands") else f"{name} {sub}"
        for name, command in root.commands.items()
        for sub in getattr(command, "commands", [""])
    }
    rows = re.findall(r"^\| `edgemed ((?:[a-z]+ ?)+)", (REPO / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {row.strip() for row in rows} == known
