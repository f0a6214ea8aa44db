#!/usr/bin/env python3
"""Writes compile_commands.json, by which clangd, and with it most editors, know
how each source of a workspace is compiled.

    tools/compile_commands.py

in the folder of a workspace with ward's bazelw, this one or a user's. It builds
what is generated, headers above all, and asks Bazel for Clang's commands. Write
it again after a change of BUILD files.
"""

import json
import os
import subprocess
import sys


def bazel(command, *arguments):
    # With Clang's flags, since who asks is Clang.
    return subprocess.run(
        ["./bazelw", command, "--config=clang", *arguments], check=True,
        stdout=subprocess.PIPE, text=True).stdout


def compile_commands():
    """For each source of this workspace: {directory, file, arguments}, as in a
    compilation database; `file` is relative to the workspace, and to the
    directory, Bazel's execution root."""
    # The headers: those generated, and the folders that show them to #include.
    # By name: "//..." leaves out what is built for others alone (tag manual).
    rules = subprocess.run(
        ["./bazelw", "query", 'kind("cc_.* rule", //...)'], check=True,
        stdout=subprocess.PIPE, text=True).stdout.split()
    bazel("build", "--output_groups=compilation_prerequisites_INTERNAL_",
          *rules)
    execution_root = bazel("info", "execution_root").strip()
    actions = json.loads(bazel(
        "aquery", "--output=jsonproto",
        f'mnemonic("CppCompile", set({" ".join(rules)}))'))
    for action in actions["actions"]:
        arguments = action["arguments"]
        source = arguments[arguments.index("-c") + 1]
        # Neither other projects' sources nor generated ones; nor the assembler's.
        if source.startswith(("external/", "bazel-out/")) \
                or not source.endswith((".c", ".cc")):
            continue
        # Debian's Bazel does not know external_include_paths, of .bazelrc.
        for i, argument in enumerate(arguments[:-1]):
            if argument == "-iquote" and "external/" in arguments[i + 1]:
                arguments[i] = "-isystem"
        # With modules, clang-tidy 14 does not hear what Bazel says of __DATE__.
        if "-std=c++20" in arguments:
            arguments[1:1] = ["-Xclang", "-fno-cxx-modules"]
        yield {"directory": execution_root, "file": source,
               "arguments": arguments}


def main():
    if len(sys.argv) > 1 or not os.path.exists("bazelw"):
        sys.exit(__doc__)
    # The file that is edited, not its name in the execution root.
    commands = [{**command, "file": os.path.abspath(command["file"])}
                for command in compile_commands()]
    with open("compile_commands.json", "w") as f:
        json.dump(commands, f, indent=1)
    print(f"compile_commands.json: {len(commands)} commands")


if __name__ == "__main__":
    main()
