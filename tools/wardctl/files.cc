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
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/tools/wardctl/failure.h"
#include "ward/tools/wardctl/printable.h"

namespace ward::ctl {
namespace {

constexpr size_t kPiece = size_t{256} << 10;
constexpr size_t kMost = size_t{1} << 30;

// Calls `use` with one piece after the other.
absl::Status ForEachPiece(
    const FileDescriptor& from,
    absl::FunctionRef<absl::Status(std::string_view)> use) {
  struct stat found {};
  const bool is_file = fstat(from.get(), &found) == 0 && S_ISREG(found.st_mode);
  std::vector<char> piece(kPiece);
  for (off_t offset = 0;;) {
    const ssize_t got =
        is_file ? pread(from.get(), piece.data(), piece.size(), offset)
                : read(from.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return SystemError(errno, absl::StrCat("read ", NameOf(from)));
    }
    if (got == 0) return absl::OkStatus();
    offset += got;
    WARD_RETURN_IF_ERROR(use({piece.data(), static_cast<size_t>(got)}));
  }
}

}  // namespace

absl::StatusOr<FileDescriptor> OpenWord(const std::string& word) {
  std::string_view number = word;
  int fd = word == "-" ? STDIN_FILENO : -1;
  if (fd >= 0 ||
      (absl::ConsumePrefix(&number, "fd:") && absl::SimpleAtoi(number, &fd))) {
    absl::StatusOr<FileDescriptor> copy = FileDescriptor::DuplicateOf(fd);
    if (copy.ok()) return copy;
    return UsageError(absl::StrCat(word, ": ", copy.status().message()));
  }
  FileDescriptor file = FileDescriptor::Opened(
      open(word.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (file.is_open()) return file;
  return UsageError(SystemError(errno, absl::StrCat("open ", word)).message());
}

absl::StatusOr<std::string> ReadAll(const FileDescriptor& file) {
  std::string all;
  WARD_RETURN_IF_ERROR(
      ForEachPiece(file, [&](std::string_view piece) -> absl::Status {
        if (piece.size() > kMost - all.size()) {
          return UsageError(
              absl::StrCat(NameOf(file), " has over ", kMost, " bytes"));
        }
        absl::StrAppend(&all, piece);
        return absl::OkStatus();
      }));
  return all;
}

absl::Status CopyAll(const FileDescriptor& from, const FileDescriptor& to) {
  return ForEachPiece(from, [&](std::string_view piece) -> absl::Status {
    while (!piece.empty()) {
      const ssize_t put = write(to.get(), piece.data(), piece.size());
      if (put < 0 && errno != EINTR) {
        return SystemError(errno, absl::StrCat("write ", NameOf(to)));
      }
      if (put > 0) piece.remove_prefix(static_cast<size_t>(put));
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
