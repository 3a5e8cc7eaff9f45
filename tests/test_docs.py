"""Settings, commands and operators are documented, and what the documents name exists."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from clearspan.cli.main import COMMANDS, build
from clearspan.query.fields import FIELDS
from clearspan.query.operators import Operator
from clearspan.settings import settings_table

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
MARKDOWN = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "src").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    targets = LINK.findall(path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_settings_page_is_current() -> None:
    assert settings_table() in (DOCS / "settings.md").read_text()


def test_every_command_and_option_is_documented() -> None:
    page = (DOCS / "cli.md").read_text()
    missing = [words for words in command_words() if f"`{words}`" not in page]
    assert missing == []


def command_words() -> list[str]:
    """`clearspan serve`, `clearspan keys create`, … from the command line itself, and their long options."""
    found = []
    group = typer.main.get_command(build("*"))
    for name in COMMANDS:
        command = group.commands[name]  # type: ignore[attr-defined]
        for sub_name, sub in getattr(command, "commands", {None: command}).items():
            found.append(" ".join(filter(None, ("clearspan", name, sub_name))))
            found += [option for each in sub.params for option in each.opts if option.startswith("--")]
    return sorted(set(found))


def test_every_operator_and_field_is_documented() -> None:
    page = (DOCS / "filters.md").read_text()
    names = [operator.value for operator in Operator] + [field.name for field in FIELDS]
    assert [name for name in names if f"`{name}`" not in page] == []
    aliases = [alias for field in FIELDS for alias in field.aliases]
    assert [name for name in aliases if f"`{name}`" not in page] == []


def test_readmes_commands_are_valid_shell_with_valid_json() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    assert len(blocks) >= 3
    for block in blocks:
        for command in re.sub(r"\\\n", " ", block).splitlines():
            words = shlex.split(command, comments=True)
            if "-d" in words:
                json.loads(words[words.index("-d") + 1])


def test_the_first_screen_holds_the_two_commands_and_a_call() -> None:
    screen = "\n".join(README.splitlines()[:40])
    for needed in ("make run", "make test", "curl"):
        assert needed in screen


def test_decisions_keep_their_numbers_and_say_what_they_cost() -> None:
    records = sorted((DOCS / "adr").glob("*.md"))
    numbers = [path.name[:4] for path in records]
    assert len(records) >= 9
    assert len(set(numbers)) == len(numbers)
    for path in records:
        said = re.findall(r"(?m)^(?:## |\*\*)(Context|Decision|Cost|How it is tested|Held by)\b", path.read_text())
        assert len(set(said)) == 4, f"{path.name} says only {said}"


def test_the_map_names_files_that_exist() -> None:
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|md))`", (DOCS / "architecture.md").read_text())
    roots = (ROOT, ROOT / "src" / "clearspan")
    assert len(named) > 30
    assert [name for name in named if not any((root / name).is_file() for root in roots)] == []
