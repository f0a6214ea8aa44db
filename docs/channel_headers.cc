// The examples of the headers in channel/, so that they compile.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ward/channel/buffer_budget.h"
#include "ward/channel/bulk.h"
#include "ward/channel/descriptor_budget.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/client.h"
#include "ward/server/method.h"

namespace channel_headers {

using ::ward::FileDescriptor;

// --- buffer_budget.h ---

void Buffer(ward::MessageChannel& channel) {
  const auto budget = std::make_shared<ward::BufferBudget>(size_t{64} << 20);
  channel.set_buffer_budget(budget);  // of each
}

// --- bulk.h ---

constexpr ward::Method<ward::Arguments<int, int>, ward::Bulk> kRender{"render"};

void Draw(absl::Span<char> image);
void Show(std::string_view image);

absl::StatusOr<ward::Bulk> Render(int width, int height) {  // a handler
  WARD_ASSIGN_OR_RETURN(ward::BulkBuffer image,
                        ward::AllocateBulk(size_t{4} * width * height));
  Draw(image.bytes());
  return std::move(image).Seal();
}

absl::Status Call(ward::Client& server) {
  WARD_ASSIGN_OR_RETURN(ward::Bulk image, server.Call(kRender, 640, 480));
  Show(image.bytes());
  return absl::OkStatus();
}

// --- descriptor_budget.h ---

void Hold(ward::MessageChannel& channel,
          const std::optional<ward::PeerCredentials>& peer) {
  const auto budget = std::make_shared<ward::DescriptorBudget>(128);
  channel.set_descriptor_budget(budget, peer->pid);  // of each
}

// --- descriptors.h ---

absl::Status Attach(ward::MessageChannel& channel, FileDescriptor out,
                    FileDescriptor err) {
  ward::Descriptors files;
  files.Add("stdout", std::move(out));
  files.Add("stderr", std::move(err));
  WARD_RETURN_IF_ERROR(channel.Write("run", "make", files));
  return absl::OkStatus();
}

absl::Status Run(const std::string& program, ward::Descriptors files) {
  WARD_ASSIGN_OR_RETURN(ward::FileDescriptor out, files.Take("stdout"));
  return dup2(out.get(), 1) < 0 ? ward::SystemError(errno, program)
                                : absl::OkStatus();
}

// --- error.h ---

void Start(ward::AbstractServer& server) {
  absl::Status status = server.Start();
  if (ward::HasReason(status, ward::reason::kPathTaken)) {
    Show(status.message());
  }
}

// --- file_descriptor.h ---

absl::Status Log() {
  FileDescriptor log(open("log", O_WRONLY | O_CLOEXEC));  // takes ownership
  if (write(log.get(), "a line\n", 7) < 0) {              // lends it
    return ward::SystemError(errno, "write to log");
  }
  absl::StatusOr<FileDescriptor> copy = FileDescriptor::DuplicateOf(0);
  return copy.status();
}

// --- message.h ---

absl::Status Unpack(ward::MessageChannel& channel) {
  WARD_ASSIGN_OR_RETURN(ward::Message reply, channel.Read());
  reply[0];                                        // the first part
  auto values = reply.Unpack<std::string, int>();  // StatusOr<tuple<...>>
  return values.status();
}

// --- message_channel.h ---

absl::Status Pair(const FileDescriptor& file) {
  WARD_ASSIGN_OR_RETURN(auto ends, ward::MessageChannel::CreatePair());
  auto& [here, there] = ends;
  WARD_RETURN_IF_ERROR(here.Write("open", "/etc/hosts", 0600));
  WARD_ASSIGN_OR_RETURN(ward::Message request, there.Read());
  WARD_RETURN_IF_ERROR(there.Write("opened", file));  // a FileDescriptor
  return absl::OkStatus();
}

// --- secret.h ---

void Check(std::string_view attempt) {
  absl::StatusOr<ward::Secret> password = ward::Secret::Generate();
  if (password->Matches(attempt)) Show("right");
}

// --- status_macros.h ---

absl::Status Greet(ward::MessageChannel& channel, std::string_view name) {
  WARD_RETURN_IF_ERROR(channel.Write("hello", name));
  WARD_ASSIGN_OR_RETURN(ward::Message reply, channel.Read());
  return absl::OkStatus();
}

}  // namespace channel_headers
