// Whole files, and what else can be read to its end. Each of these fails with
// kTimedOut when that takes longer than until `deadline`: pipes are as slow as
// who writes to them. See TimeLimit.

#ifndef WARD_TOOLS_WARDCTL_FILES_H_
#define WARD_TOOLS_WARDCTL_FILES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/file_descriptor.h"

namespace ward::ctl {

// As open(2), which waits for the other end of a FIFO. kUsage.
absl::StatusOr<FileDescriptor> OpenFile(const std::string& name, int flags,
                                        absl::Time deadline);

// What a word stands for that is a file: "-" is standard input, "fd:N" is
// descriptor N, as the shell opens it (`N<file`, `N>file`); all else is the
// name of a file to be read. kUsage.
absl::StatusOr<FileDescriptor> OpenWord(const std::string& word,
                                        absl::Time deadline);

// To its end. At most 1 GiB.
absl::StatusOr<std::string> ReadAll(const FileDescriptor& file,
                                    absl::Time deadline);

// What `from` can be read for, into `to`: a regular file from its beginning,
// whatever its sender has read of it.
absl::Status CopyAll(const FileDescriptor& from, const FileDescriptor& to,
                     absl::Time deadline);

// What `descriptor` leads to, such as "</etc/hosts>".
std::string NameOf(const FileDescriptor& descriptor);

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_FILES_H_
