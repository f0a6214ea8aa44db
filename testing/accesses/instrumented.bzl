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
    "-fno-builtin-memcmp",
    "-fno-builtin-bcmp",
    "-fno-builtin-memchr",
    "-fno-builtin-strcpy",
    "-fno-builtin-stpcpy",
    "-fno-builtin-strncpy",
    "-fno-builtin-strcat",
    "-U_FORTIFY_SOURCE",
    "-D_GLIBCXX_ASSERTIONS",
    # g++ warns of fences, which its own runtime does not know. Clang does not
    # know that warning.
    "-Wno-unknown-warning-option",
    "-Wno-tsan",
]

_C_SOURCES = ["c"]
_CXX_SOURCES = ["cc", "cpp", "cxx", "c++", "C"]
_ASSEMBLERS_SOURCES = ["S", "s", "asm"]
_HEADERS = ["h", "hh", "hpp", "hxx", "inc", "inl", "H"]

_ATTR_ASPECTS = ["deps", "implementation_deps", "interface_deps"]

_InstrumentedInfo = provider(
    doc = "The same as a target's CcInfo, of code that is instrumented.",
    fields = {
        "labels": "of the targets that are",
        "linking_context": "what it and its dependencies are linked with",
    },
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

def _labels(deps, more = []):
    return depset(more, transitive = [
        dep[_InstrumentedInfo].labels
        for dep in deps
        if _InstrumentedInfo in dep
    ])

def _merged(linking_contexts):
    return cc_common.merge_cc_infos(cc_infos = [
        CcInfo(linking_context = context)
        for context in linking_contexts
    ]).linking_context

# As a shell has them, which is how Bazel reads options.
def _words(text):
    words = []
    word = None
    quote = ""
    is_escaped = False
    for c in text.elems():
        if is_escaped:
            word += c
            is_escaped = False
        elif c == "\\" and quote != "'":
            word = word or ""
            is_escaped = True
        elif c == quote:
            quote = ""
        elif quote == "" and c in "'\"":
            word = word or ""
            quote = c
        elif quote == "" and c in " \t\n":
            if word != None:
                words.append(word)
            word = None
        else:
            word = (word or "") + c
    return words if word == None else words + [word]

# The words of an attribute with options, if the rule has it: "$(...)" are make
# variables, or locations.
def _options(ctx, name):
    attr = ctx.rule.attr
    variables = {}
    for toolchain in getattr(attr, "toolchains", []):
        if platform_common.TemplateVariableInfo in toolchain:
            variables.update(toolchain[platform_common.TemplateVariableInfo].variables)
    words = []
    for option in getattr(attr, name, []):
        if [word for word in ["location ", "locations ", "path ", "paths "] if word in option]:
            # Each once, as it is asked for.
            targets = {
                target.label: target
                for target in attr.srcs + attr.deps +
                              getattr(attr, "additional_compiler_inputs", []) +
                              getattr(attr, "additional_linker_inputs", [])
            }
            option = ctx.expand_location(option, targets.values())
        words += _words(ctx.expand_make_variables(name, option, variables))
    return words

# Those of an attribute, if the rule has it.
def _files(attr, name):
    return [
        file
        for target in getattr(attr, name, [])
        for file in target.files.to_list()
    ]

# The files of `srcs` by what compiles them; None if there is one that nothing does.
def _sort(srcs):
    sources = struct(c = [], cxx = [], assembler = [], headers = [])
    for src in srcs:
        for file in src.files.to_list():
            if file.extension in _C_SOURCES:
                sources.c.append(file)
            elif file.extension in _CXX_SOURCES:
                sources.cxx.append(file)
            elif file.extension in _ASSEMBLERS_SOURCES:
                sources.assembler.append(file)
            elif file.extension in _HEADERS:
                sources.headers.append(file)
            else:
                return None
    return sources

def _deps(attr):
    deps = []
    for name in _ATTR_ASPECTS:
        found = getattr(attr, name, [])
        if type(found) == "list":
            deps += [dep for dep in found if type(dep) == "Target"]
    return deps

# What is no cc_library, or is made of more than sources, is taken as it is; what
# it depends on is not.
def _passed_through(target, deps):
    if not [dep for dep in deps if _InstrumentedInfo in dep]:
        return []
    rest = _merged(_linking_contexts(deps))
    labels = _labels(deps)
    known = {label: True for label in labels.to_list()}
    known.update({input.owner: True for input in rest.linker_inputs.to_list()})
    return [_InstrumentedInfo(
        labels = labels,
        linking_context = cc_common.create_linking_context(linker_inputs = depset(
            [
                input
                for input in target[CcInfo].linking_context.linker_inputs.to_list()
                if input.owner not in known
            ],
            transitive = [rest.linker_inputs],
            order = "topological",
        )),
    )]

def _instrumented_aspect_impl(target, ctx):
    if CcInfo not in target or not _is_instrumented(target.label):
        return []
    attr = ctx.rule.attr
    deps = _deps(attr)
    sources = _sort(attr.srcs) if ctx.rule.kind == "cc_library" else None
    if sources == None:
        return _passed_through(target, deps)
    implementation_deps = getattr(attr, "implementation_deps", [])
    toolchain = ctx.attr._cc_toolchain[cc_common.CcToolchainInfo]
    features = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = toolchain,
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features,
    )
    name = target.label.name + "_instrumented"
    copts = _options(ctx, "copts")
    outputs = []
    for suffix, srcs, flags in [
        ("", sources.cxx, _options(ctx, "cxxopts") + _COPTS),
        ("_c", sources.c, _options(ctx, "conlyopts") + _COPTS),
        ("_assembler", sources.assembler, []),
    ]:
        if not srcs:
            continue
        _, compiled = cc_common.compile(
            actions = ctx.actions,
            additional_inputs = _files(attr, "additional_compiler_inputs"),
            cc_toolchain = toolchain,
            compilation_contexts = [target[CcInfo].compilation_context] +
                                   [dep[CcInfo].compilation_context for dep in implementation_deps],
            feature_configuration = features,
            local_defines = _options(ctx, "local_defines"),
            name = name + suffix,
            private_hdrs = sources.headers,
            srcs = srcs,
            user_compile_flags = copts + flags,
        )
        outputs.append(compiled)
    linking_context, _ = cc_common.create_linking_context_from_compilation_outputs(
        actions = ctx.actions,
        # A linker's script is one of `deps`, or is told apart.
        additional_inputs = _files(attr, "additional_linker_inputs") + [
            file
            for dep in attr.deps
            if CcInfo not in dep
            for file in dep.files.to_list()
        ],
        alwayslink = attr.alwayslink,
        cc_toolchain = toolchain,
        compilation_outputs = cc_common.merge_compilation_outputs(compilation_outputs = outputs),
        disallow_dynamic_library = True,
        feature_configuration = features,
        linking_contexts = _linking_contexts(deps),
        name = name,
        user_link_flags = _options(ctx, "linkopts"),
    )
    return [_InstrumentedInfo(
        labels = _labels(deps, [target.label]),
        linking_context = linking_context,
    )]

_instrumented_aspect = aspect(
    implementation = _instrumented_aspect_impl,
    attr_aspects = _ATTR_ASPECTS,
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
        CcInfo(linking_context = _merged(_linking_contexts(ctx.attr.deps))),
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
