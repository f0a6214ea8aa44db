// What a fuzz target is made of.
//
//   extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
//     ward::testing::FuzzInput in(data, size);
//     const std::string_view name = in.String();
//     const uint64_t count = in.Number();
//     WARD_FUZZ_CHECK(Parse(Format(name, count)) == name, "it was " << name);
//     return 0;
//   }
//
// ward_fuzz_test (defs.bzl) makes a target of it, which libFuzzer drives where
// it is built with --config=fuzz, and which elsewhere is a test that runs over
// a folder of inputs; docs/testing.md has the commands.

#ifndef WARD_TESTING_FUZZ_H_
#define WARD_TESTING_FUZZ_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>

// Ends the process, which is how libFuzzer learns of a failure, unless
// `condition` holds; prints both and `why`, of which << may make several.
#define WARD_FUZZ_CHECK(condition, why)                                       \
  do {                                                                        \
    if (!(condition)) {                                                       \
      std::ostringstream ward_why;                                            \
      ward_why << why; /* NOLINT(bugprone-macro-parentheses): a row of <<. */ \
      ::ward::testing::FailFuzzing(__FILE__, __LINE__, #condition,            \
                                   ward_why.str());                           \
    }                                                                         \
  } while (false)

namespace ward::testing {

// For WARD_FUZZ_CHECK.
[[noreturn]] void FailFuzzing(const char* file, int line, const char* condition,
                              const std::string& why);

// An input, taken apart from its beginning. At its end, zeros and nothing come:
// every input means something. Small changes of it make small ones of what is
// taken.
class FuzzInput {
 public:
  // Borrowed.
  FuzzInput(const uint8_t* data, size_t size)
      : rest_(reinterpret_cast<const char*>(data), size) {}
  explicit FuzzInput(std::string_view bytes) : rest_(bytes) {}

  bool empty() const { return rest_.empty(); }

  uint8_t Byte() {
    const std::string_view byte = Bytes(1);
    return byte.empty() ? 0 : static_cast<uint8_t>(byte[0]);
  }
  bool Bool() { return (Byte() & 1) != 0; }

  // Up to 239, or one at which something ends.
  uint64_t Number() {
    constexpr std::array<uint64_t, 16> kEdges = {
        240,       255,        256,        4095,       4096,       4097,
        65535,     65536,      0x7fffffff, 0x80000000, 0xffffffff, 0x100000000,
        INT64_MAX, 1ULL << 63, UINT64_MAX, 16ULL << 20};
    const uint8_t byte = Byte();
    return byte < 240 ? byte : kEdges.at(byte - 240);
  }

  // At most `size`, less where the input ends.
  std::string_view Bytes(size_t size) {
    const std::string_view bytes = rest_.substr(0, size);
    rest_.remove_prefix(bytes.size());
    return bytes;
  }
  // Of at most 255 bytes.
  std::string_view String() { return Bytes(Byte()); }
  std::string_view Rest() { return Bytes(rest_.size()); }

 private:
  std::string_view rest_;
};

// Fails for descriptors that are open at its end and were not at its beginning.
class FuzzDescriptorCheck {
 public:
  FuzzDescriptorCheck();
  FuzzDescriptorCheck(const FuzzDescriptorCheck&) = delete;
  FuzzDescriptorCheck& operator=(const FuzzDescriptorCheck&) = delete;
  ~FuzzDescriptorCheck();

 private:
  // The lowest number that is free tells as much as the whole table does, for
  // two system calls.
  const int lowest_free_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_FUZZ_H_
