#include "ward/testing/accesses/built/assembled.h"

// NOLINTNEXTLINE(readability-identifier-naming): of assembled.S.
extern "C" int ward_assembled_twice(int number);

namespace ward::testing {

int AssembledTwice(int number) { return ward_assembled_twice(number); }

void CountBesideAssembled(int& counter) { ++counter; }

}  // namespace ward::testing
