// Exceptions that several threads have, by std::exception_ptr: the C++ library
// counts them, unseen, and whoever is the last destroys what was thrown. All
// that were before have come before that.

#include <exception>

#include "ward/testing/accesses/checker.h"
#include "ward/testing/simulator/order.h"

using ::ward::testing::AccessChecker;
using ::ward::testing::Order;

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): the
// linker's names, see library_calls.bzl.

void __real__ZNSt15__exception_ptr13exception_ptr10_M_releaseEv(
    std::exception_ptr* pointer);
void __real___cxa_end_catch();

void __wrap__ZNSt15__exception_ptr13exception_ptr10_M_releaseEv(
    std::exception_ptr* pointer) {
  // It has but the address of what was thrown.
  const void* const thrown = *reinterpret_cast<const void* const*>(pointer);
  AccessChecker::ReleaseAddress(thrown);
  Order::Acquire(thrown);
  __real__ZNSt15__exception_ptr13exception_ptr10_M_releaseEv(pointer);
}

void __wrap___cxa_end_catch() {
  {
    // One more, which is released as above.
    const std::exception_ptr caught = std::current_exception();
  }
  __real___cxa_end_catch();
}

// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
}  // extern "C"
