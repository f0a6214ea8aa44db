// A descriptor like any other, for what only passes it on.

#ifndef WARD_CHANNEL_OPEN_NULL_FOR_TEST_H_
#define WARD_CHANNEL_OPEN_NULL_FOR_TEST_H_

#include <fcntl.h>

#include "ward/channel/file_descriptor.h"

namespace ward {

inline FileDescriptor OpenNull() {
  return FileDescriptor(open("/dev/null", O_RDWR | O_CLOEXEC));
}

}  // namespace ward

#endif  // WARD_CHANNEL_OPEN_NULL_FOR_TEST_H_
