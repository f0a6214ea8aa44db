"""That commands and tests which pages name are there.

Of a command each word is looked up that is a target, a file, a configuration, an option
of wardctl or a variable of ward's.
"""

import pathlib
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from repository import BUILD_FILES, PAGES, ROOT, SOURCES, Shown, rules, strings

# --- Commands ---

PROGRAM = r"(?:\./bazelw|bazel|wardctl|\.ci/run|(?:tools|benchmarks)/\w+(?:\.py)?)"
MODES = r"_(simulated|threaded|forked|exec|raced)$"
OPTIONS = "".join(
    (ROOT / name).read_text() for name in (".bazelrc", "tools/ward.bazelrc")
)


def commands(page: pathlib.Path) -> Iterator[Shown]:
    """Of indented blocks, lines that begin with a program; and such words elsewhere."""
    text = page.read_text()
    for found in re.finditer(
        rf"^    (?:\$ |cd .* && )?({PROGRAM}(?: (?:.*\\\n)*.*)?)$|`({PROGRAM} [^`]*)`",
        text,
        re.MULTILINE,
    ):
        line = text.count("\n", 0, found.start()) + 1
        yield Shown(page, line, "", (found[1] or found[2]).replace("\\\n", " "))


COMMANDS = [command for page in PAGES for command in commands(page)]


def is_target(label: str) -> bool:
    package, _, name = label.removeprefix("//").partition(":")
    if package.endswith("..."):
        return any(path.is_relative_to(package[:-3]) for path in BUILD_FILES)
    path = pathlib.Path(package)
    name = re.sub(MODES, "", name or path.name)
    return path in BUILD_FILES and name in strings(BUILD_FILES[path])


def is_known(program: str, word: str) -> bool:
    if word.startswith("//"):
        return word.startswith("//my:") or is_target(word)
    if word.startswith("--config="):
        return f":{word[9:]} " in OPTIONS
    if variable := re.match("--test_env=([A-Z_]+)", word):
        return any(f'"{variable[1]}"' in source for source in SOURCES.values())
    if program == "wardctl" and word.startswith("--"):
        return any(
            f'"{word[2:]}"' in source
            for path, source in SOURCES.items()
            if path.is_relative_to("tools/wardctl")
        )
    return True


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_commands_name_what_there_is(command: Shown) -> None:
    program, *words = shlex.split(command.text, comments=True)
    if "/" in program:
        assert (ROOT / program).exists()
    if program == "wardctl" and words:
        words[0] = "--" + words[0].removeprefix("--")
    assert [word for word in words if not is_known(program, word)] == []


# --- Figures ---


def test_the_readmes_figures_are_the_pages() -> None:
    pages = [(ROOT / "docs" / page).read_text() for page in ("calls.md", "performance.md")]
    measured = {cell.strip() for page in pages for cell in page.split("|")}
    section = (ROOT / "README.md").read_text().partition("## Beside others")[2]
    rows = re.findall(r"^\| .*", section.partition("\n## ")[0], re.MULTILINE)[2:]
    cells = [cell.strip() for row in rows for cell in row.strip("|").split("|")[1:]]
    figures = [cell for cell in cells if cell]
    assert len(figures) > 10
    assert [figure for figure in figures if figure not in measured] == []


# --- Tests that are named ---


class Named(NamedTuple):
    path: pathlib.Path
    target: str
    test: str

    def __str__(self) -> str:
        return f"{self.path}-{self.test}"


def named_tests(page: pathlib.Path) -> Iterator[Named]:
    """`//package:target` `Suite.Test` `Suite.OtherTest`"""
    names = r"`(//[\w/]+:\w+)`((?:\s+`\w+\.\w+`)+)"
    for found in re.finditer(names, page.read_text()):
        for test in re.findall(r"\w+\.\w+", found[2]):
            yield Named(page, found[1], test)


NAMED = [named for page in PAGES for named in named_tests(page)]


def sources_of(target: str) -> list[pathlib.Path]:
    package, _, name = target.removeprefix("//").partition(":")
    path = pathlib.Path(package)
    for rule in rules(path):
        if "srcs" in rule and strings(rule["name"]) == [name]:
            return [path / source for source in strings(rule["srcs"])]
    # One of those that a list of names makes.
    return [path / f"{name}.cc"] if is_target(target) else []


def test_pages_are_looked_at() -> None:
    assert len(COMMANDS) > 20 and len(NAMED) > 80


def test_attacks_are_tried() -> None:
    section = (ROOT / "SECURITY.md").read_text().partition("## Attacks")[2]
    rows = re.findall(r"^\| \w.*", section.partition("\n## ")[0], re.MULTILINE)[1:]
    assert len(rows) > 30
    assert [row for row in rows if not re.search(r"`//\S+` `\w+\.\w+`", row)] == []


@pytest.mark.parametrize("named", NAMED, ids=str)
def test_tests_that_are_named_exist(named: Named) -> None:
    suite, test = named.test.split(".")
    defined = rf"^TEST(_F|_P)?\(\s*{suite},\s*{test}\) "
    assert any(
        re.search(defined, SOURCES.get(source, ""), re.MULTILINE)
        for source in sources_of(named.target)
    )
