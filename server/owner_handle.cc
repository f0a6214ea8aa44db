#include "ward/server/owner_handle.h"

#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"

namespace ward {
namespace {

constexpr std::string_view kName = "ward.owner";

}  // namespace

absl::StatusOr<OwnerHandle> OwnerHandle::Duplicate() const {
  OwnerHandle copy;
  WARD_ASSIGN_OR_RETURN(copy.owners_end_,
                        FileDescriptor::DuplicateOf(owners_end_.get()));
  WARD_ASSIGN_OR_RETURN(copy.process_,
                        FileDescriptor::DuplicateOf(process_.get()));
  WARD_ASSIGN_OR_RETURN(copy.listener_.name,
                        FileDescriptor::DuplicateOf(listener_.name.get()));
  copy.listener_.path = listener_.path;
  copy.listener_.private_directory = listener_.private_directory;
  copy.password_ = password_.Copy();
  return copy;
}

absl::Status OwnerHandle::WriteTo(MessageChannel& channel) const {
  WARD_ASSIGN_OR_RETURN(const FileDescriptor password, password_.Share());
  return channel.Write(kName, listener_.path, listener_.private_directory,
                       owners_end_, process_, listener_.name, password);
}

absl::StatusOr<OwnerHandle> OwnerHandle::ReadFrom(MessageChannel& channel) {
  WARD_ASSIGN_OR_RETURN(Message message, channel.Read());
  return FromMessage(message);
}

absl::StatusOr<OwnerHandle> OwnerHandle::FromMessage(Message& message) {
  if (message.name() != kName) {
    return MakeError(reason::kInvalidArguments,
                     "expected the handle of a server's owner, got another "
                     "message");
  }
  WARD_ASSIGN_OR_RETURN(
      auto parts,
      (message
           .UnpackArguments<std::string, bool, FileDescriptor, FileDescriptor,
                            FileDescriptor, FileDescriptor>()));
  OwnerHandle handle;
  FileDescriptor password;
  std::tie(handle.listener_.path, handle.listener_.private_directory,
           handle.owners_end_, handle.process_, handle.listener_.name,
           password) = std::move(parts);
  WARD_ASSIGN_OR_RETURN(handle.password_, Secret::Adopt(password));
  return handle;
}

}  // namespace ward
