"""Code whose accesses to memory are checked: see ward/testing/accesses/checker.h."""

load("@rules_cc//cc:cc_library.bzl", "cc_library")
load("@rules_cc//cc/common:cc_common.bzl", "cc_common")
load("@rules_cc//cc/common:cc_info.bzl", "CcInfo")

# Optimised, as otherwise each operation of an atomic object is a call of a
# function that the simulator shares.
_COPTS = [
    "-O1",
    "-fsanitize=thread",
    # For the stacks of reports.
    "-fno-omit-frame-pointer",
    "-fno-optimize-sibling-calls",
    "-g1",
    # As calls they are seen; and so is what std::string does, in the program
    # instead of the C++ library.
    "-fno-builtin-memcpy",
    "-fno-builtin-memmove",
    "-fno-builtin-memset",
    "-U_FORTIFY_SOURCE",
    "-D_GLIBCXX_ASSERTIONS",
    # g++ warns of fences, which its own runtime does not know. Clang does not
    # know that warning.
    "-Wno-unknown-warning-option",
    "-Wno-tsan",
]

_SOURCES = ["c", "cc", "cpp", "cxx", "c++", "C"]
_HEADERS = ["h", "hh", "hpp", "hxx", "inc", "inl", "H"]

_InstrumentedInfo = provider(
    doc = "The same as a target's CcInfo, of code that is instrumented.",
    fields = {"linking_context": "what it and its dependencies are linked with"},
)

_IS_WARDS_OWN_WORKSPACE = Label("//testing:defs.bzl").workspace_name == ""

# Others' code is taken as it is; and what checks is not checked.
def _is_instrumented(label):
    if label.workspace_name != "":
        return False
    return (
        not _IS_WARDS_OWN_WORKSPACE or
        not (label.package + "/").startswith("testing/") or
        label.name.endswith("_body")
    )

def _linking_contexts(deps):
    return [
        dep[_InstrumentedInfo].linking_context if _InstrumentedInfo in dep else dep[CcInfo].linking_context
        for dep in deps
        if CcInfo in dep
    ]

# The files of `srcs`; None if there is one that is no source of C or C++.
def _sort(srcs):
    sources = []
    headers = []
    for src in srcs:
        for file in src.files.to_list():
            if file.extension in _SOURCES:
                sources.append(file)
            elif file.extension in _HEADERS:
                headers.append(file)
            else:
                return None
    return sources, headers

def _instrumented_aspect_impl(target, ctx):
    if CcInfo not in target or ctx.rule.kind != "cc_library" or not _is_instrumented(target.label):
        return []
    attr = ctx.rule.attr
    sorted_srcs = _sort(attr.srcs)
    if sorted_srcs == None:
        return []
    sources, headers = sorted_srcs
    implementation_deps = getattr(attr, "implementation_deps", [])
    toolchain = ctx.attr._cc_toolchain[cc_common.CcToolchainInfo]
    features = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = toolchain,
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features,
    )
    name = target.label.name + "_instrumented"
    _, outputs = cc_common.compile(
        actions = ctx.actions,
        cc_toolchain = toolchain,
        compilation_contexts = [target[CcInfo].compilation_context] +
                               [dep[CcInfo].compilation_context for dep in implementation_deps],
        feature_configuration = features,
        local_defines = attr.local_defines,
        name = name,
        private_hdrs = headers,
        srcs = sources,
        user_compile_flags = attr.copts + _COPTS,
    )
    linking_context, _ = cc_common.create_linking_context_from_compilation_outputs(
        actions = ctx.actions,
        alwayslink = attr.alwayslink,
        cc_toolchain = toolchain,
        compilation_outputs = outputs,
        disallow_dynamic_library = True,
        feature_configuration = features,
        linking_contexts = _linking_contexts(attr.deps + implementation_deps),
        name = name,
        user_link_flags = attr.linkopts,
    )
    return [_InstrumentedInfo(linking_context = linking_context)]

_instrumented_aspect = aspect(
    implementation = _instrumented_aspect_impl,
    attr_aspects = ["deps", "implementation_deps"],
    attrs = {
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    fragments = ["cpp"],
)

def _instrumented_impl(ctx):
    runfiles = ctx.runfiles()
    for dep in ctx.attr.deps:
        runfiles = runfiles.merge(dep[DefaultInfo].default_runfiles)
    return [
        DefaultInfo(runfiles = runfiles),
        CcInfo(linking_context = cc_common.merge_cc_infos(cc_infos = [
            CcInfo(linking_context = context)
            for context in _linking_contexts(ctx.attr.deps)
        ]).linking_context),
    ]

_instrumented = rule(
    implementation = _instrumented_impl,
    attrs = {"deps": attr.label_list(aspects = [_instrumented_aspect], providers = [CcInfo])},
)

def instrumented_library(name, srcs, deps, tags, **kwargs):
    """The sources of a test, and their dependencies, with what checks them.

    Args:
      name: of the test.
      srcs: its sources.
      deps: what they include.
      tags: of the test.
      **kwargs: given on to the cc_library of the sources.

    Returns:
      a dependency of the test, which needs no sources then.
    """
    cc_library(
        name = name + "_body",
        testonly = True,
        srcs = srcs,
        alwayslink = True,
        tags = tags + ["manual"],
        visibility = ["//visibility:private"],
        deps = deps + [Label("//testing/accesses")],
        **kwargs
    )
    _instrumented(
        name = name + "_instrumented",
        testonly = True,
        tags = tags + ["manual"],
        visibility = ["//visibility:private"],
        deps = [":" + name + "_body"],
    )
    return ":" + name + "_instrumented"
