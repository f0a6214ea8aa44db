// Whole files, and what else can be read to its end.

#ifndef WARD_TOOLS_WARDCTL_FILES_H_
#define WARD_TOOLS_WARDCTL_FILES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/file_descriptor.h"

namespace ward::ctl {

// What a word stands for that is a file: "-" is standard input, "fd:N" is
// descriptor N, as the shell opens it (`N<file`, `N>file`); all else is the
// name of a file to be read. kUsage.
absl::StatusOr<FileDescriptor> OpenWord(const std::string& word);

// To its end. At most 1 GiB.
absl::StatusOr<std::string> ReadAll(const FileDescriptor& file);

// What `from` can be read for, into `to`: a regular file from its beginning,
// whatever its sender has read of it.
absl::Status CopyAll(const FileDescriptor& from, const FileDescriptor& to);

// What `descriptor` leads to, such as "</etc/hosts>".
std::string NameOf(const FileDescriptor& descriptor);

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_FILES_H_
