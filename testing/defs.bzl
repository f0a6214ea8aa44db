"""Rules for tests of ward servers."""

load("@rules_cc//cc:cc_library.bzl", "cc_library")
load("@rules_cc//cc:cc_test.bzl", "cc_test")

MODES = ["simulated", "threaded", "forked", "exec"]

# What compiles the sources, and not what makes the programs.
_FOR_SOURCES = ["copts", "defines", "includes", "local_defines"]

def ward_server_test(name, srcs, deps = [], modes = MODES, env = {}, tags = [], **kwargs):
    """One test of a server, in each of the modes of ward/testing/server_test.h.

    Makes a cc_test NAME_MODE for each mode, and a test_suite NAME of them.

    Args:
      name: of the suite.
      srcs: with tests of GoogleTest, without a main().
      deps: what they include; //testing:server_test and a main() are added.
      modes: those to run in, of MODES. For exec, the classes of the servers
        need WARD_REGISTER_SERVER.
      env: of all targets, beside WARD_TEST_MODE.
      tags: of all targets.
      **kwargs: given on to what compiles the sources (copts, defines, includes,
        local_defines), or to each cc_test (size, shard_count, ...).
    """
    for_sources = {key: kwargs.pop(key) for key in _FOR_SOURCES if key in kwargs}
    cc_library(
        name = name + "_body",
        testonly = True,
        srcs = srcs,
        tags = tags + ["manual"],
        visibility = ["//visibility:private"],
        deps = deps + [
            Label("//testing:server_test"),
            Label("//testing:main"),
        ],
        alwayslink = True,
        **for_sources
    )
    for mode in modes:
        cc_test(
            name = "%s_%s" % (name, mode),
            env = dict(env, WARD_TEST_MODE = mode),
            # The simulator takes the place of functions at link time.
            linkstatic = True,
            tags = tags,
            deps = [":" + name + "_body"],
            **kwargs
        )
    native.test_suite(
        name = name,
        tags = tags,
        tests = ["%s_%s" % (name, mode) for mode in modes],
    )
