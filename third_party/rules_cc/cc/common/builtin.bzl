"""What Bazel has built in, under names that can be given anew."""

builtin_cc_common = cc_common  # buildifier: disable=native-cc-common
builtin_cc_info = CcInfo  # buildifier: disable=native-cc-info
