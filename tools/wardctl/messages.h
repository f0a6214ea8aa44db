// Protobuf messages of types that this program was not built with.

#ifndef WARD_TOOLS_WARDCTL_MESSAGES_H_
#define WARD_TOOLS_WARDCTL_MESSAGES_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ward::ctl {

// For one thread.
class Messages {
 public:
  // Knows none.
  Messages();
  ~Messages();
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;

  // The types in a serialized google.protobuf.FileDescriptorSet, in which a
  // file comes behind those that it imports. InvalidArgument.
  absl::Status Add(std::string_view descriptor_set);

  bool Know(const std::string& type) const;

  // From protobuf's text format to bytes. kUsage, with line and column.
  absl::StatusOr<std::string> FromText(const std::string& type,
                                       const std::string& text) const;

  // The opposite; of a type that is not known with numbers for names.
  // kUnexpectedFrame if these are no such bytes.
  absl::StatusOr<std::string> ToText(const std::string& type,
                                     std::string_view bytes,
                                     bool in_one_line) const;

  // As in a .proto file; empty for a type that is not known.
  std::string Definition(const std::string& type) const;

 private:
  struct Pool;
  std::unique_ptr<Pool> pool_;
};

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_MESSAGES_H_
