#!/usr/bin/env python3
"""Says what BUILD files say, for whoever does not have Bazel.

    tools/build_files.py archives            where deps.bzl has its archives, for CMake
    tools/build_files.py cmake FOLDER...     the targets that are public there, and what
                                             they need, as calls of CMakeLists.txt's
                                             functions
    tools/build_files.py headers FOLDER...   the headers of these targets, and what they hand on

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

RULES = ("cc_library", "cc_proto_library", "genrule", "proto_library")

# As CMake calls them. Abseil's targets have the names that Bazel's have.
EXTERNAL = {
    "@com_google_googletest//:gtest": ["GTest::gtest", "GTest::gmock"],
    "@com_google_protobuf//:protobuf": ["protobuf::libprotobuf"],
    "@com_google_protobuf//:protobuf_lite": ["protobuf::libprotobuf-lite"],
}


# What CMake fetches of deps.bzl, under the names that CMake has for it.
FETCHED = {
    "com_google_absl": "absl",
    "com_google_googletest": "googletest",
    "com_google_protobuf": "protobuf",
}

FILES_READ = [pathlib.Path(__file__)]


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

    FILES_READ.append(file)
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

    natives = ("cc_binary", "config_setting", "exports_files", "filegroup", "licenses",
               "package", "test_suite")
    run(ROOT / folder / "BUILD", {
        **{name: ignore for name in natives},
        **{kind: rule(kind) for kind in RULES},
        "glob": lambda *_, **__: [],
        "select": lambda choices: choices["//conditions:default"],
    })
    return targets


def find(label, folder):
    """The target of a label in a BUILD file of that folder."""
    package, _, name = label.partition(":")
    package = package[2:] if label.startswith("//") else folder
    return targets_of(package)[name or package.rpartition("/")[2]]


def with_dependencies(roots):
    """These, and what of ward's they need; each behind what it needs itself."""
    found = {}

    def visit(target):
        for label in target.deps + target.srcs:
            if label.startswith((":", "//")):
                visit(find(label, target.folder))
        found.setdefault((target.folder, target.name), target)

    for root in roots:
        visit(root)
    return found.values()


def public(folders):
    return [target for folder in folders for target in targets_of(folder).values()
            if target.public and target.rule != "proto_library"]


def sources(target):
    """Its files; of a genrule's these are in CMake's folder for what is generated."""
    for source in target.srcs:
        if source.startswith(":"):
            yield from ("${generated_dir}/%s/%s" % (target.folder, out)
                        for out in find(source, target.folder).outs)
        else:
            yield "%s/%s" % (target.folder, source)


def cmake_name(target):
    return "_".join(["ward", *target.folder.split("/"), target.name])


def cmake_dependency(label, target):
    if not label.startswith("@"):
        return [cmake_name(find(label, target.folder))]
    if label.startswith("@com_google_absl//absl/"):
        return ["absl::" + label.replace(":", "/").rpartition("/")[2]]
    return EXTERNAL[label]


def call(function, *arguments, **lists):
    words = list(map(str, arguments))
    for name, values in lists.items():
        if values := list(values):
            words += ["\n  " + name.upper(), *values]
    print(f"{function}({' '.join(words)})")


def print_cmake(folders):
    for target in with_dependencies(public(folders)):
        arguments = [cmake_name(target), target.folder]
        if target.public:
            arguments.append(f"PUBLIC {target.name}")
        if target.alwayslink:
            arguments.append("ALWAYSLINK")
        if target.rule == "cc_proto_library":
            [proto] = (find(label, target.folder) for label in target.deps)
            call("ward_cc_proto_library", *arguments, srcs=sources(proto))
        elif target.rule == "genrule":
            [out] = target.outs
            print("ward_genrule(${generated_dir}/%s/%s %s [==[%s]==])" % (
                target.folder, out, *sources(target), target.cmd))
        elif target.rule != "proto_library":
            call("ward_" + target.rule, *arguments, srcs=sources(target),
                 hdrs=(f"{target.folder}/{header}" for header in target.hdrs),
                 deps=(dependency for label in target.deps
                       for dependency in cmake_dependency(label, target)),
                 linkopts=target.linkopts)
    # Whose change has CMake ask anew.
    call("set_property", "DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS",
         *(f'"{file}"' for file in FILES_READ))


def print_headers(folders):
    headers = [f"{target.folder}/{header}" for target in public(folders)
               for header in target.hdrs]
    for header in headers:
        print(header)
        headers += re.findall(r'#include "ward/(.*)"  // IWYU pragma: export',
                              (ROOT / header).read_text())


def print_archives():
    archives = {}
    run(ROOT / "deps.bzl", {
        "Label": ignore, "repository_rule": ignore, "http_archive": None,
        "maybe": lambda _, name, **attributes: archives.update({name: attributes}),
    })["ward_deps"]()
    for repository, name in FETCHED.items():
        call("FetchContent_Declare", name, url=archives[repository]["urls"],
             url_hash=["SHA256=" + archives[repository]["sha256"]])


def main():
    command, *folders = sys.argv[1:] or [None]
    if command == "archives" and not folders:
        print_archives()
    elif command == "cmake" and folders:
        print_cmake(folders)
    elif command == "headers" and folders:
        print_headers(folders)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
