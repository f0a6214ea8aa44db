// Protobuf messages of types that this program was not built with.

#ifndef WARD_TOOLS_WARDCTL_MESSAGES_H_
#define WARD_TOOLS_WARDCTL_MESSAGES_H_

#include <memory>
#include <set>
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

  // From protobuf's text format to bytes. kUsage, with line and column.
  absl::StatusOr<std::string> FromText(const std::string& type,
                                       const std::string& text) const;

  // The opposite; of a type that is not known with numbers for names.
  // kUnexpectedFrame if these are no such bytes.
  absl::StatusOr<std::string> ToText(const std::string& type,
                                     std::string_view bytes,
                                     bool in_one_line) const;

  // Those of `types` that are known, and all that these are made of, as in a
  // .proto file.
  std::string Definitions(const std::set<std::string>& types) const;

 private:
  struct Pool;
  std::unique_ptr<Pool> pool_;
};

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_MESSAGES_H_
