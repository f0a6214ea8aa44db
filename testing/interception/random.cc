// Randomness from outside: under std::random_device and ward's passwords. The
// same in each run, or none could be repeated.

#include <sys/random.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>

#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/scheduler.h"

WARD_REAL(getrandom);
WARD_REAL(getentropy);

// std::random_device, which may ask the processor (GCC's libstdc++). Weak: a
// library that was linked statically keeps its own.
#define WARD_GETVAL "_ZNSt13random_device9_M_getvalEv"
static ward::testing::Real<unsigned, std::random_device*> real_getval(
    WARD_GETVAL, nullptr);
extern "C" unsigned WardGetval(std::random_device* device) __asm__(WARD_GETVAL)
    __attribute__((weak));

namespace ward::testing {
namespace {

void Fill(Scheduler& scheduler, void* buffer, size_t size) {
  auto* to = static_cast<char*>(buffer);
  while (size > 0) {
    const uint64_t number = scheduler.NextRandom();
    const size_t piece = std::min(size, sizeof(number));
    std::memcpy(to, &number, piece);
    to += piece;
    size -= piece;
  }
}

}  // namespace
}  // namespace ward::testing

using ::ward::testing::Scheduler;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

unsigned WardGetval(std::random_device* device) {
  Scheduler* const scheduler = ward::testing::Intercepting();
  if (scheduler == nullptr) return real_getval(device);
  return static_cast<unsigned>(scheduler->NextRandom());
}

ssize_t getrandom(void* buffer, size_t size, unsigned flags) {
  Scheduler* const scheduler = ward::testing::Intercepting();
  if (scheduler == nullptr) return real_getrandom(buffer, size, flags);
  ward::testing::Fill(*scheduler, buffer, size);
  return static_cast<ssize_t>(size);
}

int getentropy(void* buffer, size_t size) {
  Scheduler* const scheduler = ward::testing::Intercepting();
  if (scheduler == nullptr) return real_getentropy(buffer, size);
  ward::testing::Fill(*scheduler, buffer, size);
  return 0;
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"
