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

# As mangled, behind the class. The later ones are C++'s names, which Abseil has
# taken over.
_FUNCTIONS = [
    "4LockEv",
    "10ReaderLockEv",
    "7TryLockEv",
    "13ReaderTryLockEv",
    "4lockEv",
    "11lock_sharedEv",
    "8try_lockEv",
    "15try_lock_sharedEv",
]

# For the linker, which passes over those that it does not meet. See
# link_time_hooks.cc.
WRAP_MUTEX_LINKOPTS = [
    "-Wl,--wrap=_ZN4absl%s5Mutex%s" % ("12lts_" + release if release else "", function)
    for release in _RELEASES
    for function in _FUNCTIONS
]
