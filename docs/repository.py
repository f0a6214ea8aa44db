"""Ward's files, as the tests of its pages find them where they are run."""

import ast
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path()
BUILD_FILES = {path.parent: ast.parse(path.read_text()) for path in ROOT.rglob("BUILD")}


def rules(package: pathlib.Path) -> Iterator[dict[str, ast.expr]]:
    """The arguments of each rule of a package that has a name; its kind under ""."""
    for node in ast.walk(BUILD_FILES[package]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            arguments = {word.arg: word.value for word in node.keywords if word.arg}
            if "name" in arguments:
                yield {"": node.func, **arguments}


def is_public(rule: dict[str, ast.expr]) -> bool:
    return "//visibility:public" in strings(rule.get("visibility", ast.List([])))


def strings(tree: ast.AST) -> list[str]:
    """All strings in it: of a list, a select(), a comprehension."""
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def is_compiled(path: pathlib.Path) -> bool:
    """Whether its package's BUILD file names it."""
    if path.parent not in BUILD_FILES:
        return False
    return not {path.name, path.stem}.isdisjoint(strings(BUILD_FILES[path.parent]))


SOURCES = {
    path: path.read_text()
    for suffix in ("*.cc", "*.h")
    for path in ROOT.rglob(suffix)
    if is_compiled(path)
}


def bare(code: str) -> str:
    """Without white space, and without lines that are comments."""
    return re.sub(r"^\s*//.*$|\s", "", code, flags=re.MULTILINE)


# Those of examples/downstream are of a workspace of its own.
PAGES = [page for page in sorted(ROOT.rglob("*.md")) if "downstream" not in page.parts]


class Shown(NamedTuple):
    """What a page or a header has at this line."""

    path: pathlib.Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"
