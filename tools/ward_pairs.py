#!/usr/bin/env python3
"""What the explorations of all shards and runs of a test have interleaved.

    bazel test --test_env=WARD_COVERAGE=1 --runs_per_test=20 //my:account_test
    tools/ward_pairs.py bazel-testlogs/my/account_test

Says how many pairs of operations on one object were seen in both orders, in any
of the shards, runs and tests of each target below the folders that it is given,
and lists the others. docs/testing.md has what such a pair is.
"""

import os
import sys
import zipfile

NAME = "ward_pairs.txt"  # As testing/search/make_runs.cc writes it.


class Program:
    """One build of a target, and what it has seen."""

    def __init__(self):
        self.files = 0
        self.newest = 0
        self.has_more = False
        self.names = {}
        self.orders = set()

    def add(self, line):
        kind, _, rest = line.partition(" ")
        if kind == "place":
            place, _, name = rest.partition(" ")
            self.names[place] = name
        elif kind == "order":
            self.orders.add(tuple(rest.split(" ")))
        elif kind == "more":
            self.has_more = True
        else:
            raise ValueError(line)


def outputs(folders):
    """The time and the text of each test's outputs, packed by Bazel or not."""
    for top in folders:
        # bazel-testlogs is a link.
        for folder, _, names in os.walk(top + "/"):
            for name in names:
                path = os.path.join(folder, name)
                if name == NAME:
                    with open(path, encoding="utf-8") as file:
                        yield os.stat(path).st_mtime, file.read()
                elif name == "outputs.zip":
                    with zipfile.ZipFile(path) as packed:
                        if NAME in packed.namelist():
                            text = packed.read(NAME).decode("utf-8")
                            yield os.stat(path).st_mtime, text


def main(folders):
    if not folders:
        sys.exit(__doc__)
    targets = {}
    for time, text in outputs(folders):
        counted = set()
        for line in text.splitlines():
            if line.startswith("program "):
                _, build, target = line.split(" ", 2)
                program = targets.setdefault(target, {}).setdefault(build, Program())
                program.newest = max(program.newest, time)
                program.files += program not in counted
                counted.add(program)
            else:
                program.add(line)
    if not targets:
        sys.exit(f"No {NAME} is there: were the tests run with WARD_COVERAGE=1?")
    for target, builds in sorted(targets.items()):
        # Those of others stay there until as many shards and runs are made again.
        program = max(builds.values(), key=lambda build: build.newest)
        pairs = {tuple(sorted(order)) for order in program.orders}
        lone = [
            (first, second)
            for first, second in program.orders
            if (second, first) not in program.orders
        ]
        print(
            f"{target}: {len(pairs) - len(lone)} of {len(pairs)} pairs of operations "
            f"on one object were seen in both orders, in {program.files} shards and runs"
            + (", and there were more than are counted" if program.has_more else "")
        )
        if len(builds) > 1:
            others = sum(build.files for build in builds.values()) - program.files
            print(f"Left out: {others} of other builds of it, which are older.")
        lines = {
            f"{program.names.get(first, '?')} before {program.names.get(second, '?')}"
            for first, second in lone
        }
        if lines:
            print("In one order alone:", *sorted(lines), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
