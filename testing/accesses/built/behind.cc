#include "ward/testing/accesses/built/behind.h"

namespace ward::testing {

void CountBehind(int& counter) { ++counter; }

}  // namespace ward::testing
