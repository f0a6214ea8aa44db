// Message::Unpack and UnpackArguments, over all types that there are: what fits
// comes out again as it was written, what does not leaves the message as it
// was.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/argument.h"
#include "ward/channel/bulk.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/proto/frame.pb.h"
#include "ward/testing/fuzz.h"

namespace ward {
namespace {

// What a descriptor holds that is fit for a bulk.
constexpr std::string_view kMemory = "bytes";

FileDescriptor SealedMemory() {
  FileDescriptor memory(memfd_create("bytes", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  WARD_FUZZ_CHECK(write(memory.get(), kMemory.data(), kMemory.size()) ==
                          static_cast<ssize_t>(kMemory.size()) &&
                      fcntl(memory.get(), F_ADD_SEALS,
                            F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) == 0,
                  "no memory");
  return memory;
}

// What was read from a part, written, reads the same.
template <typename Value>
void CheckWrittenAgain(const Value& value) {
  if constexpr (std::is_same_v<Value, FileDescriptor>) {
    WARD_FUZZ_CHECK(fcntl(value.get(), F_GETFD) >= 0, "it is not open");
  } else if constexpr (std::is_same_v<Value, Descriptors>) {
    const absl::Status status = value.Check();
    WARD_FUZZ_CHECK(status.ok(), status);
    for (const FileDescriptor& named : value.descriptors()) {
      CheckWrittenAgain(named);
    }
  } else if constexpr (std::is_same_v<Value, Bulk>) {
    if (internal::AttachedTo(value) > 0) {
      WARD_FUZZ_CHECK(value.bytes() == kMemory, "it is " << value.bytes());
      WARD_FUZZ_CHECK(Argument(value).memory() != nullptr, "it has no memory");
      return;
    }
    Bulk read;
    WARD_FUZZ_CHECK(internal::FromPart(Argument(value).view(), read),
                    "it is unfit: " << value.bytes());
    WARD_FUZZ_CHECK(read.bytes() == value.bytes(),
                    value.bytes() << " became " << read.bytes());
  } else {
    const Argument written(value);
    Value read;
    WARD_FUZZ_CHECK(internal::FromPart(written.view(), read),
                    "it is unfit: " << written.view());
    const Argument again(read);
    WARD_FUZZ_CHECK(again.view() == written.view(),
                    written.view() << " became " << again.view());
  }
}

template <bool kArguments, typename... Values>
void Unpack(const std::vector<std::string>& parts, size_t descriptors,
            bool are_memory) {
  static const FileDescriptor* const kNull =
      new FileDescriptor(open("/dev/null", O_RDONLY | O_CLOEXEC));
  static const FileDescriptor* const kSealed =
      new FileDescriptor(SealedMemory());
  const FileDescriptor& file = are_memory ? *kSealed : *kNull;
  std::vector<FileDescriptor> attached;
  const testing::FuzzDescriptorCheck no_descriptor_left;
  while (attached.size() < descriptors) {
    attached.emplace_back(fcntl(file.get(), F_DUPFD_CLOEXEC, 0));
  }
  Message message(parts, std::move(attached));
  auto values = [&] {
    if constexpr (kArguments) {
      return message.UnpackArguments<Values...>();
    } else {
      return message.Unpack<Values...>();
    }
  }();
  WARD_FUZZ_CHECK(message.parts() == parts, "the parts have changed");
  if (!values.ok()) {
    WARD_FUZZ_CHECK(HasReason(values.status(), reason::kInvalidArguments) ||
                        HasReason(values.status(), reason::kFrameTooLarge),
                    values.status());
    WARD_FUZZ_CHECK(message.descriptors().size() == descriptors,
                    message.descriptors().size() << " descriptors are left");
    return;
  }
  constexpr size_t kAlone =
      (size_t{0} + ... + size_t{std::is_same_v<Values, FileDescriptor>});
  const size_t named = std::apply(
      [](const auto&... value) {
        return (size_t{0} + ... + internal::AttachedTo(value));
      },
      *values);
  WARD_FUZZ_CHECK(descriptors == kAlone + named, "it had " << descriptors);
  WARD_FUZZ_CHECK(
      parts.size() == sizeof...(Values) - kAlone + (kArguments ? 1 : 0),
      "it had " << parts.size());
  WARD_FUZZ_CHECK(message.descriptors().empty(), "the message kept some");
  std::apply([](const auto&... value) { (CheckWrittenAgain(value), ...); },
             *values);
}

template <typename... Values>
void UnpackBoth(const std::vector<std::string>& parts, size_t descriptors,
                bool are_memory) {
  Unpack<true, Values...>(parts, descriptors, are_memory);
  Unpack<false, Values...>(parts, descriptors, are_memory);
}

}  // namespace
}  // namespace ward

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using ward::FileDescriptor;
  using ward::UnpackBoth;
  ward::testing::FuzzInput in(data, size);
  const uint8_t types = in.Byte();
  const uint8_t attached = in.Byte();
  const size_t descriptors = attached % 4;
  const bool memory = attached / 4 % 2 == 1;
  std::vector<std::string> parts;
  while (!in.empty()) parts.emplace_back(in.String());
  // Not in their order: inputs that there are keep their meaning.
  if (types == 252) {
    UnpackBoth<ward::Bulk>(parts, descriptors, memory);
    return 0;
  }
  if (types == 253) {
    UnpackBoth<ward::Bulk, std::string, FileDescriptor, ward::Bulk>(
        parts, descriptors, memory);
    return 0;
  }
  switch (types % 18) {
    case 0:
      UnpackBoth<>(parts, descriptors, memory);
      break;
    case 1:
      UnpackBoth<std::string>(parts, descriptors, memory);
      break;
    case 2:
      UnpackBoth<std::string_view, std::string>(parts, descriptors, memory);
      break;
    case 3:
      UnpackBoth<int8_t>(parts, descriptors, memory);
      break;
    case 4:
      UnpackBoth<uint8_t>(parts, descriptors, memory);
      break;
    case 5:
      UnpackBoth<int16_t, uint16_t>(parts, descriptors, memory);
      break;
    case 6:
      UnpackBoth<int32_t>(parts, descriptors, memory);
      break;
    case 7:
      UnpackBoth<uint32_t>(parts, descriptors, memory);
      break;
    case 8:
      UnpackBoth<int64_t>(parts, descriptors, memory);
      break;
    case 9:
      UnpackBoth<uint64_t>(parts, descriptors, memory);
      break;
    case 10:
      UnpackBoth<float>(parts, descriptors, memory);
      break;
    case 11:
      UnpackBoth<double>(parts, descriptors, memory);
      break;
    case 12:
      UnpackBoth<bool, bool>(parts, descriptors, memory);
      break;
    case 13:
      UnpackBoth<ward::proto::Frame>(parts, descriptors, memory);
      break;
    case 14:
      UnpackBoth<FileDescriptor, std::string, FileDescriptor>(
          parts, descriptors, memory);
      break;
    case 15:
      UnpackBoth<ward::Descriptors>(parts, descriptors, memory);
      break;
    case 16:
      UnpackBoth<ward::Descriptors, FileDescriptor, ward::Descriptors>(
          parts, descriptors, memory);
      break;
    default:
      UnpackBoth<std::string, int, FileDescriptor, bool, double,
                 ward::proto::Array>(parts, descriptors, memory);
  }
  return 0;
}
