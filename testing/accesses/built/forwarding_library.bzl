"""A rule that is no cc_library, and gives on what it depends on."""

load("@rules_cc//cc/common:cc_common.bzl", "cc_common")
load("@rules_cc//cc/common:cc_info.bzl", "CcInfo")

def _forwarding_library_impl(ctx):
    return [cc_common.merge_cc_infos(cc_infos = [dep[CcInfo] for dep in ctx.attr.deps])]

forwarding_library = rule(
    implementation = _forwarding_library_impl,
    attrs = {"deps": attr.label_list(providers = [CcInfo])},
)
