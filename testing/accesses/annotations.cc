// What code says of its accesses, where it is compiled with -fsanitize=thread:
// by absl/base/dynamic_annotations.h (ABSL_ANNOTATE_BENIGN_RACE and others) and
// sanitizer/tsan_interface.h.

#include <cstddef>
#include <cstdint>

#include "ward/testing/accesses/checker.h"
#include "ward/testing/simulator/order.h"

using ::ward::testing::AccessChecker;
using ::ward::testing::CheckedThread;
using ::ward::testing::Order;

namespace {

// Of sanitizer/tsan_interface.h.
constexpr unsigned kTryLockFailed = 1U << 5;
constexpr unsigned kReadLock = 1U << 3;

void Ignore(int CheckedThread::*accesses, int more) {
  CheckedThread* const self = AccessChecker::Looking();
  if (self != nullptr) self->*accesses += more;
}

}  // namespace

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)

void AnnotateBenignRaceSized(const char*, int, const volatile void* address,
                             size_t size, const char*) {
  AccessChecker::AddBenign(address, size);
}

void AnnotateIgnoreReadsBegin(const char*, int) {
  Ignore(&CheckedThread::unseen_reads, 1);
}
void AnnotateIgnoreReadsEnd(const char*, int) {
  Ignore(&CheckedThread::unseen_reads, -1);
}
void AnnotateIgnoreWritesBegin(const char*, int) {
  Ignore(&CheckedThread::unseen_writes, 1);
}
void AnnotateIgnoreWritesEnd(const char*, int) {
  Ignore(&CheckedThread::unseen_writes, -1);
}

void AnnotateHappensBefore(const char*, int, const volatile void* object) {
  AccessChecker::ReleaseAddress(const_cast<const void*>(object));
}
void AnnotateHappensAfter(const char*, int, const volatile void* object) {
  Order::Acquire(const_cast<const void*>(object));
}
void __tsan_release(void* object) { AccessChecker::ReleaseAddress(object); }
void __tsan_acquire(void* object) { Order::Acquire(object); }

// Locks of the program's own. (Abseil's are told of otherwise: while it works,
// nothing is looked at.)
void __tsan_mutex_create(void*, unsigned) {}
void __tsan_mutex_destroy(void*, unsigned) {}
void __tsan_mutex_pre_lock(void*, unsigned) {}
void __tsan_mutex_post_lock(void* lock, unsigned flags, int) {
  if (AccessChecker::Looking() == nullptr) return;
  if ((flags & kTryLockFailed) != 0) return;
  Order::Locked(lock, (flags & kReadLock) != 0 ? Order::Lock::kShared
                                               : Order::Lock::kExclusive);
}
int __tsan_mutex_pre_unlock(void* lock, unsigned) {
  if (AccessChecker::Looking() != nullptr) Order::Unlocked(lock);
  return 0;
}
void __tsan_mutex_post_unlock(void*, unsigned) {}
void __tsan_mutex_pre_signal(void*, unsigned) {}
void __tsan_mutex_post_signal(void*, unsigned) {}
void __tsan_mutex_pre_divert(void*, unsigned) {}
void __tsan_mutex_post_divert(void*, unsigned) {}
void AnnotateRWLockCreate(const char*, int, const volatile void*) {}
void AnnotateRWLockCreateStatic(const char*, int, const volatile void*) {}
void AnnotateRWLockDestroy(const char*, int, const volatile void*) {}
void AnnotateRWLockAcquired(const char*, int, const volatile void* lock,
                            long is_write) {
  Order::Locked(const_cast<const void*>(lock),
                is_write == 0 ? Order::Lock::kShared : Order::Lock::kExclusive);
}
void AnnotateRWLockReleased(const char*, int, const volatile void* lock, long) {
  Order::Unlocked(const_cast<const void*>(lock));
}

void AnnotateMemoryIsInitialized(const char*, int, const volatile void*,
                                 size_t) {}
void AnnotateEnableRaceDetection(const char*, int, int) {}
void AnnotateThreadName(const char*, int, const char*) {}

// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
}  // extern "C"
