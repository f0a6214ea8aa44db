"""Rules for tests of servers, and of whatever has threads."""

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

def ward_explore_test(name, deps = [], **kwargs):
    """A test that explores schedules, see ward/testing/explore.h; of any program.

    Args:
      name: of the cc_test.
      deps: what its sources include; //testing:explore and a main() are added.
      **kwargs: given on to the cc_test.
    """
    cc_test(
        name = name,
        # The simulator takes the place of functions at link time.
        linkstatic = True,
        deps = deps + [
            Label("//testing:explore"),
            Label("//testing:main"),
        ],
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
