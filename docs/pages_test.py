"""That all code which pages and headers show is compiled.

A block of C++ has to stand in a source that a BUILD file names, white space aside, and
a block of Starlark in a BUILD file: those that no other source has are in calls_test.cc
and its neighbours. What "..." stands for is left out.
"""

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

from repository import (
    BUILD_FILES,
    PAGES,
    ROOT,
    SOURCES,
    Shown,
    bare,
    is_public,
    rules,
    strings,
)

# Who compares these with what is so.
OTHER_LANGUAGES = {
    "accepted": "channel/protocol_test.cc",
    "cmake": ".ci/cmake",
    "golden": "channel/protocol_test.cc",
    "python": "examples/python_client/ward_client_test.py",
    "refused": "channel/protocol_test.cc",
}


def fenced(page: pathlib.Path) -> Iterator[Shown]:
    text = page.read_text()
    for fence in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        line = text.count("\n", 0, fence.start()) + 1
        yield Shown(page, line, fence[1], fence[2])


def examples(header: pathlib.Path) -> Iterator[Shown]:
    """The indented parts of the comment that a header begins with, if they are code."""
    banner: list[str] = []
    for line in header.read_text().splitlines():
        if not line.startswith("//"):
            break
        banner.append(line[2:])
    text = "\n".join(banner) + "\n"
    for found in re.finditer(r"(?<=\n\n)(?:(?:   .*)?\n)+", text):
        if re.search(r"[;{]$|[;{]  +// ", found[0], re.MULTILINE):
            line = text.count("\n", 0, found.start()) + 1
            # Parts with an empty line between them may stand apart.
            code = re.sub(r"\n\s*\n", "\n...\n", found[0].strip())
            yield Shown(header, line, "cpp", code)


HEADERS = sorted(
    package / header
    for package in BUILD_FILES
    for rule in rules(package)
    if is_public(rule) and "hdrs" in rule
    for header in strings(rule["hdrs"])
)
BLOCKS = [block for page in PAGES for block in fenced(page)]
CPP = [block for block in BLOCKS if block.language == "cpp"]
CPP += [block for header in HEADERS for block in examples(header)]
STARLARK = [block for block in BLOCKS if block.language == "starlark"]
FLAT = [bare(text) for text in SOURCES.values()]


def stands_in(source: str, parts: list[str]) -> bool:
    end = 0
    for part in parts:
        found = source.find(part, end)
        if found < 0:
            return False
        end = found + len(part)
    return True


def test_pages_and_headers_are_looked_at() -> None:
    assert {str(page) for page in PAGES} >= {"README.md", "docs/calls.md"}
    assert "server/abstract_server.h" in {str(header) for header in HEADERS}
    assert len(CPP) > 60 and len(STARLARK) > 5


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_somebody_looks_at_each_language(block: Shown) -> None:
    kind = block.language.partition(" ")[0]
    assert kind in ("bazelrc", "cpp", "starlark") or kind in OTHER_LANGUAGES


@pytest.mark.parametrize("block", CPP, ids=str)
def test_cpp_is_compiled(block: Shown) -> None:
    parts = [bare(part) for part in block.text.split("...")]
    assert any(stands_in(source, parts) for source in FLAT), block.text


# --- Starlark ---


def value(expression: ast.expr) -> str:
    return ast.unparse(expression).replace("@ward//", "//")


def loaded(statement: ast.Call) -> set[str]:
    file, *names = [value(argument) for argument in statement.args]
    return {f"{file} {name}" for name in names}


TREES = list(BUILD_FILES.values()) + [
    ast.parse((ROOT / "examples/downstream" / name).read_text())
    for name in ("MODULE.bazel", "WORKSPACE")
]
ALL = [node for tree in TREES for node in ast.walk(tree) if isinstance(node, ast.Call)]
LOADED = {name for call in ALL if value(call.func) == "load" for name in loaded(call)}


def arguments(call: ast.Call) -> dict[str | None, str]:
    named = {word.arg: value(word.value) for word in call.keywords}
    return {"": value(call.func), **named}


RULES = [arguments(call) for call in ALL]


@pytest.mark.parametrize("block", STARLARK, ids=str)
def test_starlark_is_in_a_build_file(block: Shown) -> None:
    # A line "..." is for the arguments that are left out.
    text = re.sub(r"^ +\.\.\.$", "    left_out = None,", block.text, flags=re.MULTILINE)
    for statement in ast.parse(text).body:
        assert isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
        call = statement.value
        shown = arguments(call)
        left_out = shown.pop("left_out", None) is not None
        if shown[""] == "load":
            assert loaded(call) <= LOADED
        else:
            assert any(
                rule == shown or left_out and rule.items() >= shown.items()
                for rule in RULES
            ), ast.unparse(call)


# --- Flags ---


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "bazelrc"], ids=str
)
def test_flags_are_those_of_ward_bazelrc(block: Shown) -> None:
    lines = (ROOT / "tools/ward.bazelrc").read_text().splitlines()
    assert [line for line in block.text.splitlines() if line not in lines] == []
