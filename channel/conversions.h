// Between the parts of a message and values of the user's, as ward's own types
// that stand for more than their part know them: to befriend them. Defined in
// argument.h, and in message.h.

#ifndef WARD_CHANNEL_CONVERSIONS_H_
#define WARD_CHANNEL_CONVERSIONS_H_

#include <cstddef>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "ward/channel/file_descriptor.h"

namespace ward::internal {

template <typename T>
bool FromPart(std::string_view part, T& value);
template <typename T>
size_t AttachedTo(const T& value);
template <typename T>
bool MapNext(std::vector<FileDescriptor>::const_iterator& next, size_t& part,
             T& value, size_t max_bulk_bytes, absl::Status& error);
template <typename T>
void TakeNext(std::vector<FileDescriptor>::iterator& next, T& value);

}  // namespace ward::internal

#endif  // WARD_CHANNEL_CONVERSIONS_H_
