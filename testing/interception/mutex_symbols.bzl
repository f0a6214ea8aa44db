"""The linker's names of what takes an absl::Mutex."""

# Abseil's releases; each has its functions in a namespace of its own. "" is
# Abseil as it is between them.
_RELEASES = [
    "",
    "20220623",
    "20230125",
    "20230802",
    "20240116",
    "20240722",
    "20250127",
    "20250512",
    "20250814",
    "20260107",
    "20260526",
]

# As mangled, behind the class; %s is the namespace of absl::Condition and others.
# Since 2025 the first four have C++'s names, which come next; and since 2023 one
# function is under all that wait for a condition.
_FUNCTIONS = [
    "4LockEv",
    "10ReaderLockEv",
    "7TryLockEv",
    "13ReaderTryLockEv",
    "4lockEv",
    "11lock_sharedEv",
    "8try_lockEv",
    "15try_lock_sharedEv",
    "8LockWhenERK%s9ConditionE",
    "14ReaderLockWhenERK%s9ConditionE",
    "19LockWhenWithTimeoutERK%s9ConditionE%s8DurationE",
    "25ReaderLockWhenWithTimeoutERK%s9ConditionE%s8DurationE",
    "20LockWhenWithDeadlineERK%s9ConditionE%s4TimeE",
    "26ReaderLockWhenWithDeadlineERK%s9ConditionE%s4TimeE",
    "14LockWhenCommonERK%s9ConditionE%s24synchronization_internal13KernelTimeoutEb",
]

# For the linker, which passes over those that it does not meet. See
# absl_mutex.cc.
WRAP_MUTEX_LINKOPTS = [
    "-Wl,--wrap=_ZN4absl%s5Mutex%s" % (
        "12lts_" + release if release else "",
        function.replace("%s", "NS0_" if release else "NS_"),
    )
    for release in _RELEASES
    for function in _FUNCTIONS
]
