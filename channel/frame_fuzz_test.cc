#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "ward/channel/frame_reference_for_test.h"
#include "ward/testing/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const std::string fault = ward::FaultOfParseFrame(body);
  WARD_FUZZ_CHECK(fault.empty(), fault);
  return 0;
}
