#!/usr/bin/env python3
"""Says what BUILD files say, for whoever does not have Bazel.

    tools/build_files.py headers FOLDER...   the headers of the targets that are public
                                             there, and what they hand on

BUILD files are written in Starlark, of which these use so little that they are
Python, too: they are run, with functions in the place of the rules that write
down what they are given.
"""

import functools
import pathlib
import re
import sys
import types

ROOT = pathlib.Path(__file__).resolve().parent.parent

RULES = ("cc_binary", "cc_library", "cc_proto_library", "genrule", "proto_library")



def ignore(*_, **__):
    pass


def run(file, known):
    """Runs a file in Starlark; returns what it defines. `known` is what it can use,
    beside what it loads: of ward's own files the constants, of rules the above."""

    def load(source, *names, **aliases):
        label = source.lstrip("@").lstrip("/")
        path = (ROOT / label.replace(":", "/") if source.startswith("//")
                else file.parent / source[1:])
        for name in names:
            if name not in defined:
                defined[name] = run_constants(path)[name] if name.isupper() else ignore
        assert not aliases, f"{file}: load() under another name"

    defined = {"load": load, **known}
    exec(compile(file.read_text(), str(file), "exec"), defined)  # pylint: disable=exec-used
    return defined


@functools.lru_cache(maxsize=None)
def run_constants(file):
    attr = types.SimpleNamespace(
        label=ignore, label_list=ignore, string=ignore, string_dict=ignore,
        string_list=ignore, bool=ignore)
    return run(file, {"attr": attr, "rule": ignore, "transition": ignore,
                      "aspect": ignore, "provider": ignore})


@functools.lru_cache(maxsize=None)
def targets_of(folder):
    """The targets of a folder's BUILD file, by name: each a rule and its attributes."""
    targets = {}

    def rule(kind):
        def define(name, **attributes):
            targets[name] = types.SimpleNamespace(
                rule=kind, folder=folder, name=name,
                public="//visibility:public" in attributes.get("visibility", []),
                **{"srcs": [], "hdrs": [], "deps": [], "linkopts": [],
                   "alwayslink": False, **attributes})
        return define

    natives = ("config_setting", "exports_files", "filegroup", "licenses", "package",
               "test_suite")
    run(ROOT / folder / "BUILD", {
        **{name: ignore for name in natives},
        **{kind: rule(kind) for kind in RULES},
        "glob": lambda *_, **__: [],
        "select": lambda choices: choices["//conditions:default"],
    })
    return targets


def public(folders):
    return [target for folder in folders for target in targets_of(folder).values()
            if target.public and target.rule != "proto_library"]


def print_headers(folders):
    headers = [f"{target.folder}/{header}" for target in public(folders)
               for header in target.hdrs]
    for header in headers:
        print(header)
        headers += re.findall(r'#include "ward/(.*)"  // IWYU pragma: export',
                              (ROOT / header).read_text())


def main():
    command, *folders = sys.argv[1:] or [None]
    if command == "headers" and folders:
        print_headers(folders)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
