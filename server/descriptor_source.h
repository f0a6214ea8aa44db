// Where a server has what protobuf's full runtime knows of its messages. For
// abstract_server.cc, which does without that runtime; //server:descriptor_set
// fills it in where a program links that.

#ifndef WARD_SERVER_DESCRIPTOR_SOURCE_H_
#define WARD_SERVER_DESCRIPTOR_SOURCE_H_

#include <atomic>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace ward::internal {

// The .proto files that these types are in, by their full names, and those that
// they import, which come first: for each a serialized
// google.protobuf.FileDescriptorSet of that file alone. A type that is not
// known, such as one of the lite runtime's, has none.
using DescriptorSource =
    std::vector<std::string> (*)(absl::Span<const std::string> types);

// Null where it is not linked.
inline std::atomic<DescriptorSource> descriptor_source{nullptr};

}  // namespace ward::internal

#endif  // WARD_SERVER_DESCRIPTOR_SOURCE_H_
