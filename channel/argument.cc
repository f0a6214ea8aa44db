#include "ward/channel/argument.h"

#include <initializer_list>

#include "absl/status/status.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"

namespace ward::internal {

absl::Status AddArguments(std::initializer_list<Argument> arguments,
                          BorrowedMessage& message) {
  for (const Argument& argument : arguments) {
    if (argument.descriptor() != nullptr) {
      message.descriptors.push_back(argument.descriptor()->get());
      continue;
    }
    message.parts.push_back(argument.view());
    if (argument.memory() != nullptr) {
      message.descriptors.push_back(argument.memory()->get());
    }
    if (argument.named() == nullptr) continue;
    WARD_RETURN_IF_ERROR(argument.named()->Check());
    for (const FileDescriptor& named : argument.named()->descriptors()) {
      message.descriptors.push_back(named.get());
    }
  }
  return absl::OkStatus();
}

}  // namespace ward::internal
