// ReadHandOver: whatever comes on the link, it is what WriteHandOver would
// write or it is refused, and no descriptor stays.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/scripted_transport_for_test.h"
#include "ward/channel/secret.h"
#include "ward/channel/transport.h"
#include "ward/server/hand_over.h"
#include "ward/server/interceptor.h"
#include "ward/testing/fuzz.h"

namespace ward {
namespace {

// That come before the password.
constexpr size_t kOthers = 2;

FileDescriptor OpenNull() {
  static const FileDescriptor* const kNull =
      new FileDescriptor(open("/dev/null", O_RDWR | O_CLOEXEC));
  return FileDescriptor(fcntl(kNull->get(), F_DUPFD_CLOEXEC, 0));
}

// What may be in a password's place.
FileDescriptor TakePassword(testing::FuzzInput& in) {
  const uint8_t how = in.Byte();
  if (how % 4 == 0) return OpenNull();
  const std::string_view bytes = in.String();
  if (how % 4 == 1 && !bytes.empty()) return *Secret(bytes).Share();
  FileDescriptor file(memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  WARD_FUZZ_CHECK(
      ftruncate(file.get(), static_cast<off_t>(in.Number() % (1 << 20))) == 0,
      "ftruncate");
  constexpr int kSeals =
      F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  fcntl(file.get(), F_ADD_SEALS, how & 0x80 ? kSeals : in.Byte() & kSeals);
  return file;
}

// A channel that reads `bytes` with `descriptors`.
MessageChannel Incoming(std::string bytes,
                        std::vector<FileDescriptor> descriptors) {
  auto script = std::make_shared<Script>();
  Script::Piece piece;
  piece.bytes = std::move(bytes);
  piece.descriptors = std::move(descriptors);
  script->incoming.push_back(std::move(piece));
  return MessageChannel(std::make_unique<ScriptedTransport>(script));
}

// What WriteHandOver makes of it.
std::string Written(HandOver& given) {
  auto script = std::make_shared<Script>();
  MessageChannel out(std::make_unique<ScriptedTransport>(script));
  if (given.admits_peers) {
    given.options.admit_peer = [](const PeerCredentials&) { return true; };
  }
  if (given.has_interceptors) {
    given.options.interceptors = {std::make_shared<Interceptor>()};
  }
  const absl::Status written =
      WriteHandOver(out, given.options, given.ignore_password_errors,
                    given.listener, given.owners_end);
  WARD_FUZZ_CHECK(written.ok(), written);
  WARD_FUZZ_CHECK(script->attached.size() == 1 &&
                      script->attached[0].second.size() == kOthers + 1,
                  "descriptors are missing");
  return script->sent;
}

absl::StatusOr<HandOver> ReadAgain(const std::string& written,
                                   const Secret& password) {
  std::vector<FileDescriptor> descriptors;
  while (descriptors.size() < kOthers) descriptors.push_back(OpenNull());
  absl::StatusOr<FileDescriptor> shared = password.Share();
  WARD_FUZZ_CHECK(shared.ok(), shared.status());
  descriptors.push_back(*std::move(shared));
  MessageChannel in = Incoming(written, std::move(descriptors));
  return ReadHandOver(in);
}

}  // namespace
}  // namespace ward

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ward::OpenNull();
  const ward::testing::FuzzDescriptorCheck no_descriptor_left;
  ward::testing::FuzzInput in(data, size);
  std::vector<ward::FileDescriptor> descriptors;
  const uint8_t others = in.Byte();
  for (size_t i = 0; i < (others < 224 ? ward::kOthers : others % 8); ++i) {
    descriptors.push_back(ward::OpenNull());
  }
  if (others != 0xff) descriptors.push_back(ward::TakePassword(in));
  auto script = std::make_shared<ward::Script>();
  ward::MessageChannel writer(
      std::make_unique<ward::ScriptedTransport>(script));
  std::vector<std::string> parts = {std::string(ward::kHandOverName)};
  if (others % 16 == 1) parts.emplace_back(in.String());
  parts.emplace_back(in.Rest());
  const ward::Message message(std::move(parts), std::move(descriptors));
  const absl::Status written = writer.Write(message);
  WARD_FUZZ_CHECK(written.ok(), written);
  std::vector<ward::FileDescriptor> attached;
  for (const ward::FileDescriptor& descriptor : message.descriptors()) {
    attached.emplace_back(fcntl(descriptor.get(), F_DUPFD_CLOEXEC, 0));
  }
  ward::MessageChannel channel =
      ward::Incoming(script->sent, std::move(attached));
  absl::StatusOr<ward::HandOver> given = ward::ReadHandOver(channel);
  if (!given.ok()) return 0;
  WARD_FUZZ_CHECK(!given->options.password.empty(), "no password");
  const std::string text = ward::Written(*given);
  absl::StatusOr<ward::HandOver> again =
      ward::ReadAgain(text, given->options.password);
  WARD_FUZZ_CHECK(again.ok(), again.status());
  WARD_FUZZ_CHECK(
      again->options.password.Matches(given->options.password.Expose()),
      "another password");
  WARD_FUZZ_CHECK(ward::Written(*again) == text, "it says something else now");
  return 0;
}
