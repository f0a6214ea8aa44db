// Descriptors with names, as one argument of a message.
//
//   ward::Descriptors files;
//   files.Add("stdout", std::move(out));
//   files.Add("stderr", std::move(err));
//   WARD_RETURN_IF_ERROR(channel.Write("run", "make", files));
//
//   absl::Status Run(const std::string& program, ward::Descriptors files) {
//     WARD_ASSIGN_OR_RETURN(ward::FileDescriptor out, files.Take("stdout"));
//     ...
//
// For what has more than one or two of them, or not the same ones each time: a
// FileDescriptor alone is known by its place among the arguments. On the wire
// it is a part with the names, and the descriptors are attached
// (docs/protocol.md).
//
// Misuse: believing a name. The sender has chosen it; that "stdout" can be
// written to, or is a file at all, is for the receiver to check.

#ifndef WARD_CHANNEL_DESCRIPTORS_H_
#define WARD_CHANNEL_DESCRIPTORS_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ward/channel/conversions.h"
#include "ward/channel/file_descriptor.h"

namespace ward {

// Owns its descriptors, and closes those that are not taken. Move-only. Not
// thread-safe.
class Descriptors {
 public:
  // In bytes: as systemd's names of descriptors (sd_listen_fds_with_names(3)).
  static constexpr size_t kLongestName = 255;

  // Takes ownership. That the name is fit, and not there already, is for
  // Check(): a set that has grown wrong is not sent.
  void Add(std::string_view name, FileDescriptor descriptor);

  // Takes it out of the set. kInvalidArguments, with the names that there are.
  absl::StatusOr<FileDescriptor> Take(std::string_view name);

  // Those that were not taken yet, in the order in which they were added, or
  // sent; names()[i] is that of descriptors()[i].
  absl::Span<const std::string> names() const { return names_; }
  absl::Span<const FileDescriptor> descriptors() const { return descriptors_; }
  size_t size() const { return names_.size(); }

  // Whether it can be sent: kInvalidArguments, which a write of it returns, for
  // a name that is empty, over kLongestName or there twice, and for a
  // descriptor that is not open. What has come in a message is OK. How many a
  // message may have, ChannelLimits::max_descriptors says.
  absl::Status Check() const;

 private:
  friend class Argument;
  template <typename T>
  friend bool internal::FromPart(std::string_view part, T& value);
  template <typename T>
  friend void internal::TakeNext(std::vector<FileDescriptor>::iterator& next,
                                 T& value);

  // The part of the message.
  std::string NamesToPart() const;
  // The opposite; false if `part` is none. The descriptors must follow.
  bool NamesFromPart(std::string_view part);
  // One for each name.
  void TakeNext(std::vector<FileDescriptor>::iterator& next);

  std::vector<std::string> names_;
  std::vector<FileDescriptor> descriptors_;
};

}  // namespace ward

#endif  // WARD_CHANNEL_DESCRIPTORS_H_
