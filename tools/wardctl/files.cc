#include "ward/tools/wardctl/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/tools/wardctl/failure.h"
#include "ward/tools/wardctl/printable.h"
#include "ward/tools/wardctl/time_limit.h"

namespace ward::ctl {
namespace {

constexpr size_t kPiece = size_t{256} << 10;
constexpr size_t kMost = size_t{1} << 30;

// Calls `use` with one piece after the other.
absl::Status ForEachPiece(
    const FileDescriptor& from, const TimeLimit& limit,
    absl::FunctionRef<absl::Status(std::string_view)> use) {
  struct stat found {};
  const bool is_file = fstat(from.get(), &found) == 0 && S_ISREG(found.st_mode);
  const std::string attempt = absl::StrCat("read ", NameOf(from));
  std::vector<char> piece(kPiece);
  for (off_t offset = 0;;) {
    // What never ends need not make one wait.
    WARD_RETURN_IF_ERROR(limit.Check(attempt));
    const ssize_t got =
        is_file ? pread(from.get(), piece.data(), piece.size(), offset)
                : read(from.get(), piece.data(), piece.size());
    if (got < 0) {
      WARD_RETURN_IF_ERROR(limit.MayTryAgain(attempt));
      continue;
    }
    if (got == 0) return absl::OkStatus();
    offset += got;
    WARD_RETURN_IF_ERROR(use({piece.data(), static_cast<size_t>(got)}));
  }
}

}  // namespace

absl::StatusOr<FileDescriptor> OpenFile(const std::string& name, int flags,
                                        absl::Time deadline) {
  const TimeLimit limit(deadline);
  while (true) {
    FileDescriptor file = FileDescriptor::Opened(
        open(name.c_str(), flags | O_CLOEXEC | O_NOCTTY, 0666));
    if (file.is_open()) return file;
    const absl::Status again = limit.MayTryAgain(absl::StrCat("open ", name));
    if (again.ok()) continue;
    return HasReason(again, ward::reason::kTimedOut)
               ? again
               : UsageError(again.message());
  }
}

absl::StatusOr<FileDescriptor> OpenWord(const std::string& word,
                                        absl::Time deadline) {
  std::string_view number = word;
  int fd = word == "-" ? STDIN_FILENO : -1;
  if (fd >= 0 ||
      (absl::ConsumePrefix(&number, "fd:") && absl::SimpleAtoi(number, &fd))) {
    absl::StatusOr<FileDescriptor> copy = FileDescriptor::DuplicateOf(fd);
    if (copy.ok()) return copy;
    return UsageError(absl::StrCat(word, ": ", copy.status().message()));
  }
  return OpenFile(word, O_RDONLY, deadline);
}

absl::StatusOr<std::string> ReadAll(const FileDescriptor& file,
                                    absl::Time deadline) {
  const TimeLimit limit(deadline);
  std::string all;
  WARD_RETURN_IF_ERROR(
      ForEachPiece(file, limit, [&](std::string_view piece) -> absl::Status {
        if (piece.size() > kMost - all.size()) {
          return UsageError(
              absl::StrCat(NameOf(file), " has over ", kMost, " bytes"));
        }
        absl::StrAppend(&all, piece);
        return absl::OkStatus();
      }));
  return all;
}

absl::Status CopyAll(const FileDescriptor& from, const FileDescriptor& to,
                     absl::Time deadline) {
  const TimeLimit limit(deadline);
  return ForEachPiece(from, limit, [&](std::string_view piece) -> absl::Status {
    while (!piece.empty()) {
      const ssize_t put = write(to.get(), piece.data(), piece.size());
      if (put < 0) {
        WARD_RETURN_IF_ERROR(
            limit.MayTryAgain(absl::StrCat("write ", NameOf(to))));
      } else {
        piece.remove_prefix(static_cast<size_t>(put));
      }
    }
    return absl::OkStatus();
  });
}

std::string NameOf(const FileDescriptor& descriptor) {
  std::error_code error;
  return absl::StrCat(
      "<",
      Printable(std::filesystem::read_symlink(
                    absl::StrCat("/proc/self/fd/", descriptor.get()), error)
                    .string()),
      ">");
}

}  // namespace ward::ctl
