"""Rules for tests of servers, and of whatever has threads."""

load("@rules_cc//cc:cc_binary.bzl", "cc_binary")
load("@rules_cc//cc:cc_library.bzl", "cc_library")
load("@rules_cc//cc:cc_test.bzl", "cc_test")
load("//testing/accesses:instrumented.bzl", "instrumented_library")

MODES = ["simulated", "threaded", "forked", "exec"]

# What compiles the sources, and what runs the tests; all else makes the program.
_FOR_SOURCES = ["copts", "defines", "includes", "local_defines"]
_FOR_TESTS = ["args", "flaky", "local", "shard_count", "size", "timeout", "visibility"]

def _take(kwargs, names):
    return {name: kwargs.pop(name) for name in names if name in kwargs}

def _mode_test_impl(ctx):
    program = ctx.attr.program[DefaultInfo]
    test = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.symlink(
        output = test,
        target_file = ctx.executable.program,
        is_executable = True,
    )
    return [
        DefaultInfo(
            executable = test,
            runfiles = ctx.runfiles([ctx.executable.program]).merge(program.default_runfiles),
        ),
        coverage_common.instrumented_files_info(ctx, dependency_attributes = ["program"]),
        testing.TestEnvironment(ctx.attr.env),
    ]

# A program under a name that says in which mode it runs: to link it once for
# each takes most of the time that a change takes to be tested.
_mode_test = rule(
    implementation = _mode_test_impl,
    attrs = {
        "env": attr.string_dict(),
        "program": attr.label(cfg = "target", executable = True, mandatory = True),
    },
    test = True,
)

def ward_server_test(name, srcs, deps = [], modes = MODES, env = {}, tags = [], raced_tags = [], **kwargs):
    """One test of a server, in each of the modes of ward/testing/server_test.h.

    Makes a test NAME_MODE for each mode, and a test_suite NAME of them. All but
    NAME_raced are the same program, NAME_program, which does by its name what
    they do: so they may be run by hand, or in a debugger.

    Args:
      name: of the suite.
      srcs: with tests of GoogleTest, without a main().
      deps: what they include; //testing:server_test and a main() are added.
      modes: those to run in, of MODES and "raced", which is simulated, and checks
        accesses to memory as ward_explore_test does. For exec, the classes of the
        servers need WARD_REGISTER_SERVER.
      env: of all tests, as it is.
      tags: of all tests.
      raced_tags: more of them, of NAME_raced. With "manual" the suite is without it.
      **kwargs: given on to what compiles the sources (copts, defines, includes,
        local_defines), to each test (size, shard_count, ...), or to the cc_binary
        (data, linkopts, ...).
    """
    for_sources = _take(kwargs, _FOR_SOURCES)
    for_tests = _take(kwargs, _FOR_TESTS)
    if "raced" in modes:
        cc_test(
            name = name + "_raced",
            # Each test several times, each time with another schedule: where one has
            # put two accesses in order by chance, another has not.
            env = dict({"GTEST_REPEAT": "10"}, **env),
            # The simulator takes the place of functions at link time.
            linkstatic = True,
            tags = tags + raced_tags + ["accesses"],
            deps = [instrumented_library(
                name + "_raced",
                srcs = srcs,
                tags = tags,
                deps = deps + [
                    Label("//testing:server_test"),
                    Label("//testing:main"),
                ],
                **for_sources
            )],
            **dict(for_tests, **kwargs)
        )
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
    cc_binary(
        name = name + "_program",
        testonly = True,
        # The simulator takes the place of functions at link time.
        linkstatic = True,
        tags = tags + ["manual"],
        visibility = ["//visibility:private"],
        deps = [":" + name + "_body"],
        **kwargs
    )
    for mode in modes:
        if mode == "raced":
            continue
        _mode_test(
            name = "%s_%s" % (name, mode),
            env = env,
            program = ":" + name + "_program",
            tags = tags,
            **for_tests
        )
    native.test_suite(
        name = name,
        tags = tags,
        tests = [
            "%s_%s" % (name, mode)
            for mode in modes
            if mode != "raced" or "manual" not in raced_tags
        ],
    )

def ward_explore_test(name, deps = [], accesses = False, tags = [], **kwargs):
    """A test that explores schedules, see ward/testing/explore.h; of any program.

    Args:
      name: of the test.
      deps: what its sources include; //testing:explore and a main() are added.
      accesses: whether accesses to memory are checked for data races, see
        docs/testing.md. What the test is made of is compiled once more for that,
        as far as it is of the workspace. Such a test has the tag "accesses": no
        sanitizer goes with it.
      tags: of the test.
      **kwargs: given on to the cc_test.
    """
    deps = deps + [
        Label("//testing:explore"),
        Label("//testing:main"),
    ]
    if accesses:
        deps = [instrumented_library(name, deps = deps, tags = tags, **_take(kwargs, _FOR_SOURCES + ["srcs"]))]
        tags = tags + ["accesses"]
    cc_test(
        name = name,
        # The simulator takes the place of functions at link time.
        linkstatic = True,
        tags = tags,
        deps = deps,
        **kwargs
    )

def ward_fuzz_test(name, srcs, corpus, deps = [], dictionary = None, max_len = 4096, max_seconds = 30, tags = [], **kwargs):
    """A fuzz target, see ward/testing/fuzz.h and docs/testing.md.

    With --config=fuzz it is a program of libFuzzer's, which looks for inputs that
    make it fail. Otherwise it is a test that runs over the inputs of its corpus,
    and over some thousand variations of them.

    Args:
      name: of the cc_test.
      srcs: with LLVMFuzzerTestOneInput().
      corpus: the folder, in this package, of the inputs to begin with. A new
        target has none yet.
      deps: what the sources include; //testing:fuzz is added.
      dictionary: a file of words for libFuzzer to write into inputs.
      max_len: of an input, in bytes.
      max_seconds: that an input may take, 0 for no limit.
      tags: of the target; "fuzz" is added.
      **kwargs: given on to the cc_test.
    """
    args = [
        "--corpus=%s/%s" % (native.package_name(), corpus),
        "-max_len=%d" % max_len,
        "-malloc_limit_mb=256",
        "-timeout=%d" % max_seconds,
    ]
    data = native.glob([corpus + "/**"], allow_empty = True)
    if dictionary:
        args.append("--dictionary=$(rootpath %s)" % dictionary)
        data = data + [dictionary]
    cc_test(
        name = name,
        srcs = srcs,
        args = args,
        data = data,
        linkopts = select({
            str(Label("//testing:fuzzing")): ["-fsanitize=fuzzer"],
            "//conditions:default": [],
        }),
        # A simulator, if it has one, takes the place of functions.
        linkstatic = True,
        tags = tags + ["fuzz"],
        deps = deps + [
            Label("//testing:fuzz"),
            Label("//testing:fuzz_main"),
        ],
        **kwargs
    )

def ward_server_fuzz_test(name, srcs, corpus, deps = [], **kwargs):
    """A ward_fuzz_test of a server's handlers, see ward/testing/server_fuzz.h.

    Args:
      name: of the cc_test.
      srcs: one with WARD_FUZZ_SERVER(the server's class).
      corpus: see ward_fuzz_test.
      deps: what srcs include; //testing:server_fuzz is added.
      **kwargs: given on to ward_fuzz_test.
    """
    ward_fuzz_test(
        name = name,
        srcs = srcs,
        corpus = corpus,
        deps = deps + [Label("//testing:server_fuzz")],
        # libFuzzer would look at the simulated clock. The simulator's watchdog
        # has the real one.
        max_seconds = 0,
        **kwargs
    )
