"""A rule for tests in Python, without rules_python: the system's own Python runs them."""

def _pytest_test_impl(ctx):
    ctx.actions.write(
        output = ctx.outputs.executable,
        # -B: sources are links into the checkout, beside which nothing shall appear.
        content = """\
#!/bin/sh
/usr/bin/python3 -c 'import google.protobuf, pytest' || {
  echo 'This test needs the Debian packages python3, python3-protobuf and python3-pytest.' >&2
  exit 1
}
exec /usr/bin/python3 -B -m pytest -p no:cacheprovider "$@" %s
""" % " ".join([file.short_path for file in ctx.files.srcs]),
        is_executable = True,
    )
    env = {name: ctx.expand_location(value, ctx.attr.data) for name, value in ctx.attr.env.items()}
    runfiles = ctx.runfiles(files = ctx.files.srcs + ctx.files.data)
    for data in ctx.attr.data:
        runfiles = runfiles.merge(data[DefaultInfo].default_runfiles)
    return [
        DefaultInfo(executable = ctx.outputs.executable, runfiles = runfiles),
        testing.TestEnvironment(env),
    ]

# Runs pytest over the sources. It fails, and says what to install, where Debian's
# packages python3-pytest or python3-protobuf are missing.
pytest_test = rule(
    implementation = _pytest_test_impl,
    attrs = {
        "data": attr.label_list(allow_files = True),
        "env": attr.string_dict(),
        "srcs": attr.label_list(allow_files = [".py"]),
    },
    test = True,
)
