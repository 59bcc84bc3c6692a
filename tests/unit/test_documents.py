"""What the documents tell people to type exists: commands, options, targets, settings, files."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from stocks_assets.cli import app
from stocks_assets.domain.outcomes import Refused

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
HISTORY = {"DECISIONS.md"}  # what it says of the past need not hold today
SETTINGS = ROOT / ".env.example"
CODE = re.compile(r"```(?:sh|bash|console)\n(.*?)```|`([^`\n]+)`", re.DOTALL)


def snippets(document: Path) -> list[str]:
    """Return the lines of code in a document, comments taken out."""
    lines = []
    for block, inline in CODE.findall(document.read_text()):
        lines += [line for line in (block or inline).splitlines() if not line.startswith("#")]
    return lines


def stocks_commands() -> list[tuple[str, str]]:
    found = set()
    for document in DOCUMENTS:
        for line in snippets(document):
            for command in re.split(r"\||&&|;", line.split(" #")[0]):
                words = command.strip().removeprefix(".venv/bin/")
                if words.startswith("stocks ") and words[7:8].islower() and "`" not in words:
                    found.add((document.name, words))
    return sorted(found)


@pytest.mark.parametrize(("document", "line"), stocks_commands())
def test_a_command_that_a_document_names_is_one_and_takes_its_options(document, line):
    words = shlex.split(line)[1:]
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words, line
        name, *words = words
        assert name in command.commands, f"{document}: {line}"
        command = command.commands[name]
    if words:
        # Parses names and options, and converts values; nothing is run.
        command.make_context(name, list(words)).close()


def test_documents_name_commands_at_all():
    assert len(stocks_commands()) > 30


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_target_that_a_document_names_is_in_the_makefile(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in snippets(document):
        if line.startswith("make "):
            words = shlex.split(line.split(" #")[0])[1:]
            named = {word for word in words if not re.search(r"[=/]", word)}
            assert named <= targets, f"{document.name}: {line}"


@pytest.mark.parametrize(
    "document", [d for d in DOCUMENTS if d.name not in HISTORY], ids=lambda path: path.name
)
def test_a_setting_that_a_document_names_is_listed_among_the_settings(document):
    listed = set(re.findall(r"\b(?:STOCKS|ALPHA_VANTAGE)_[A-Z0-9_]+", SETTINGS.read_text()))
    named = set(re.findall(r"\b(?:STOCKS|ALPHA_VANTAGE)_[A-Z0-9_]+[A-Z0-9]", document.read_text()))
    outside = {"STOCKS_TEST_DATA", "STOCKS_TEST_BROWSER"}  # the tests' own
    assert named - outside <= listed


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_document_overwrites_the_file_that_has_the_generated_passwords(document):
    """They are those of the volumes, and of nothing else."""
    for line in snippets(document):
        assert not re.search(r"(?<!>)>\s*\.env\b(?!\.)", line), f"{document.name}: {line}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_file_that_a_document_links_to_is_there(document):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in link:
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def kinds(refusal: type[Refused]) -> set[str]:
    names = {refusal.__name__}
    return names.union(*(kinds(child) for child in refusal.__subclasses__()))


def test_the_runbook_knows_every_kind_of_refusal():
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    table = runbook.partition("## The vendor refuses")[2].partition("\n## ")[0]
    assert kinds(Refused) - {"Refused"} == set(re.findall(r"`([A-Z][a-z]\w+)`", table))
