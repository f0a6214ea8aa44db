"""The linker's names of what Abseil orders threads by: its mutex above all."""

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

# As mangled, behind the namespace; %s is that of absl::Condition and others, %i that of
# what is in base_internal. Since 2025 those that lock and unlock have C++'s names, too;
# and since 2023 one function is under all that wait for a condition, and one under those
# that wait at a CondVar.
_FUNCTIONS = [
    "5Mutex4LockEv",
    "5Mutex10ReaderLockEv",
    "5Mutex7TryLockEv",
    "5Mutex13ReaderTryLockEv",
    "5Mutex4lockEv",
    "5Mutex11lock_sharedEv",
    "5Mutex8try_lockEv",
    "5Mutex15try_lock_sharedEv",
    "5Mutex6UnlockEv",
    "5Mutex12ReaderUnlockEv",
    "5Mutex6unlockEv",
    "5Mutex13unlock_sharedEv",
    "19ReleasableMutexLock7ReleaseEv",
    "7CondVar4WaitEP%s5MutexE",
    "7CondVar15WaitWithTimeoutEP%s5MutexE%s8DurationE",
    "7CondVar16WaitWithDeadlineEP%s5MutexE%s4TimeE",
    "7CondVar10WaitCommonEP%s5MutexE%s24synchronization_internal13KernelTimeoutE",
    "7CondVar6SignalEv",
    "7CondVar9SignalAllEv",
    "5Mutex8LockWhenERK%s9ConditionE",
    "5Mutex14ReaderLockWhenERK%s9ConditionE",
    "5Mutex19LockWhenWithTimeoutERK%s9ConditionE%s8DurationE",
    "5Mutex25ReaderLockWhenWithTimeoutERK%s9ConditionE%s8DurationE",
    "5Mutex20LockWhenWithDeadlineERK%s9ConditionE%s4TimeE",
    "5Mutex26ReaderLockWhenWithDeadlineERK%s9ConditionE%s4TimeE",
    "5Mutex14LockWhenCommonERK%s9ConditionE%s24synchronization_internal13KernelTimeoutEb",
    "5Mutex5AwaitERK%s9ConditionE",
    "5Mutex16AwaitWithTimeoutERK%s9ConditionE%s8DurationE",
    "5Mutex17AwaitWithDeadlineERK%s9ConditionE%s4TimeE",
    "5Mutex11AwaitCommonERK%s9ConditionE%s24synchronization_internal13KernelTimeoutE",
    "12Notification6NotifyEv",
    "15BlockingCounter14DecrementCountEv",
    "15BlockingCounter4WaitEv",
    "13base_internal12SpinLockWaitEPSt6atomicIjEiPK%i22SpinLockWaitTransitionE%i14SchedulingModeE",
]

_CONST_FUNCTIONS = [
    "12Notification19WaitForNotificationEv",
    "12Notification30WaitForNotificationWithTimeoutE%s8DurationE",
    "12Notification31WaitForNotificationWithDeadlineE%s4TimeE",
]

# For the linker, which passes over those that it does not meet. See
# absl_mutex.cc and absl_order.cc.
WRAP_MUTEX_LINKOPTS = [
    "-Wl,--wrap=%s4absl%s%s" % (
        kind,
        "12lts_" + release if release else "",
        function.replace("%s", "NS0_" if release else "NS_").replace("%i", "NS1_" if release else "NS0_"),
    )
    for release in _RELEASES
    for kind, functions in [("_ZN", _FUNCTIONS), ("_ZNK", _CONST_FUNCTIONS)]
    for function in functions
]
