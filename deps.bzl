"""Ward's dependencies for a Bazel older than 7; MODULE.bazel has them for later ones."""

load("@bazel_tools//tools/build_defs/repo:http.bzl", "http_archive")
load("@bazel_tools//tools/build_defs/repo:utils.bzl", "maybe")

# These Bazels have the C++ rules built in; this hands them out under the names
# that Bazel 9 needs. A local_repository would be looked for in the workspace that
# ward is a part of.
def _builtin_rules_cc_impl(repository_ctx):
    rules = repository_ctx.path(Label("//third_party/rules_cc/cc:defs.bzl"))
    repository_ctx.symlink(rules.dirname, "cc")

_builtin_rules_cc = repository_rule(implementation = _builtin_rules_cc_impl, local = True)

def ward_deps():
    """The repositories that ward needs, but for those that the WORKSPACE has by then.

    These are the versions that Debian 12 has too: there `bazelw` puts Debian's
    sources in the place of each of these repositories.
    """
    maybe(
        http_archive,
        name = "com_google_absl",
        sha256 = "91ac87d30cc6d79f9ab974c51874a704de9c2647c40f6932597329a282217ba8",
        strip_prefix = "abseil-cpp-20220623.1",
        urls = ["https://github.com/abseil/abseil-cpp/archive/refs/tags/20220623.1.tar.gz"],
    )

    # With BUILD files of our own: upstream's need rules for languages and packages
    # that ward does not use, and lack the //bazel package of later versions.
    maybe(
        http_archive,
        name = "com_google_protobuf",
        build_file = Label("//third_party/protobuf:protobuf.BUILD"),
        patch_args = ["-p1"],
        patches = [Label("//third_party/protobuf:bazel.patch")],
        sha256 = "22fdaf641b31655d4b2297f9981fa5203b2866f8332d3c6333f6b0107bb320de",
        strip_prefix = "protobuf-21.12",
        urls = ["https://github.com/protocolbuffers/protobuf/archive/refs/tags/v21.12.tar.gz"],
    )

    maybe(
        http_archive,
        name = "com_google_googletest",
        sha256 = "81964fe578e9bd7c94dfdb09c8e4d6e6759e19967e397dbea48d1c10e45d0df2",
        strip_prefix = "googletest-release-1.12.1",
        urls = ["https://github.com/google/googletest/archive/refs/tags/release-1.12.1.tar.gz"],
    )

    maybe(
        http_archive,
        name = "com_github_google_benchmark",
        sha256 = "6430e4092653380d9dc4ccb45a1e2dc9259d581f4866dc0759713126056bc1d7",
        strip_prefix = "benchmark-1.7.1",
        urls = ["https://github.com/google/benchmark/archive/refs/tags/v1.7.1.tar.gz"],
    )

    maybe(
        http_archive,
        name = "bazel_skylib",
        sha256 = "1c531376ac7e5a180e0237938a2536de0c54d93f5c278634818e0efc952dd56c",
        urls = ["https://github.com/bazelbuild/bazel-skylib/releases/download/1.0.3/bazel-skylib-1.0.3.tar.gz"],
    )

    maybe(
        http_archive,
        name = "platforms",
        sha256 = "5308fc1d8865406a49427ba24a9ab53087f17f5266a7aabbfc28823f3916e1ca",
        urls = ["https://github.com/bazelbuild/platforms/releases/download/0.0.6/platforms-0.0.6.tar.gz"],
    )

    maybe(_builtin_rules_cc, name = "rules_cc")
