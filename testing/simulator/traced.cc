#include "ward/testing/simulator/traced.h"

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <string_view>

namespace ward::testing {

bool IsTraced() {
  const int status = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  if (status < 0) return false;
  std::array<char, 4096> text;
  const ssize_t size = read(status, text.data(), text.size());
  close(status);
  const std::string_view found(text.data(),
                               size < 0 ? 0 : static_cast<size_t>(size));
  constexpr std::string_view kField = "TracerPid:\t";
  const size_t at = found.find(kField);
  return at != std::string_view::npos &&
         found.substr(at + kField.size(), 1) != "0";
}

}  // namespace ward::testing
