"""Bazel's built-in CcInfo."""

load(":builtin.bzl", "builtin_cc_info")

CcInfo = builtin_cc_info
