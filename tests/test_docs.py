"""What the documentation shows is what the code takes, and the pages that are named exist."""

from __future__ import annotations

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
    assert recipe.input.size == (224, 224)
    assert recipe.output.classes == ("normal", "pneumonia")


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
