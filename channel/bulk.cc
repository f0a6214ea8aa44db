#include "ward/channel/bulk.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/proto/frame.pb.h"

namespace ward {
namespace {

// MFD_NOEXEC_SEAL, which is since Linux 6.3, and not in older headers.
constexpr unsigned kNoExecSeal = 8;

// What the kernel counts blocks in (stat(2)).
constexpr uint64_t kBlockBytes = 512;

// Neither content nor size changes any more.
constexpr int kUnchanging = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

FileDescriptor OpenMemory() {
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  // With vm.memfd_noexec at 2 there are no others; before 6.3 there are none.
  FileDescriptor memory =
      FileDescriptor::Opened(memfd_create("ward-bulk", kFlags | kNoExecSeal));
  if (memory.is_open() || errno != EINVAL) return memory;
  return FileDescriptor::Opened(memfd_create("ward-bulk", kFlags));
}

// As the kernel refuses a mapping that can be no honest one
// (vm.overcommit_memory at 0). It would not refuse this: it would end whatever
// process, for want of memory.
bool MachineHas(size_t size) {
  struct sysinfo machine;
  return sysinfo(&machine) != 0 ||
         size / machine.mem_unit <= machine.totalram + machine.totalswap;
}

// A SIGXFSZ would end the process (setrlimit(2), RLIMIT_FSIZE).
bool MayBeAFileOf(size_t size) {
  rlimit limit;
  return getrlimit(RLIMIT_FSIZE, &limit) != 0 || size <= limit.rlim_cur;
}

// New, with all its pages: what lacks memory is an error here, and no SIGBUS
// where it is written to.
absl::StatusOr<FileDescriptor> AllocateMemory(size_t size) {
  const auto failed = [size](int error, std::string_view call) {
    return SystemError(error, absl::StrCat("allocate a bulk of ", size,
                                           " bytes (", call, ")"));
  };
  if (!MachineHas(size)) return failed(ENOMEM, "this machine has less");
  if (!MayBeAFileOf(size)) return failed(EFBIG, "ulimit -f");
  FileDescriptor memory = OpenMemory();
  if (!memory.is_open()) return failed(errno, "memfd_create");
  // A call that a signal interrupts takes all back that it has allocated.
  constexpr size_t kPiece = size_t{1} << 20;
  for (size_t done = 0; done < size;) {
    const size_t piece = std::min(size - done, kPiece);
    if (fallocate(memory.get(), 0, static_cast<off_t>(done),
                  static_cast<off_t>(piece)) == 0) {
      done += piece;
    } else if (errno != EINTR) {
      return failed(errno, "fallocate");
    }
  }
  return memory;
}

// What is sealed against writing cannot be mapped MAP_SHARED before Linux 6.7.
internal::MappedMemory MapToRead(const FileDescriptor& memory, size_t size) {
  return {mmap(nullptr, size, PROT_READ, MAP_PRIVATE, memory.get(), 0), size};
}

absl::Status NotMapped(size_t size) {
  return SystemError(errno,
                     absl::StrCat("map a bulk of ", size, " bytes (mmap)"));
}

bool Seal(const FileDescriptor& memory) {
  return fcntl(memory.get(), F_ADD_SEALS, kUnchanging | F_SEAL_SEAL) == 0;
}

// The same bytes in memory of its own.
absl::StatusOr<FileDescriptor> Copied(std::string_view bytes) {
  WARD_ASSIGN_OR_RETURN(FileDescriptor copy, AllocateMemory(bytes.size()));
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t written =
        pwrite(copy.get(), bytes.data() + done, bytes.size() - done,
               static_cast<off_t>(done));
    if (written >= 0) {
      done += static_cast<size_t>(written);
    } else if (errno != EINTR) {
      return SystemError(errno, absl::StrCat("copy a bulk of ", bytes.size(),
                                             " bytes (pwrite)"));
    }
  }
  return copy;
}

// Whether all its pages are there. One that is not would be taken from the
// system by who reads it first, or end him with SIGBUS if there is none. Of
// those that were read and never written to the kernel may drop some later, and
// makes them anew: that they are there says that there was the memory for them.
bool IsAllThere(const FileDescriptor& memory, size_t size) {
  struct stat found;
  return fstat(memory.get(), &found) == 0 &&
         static_cast<uint64_t>(found.st_blocks) * kBlockBytes >= size;
}

absl::Status Unfit(std::string_view why) {
  return MakeError(
      reason::kInvalidArguments,
      absl::StrCat("the descriptor that came for a bulk is not fit: ", why));
}

// Whether nothing of `memory`, which is a peer's, can change, and all of the
// `size` bytes that were said are there. Of no file but a memfd does this ask
// for more than its seals: a file system in user space would be asked, too, and
// could let this wait for ever.
absl::Status CheckMemory(const FileDescriptor& memory, size_t size) {
  const int seals = fcntl(memory.get(), F_GET_SEALS);
  if (seals < 0) {
    return Unfit(absl::StrCat(
        "it is no memfd: ",
        absl::ErrnoToStatus(errno, "fcntl, F_GET_SEALS").message()));
  }
  if ((seals & kUnchanging) != kUnchanging) {
    return Unfit(
        "its sender can change it still: it is not sealed "
        "(F_ADD_SEALS) against writing, shrinking and growing");
  }
  // Whether one of huge pages is all there, cannot be told like this.
  struct statfs system;
  if (fstatfs(memory.get(), &system) != 0) {
    return SystemError(errno, "look at a bulk's memory (fstatfs)");
  }
  if (system.f_type != TMPFS_MAGIC) return Unfit("it has huge pages");
  // Before it is cut: to a size that is over RLIMIT_FSIZE that ends the
  // process, by SIGXFSZ, and looks at the seals later.
  struct stat found;
  if (fstat(memory.get(), &found) != 0 ||
      static_cast<uint64_t>(found.st_size) != size) {
    return Unfit(
        absl::StrCat("it has not the ", size, " bytes that were said"));
  }
  // Pages behind its end, which would be counted for missing ones before it,
  // are gone then.
  if (ftruncate(memory.get(), found.st_size) != 0) {
    return Unfit(
        absl::StrCat("it was opened to be read only: ",
                     absl::ErrnoToStatus(errno, "ftruncate").message()));
  }
  if (!IsAllThere(memory, size)) {
    return Unfit("its sender has not allocated all of its memory (fallocate)");
  }
  return absl::OkStatus();
}

}  // namespace

namespace internal {

MappedMemory::MappedMemory(void* begin, size_t size)
    : begin_(begin == MAP_FAILED ? nullptr : static_cast<char*>(begin)),
      size_(size) {}

MappedMemory& MappedMemory::operator=(MappedMemory&& other) noexcept {
  MappedMemory taken(std::move(other));
  std::swap(begin_, taken.begin_);
  std::swap(size_, taken.size_);
  return *this;
}

MappedMemory::~MappedMemory() {
  if (is_mapped()) munmap(begin_, size_);
}

}  // namespace internal

// --- Bulk ---

std::string_view Bulk::bytes() const {
  if (content_ == nullptr) return {};
  if (!content_->mapped.is_mapped()) return content_->in_message;
  return {content_->mapped.begin(), content_->size};
}

const FileDescriptor* Bulk::memory() const {
  if (content_ == nullptr || !content_->memory.is_open()) return nullptr;
  return &content_->memory;
}

std::string Bulk::ToPart() const {
  proto::Bulk part;
  if (memory() != nullptr) {
    part.set_size(size());
  } else {
    part.set_bytes(bytes().data(), size());
  }
  return part.SerializeAsString();
}

bool Bulk::FromPart(std::string_view part) {
  proto::Bulk said;
  if (!said.ParseFromArray(part.data(), static_cast<int>(part.size())) ||
      (said.size() != 0 && !said.bytes().empty()) ||
      said.size() > std::numeric_limits<size_t>::max()) {
    return false;
  }
  content_ = std::make_shared<Content>();
  content_->in_message = std::move(*said.mutable_bytes());
  content_->size = said.size() != 0 ? static_cast<size_t>(said.size())
                                    : content_->in_message.size();
  return true;
}

bool Bulk::has_memory() const {
  return size() > 0 && content_->in_message.empty();
}

absl::Status Bulk::Map(const FileDescriptor& memory, size_t max_bytes) {
  if (size() > max_bytes) {
    return MakeError(reason::kFrameTooLarge,
                     absl::StrCat("a bulk has ", size(), " bytes, over the ",
                                  max_bytes, " that are accepted here"));
  }
  WARD_RETURN_IF_ERROR(CheckMemory(memory, size()));
  content_->mapped = MapToRead(memory, size());
  return content_->mapped.is_mapped() ? absl::OkStatus() : NotMapped(size());
}

void Bulk::Own(FileDescriptor memory) { content_->memory = std::move(memory); }

// --- BulkBuffer ---

absl::Span<char> BulkBuffer::bytes() {
  if (mapped_.is_mapped()) return {mapped_.begin(), size_};
  return absl::MakeSpan(in_message_);
}

absl::StatusOr<Bulk> BulkBuffer::Seal() && {
  Bulk bulk;
  bulk.content_ = std::make_shared<Bulk::Content>();
  Bulk::Content& content = *bulk.content_;
  content.size = std::exchange(size_, 0);
  content.in_message = std::exchange(in_message_, {});
  if (!mapped_.is_mapped()) return bulk;
  content.memory = std::move(memory_);
  content.mapped = MapToRead(content.memory, content.size);
  if (!content.mapped.is_mapped()) return NotMapped(content.size);
  // What can still be written to by way of memory is not sealed.
  mapped_ = {};
  if (ward::Seal(content.memory)) return bulk;
  // A child has it, forked before the memory was kept from children; or the
  // kernel itself, for something that it is to read into it (memfd_create(2)).
  WARD_ASSIGN_OR_RETURN(FileDescriptor copy, Copied(bulk.bytes()));
  content.mapped = MapToRead(copy, content.size);
  if (!content.mapped.is_mapped()) return NotMapped(content.size);
  content.memory = std::move(copy);
  if (ward::Seal(content.memory)) return bulk;
  return SystemError(errno, absl::StrCat("seal a bulk of ", content.size,
                                         " bytes (fcntl, F_ADD_SEALS)"));
}

absl::StatusOr<BulkBuffer> AllocateBulk(size_t size) {
  BulkBuffer buffer;
  buffer.size_ = size;
  if (size <= Bulk::kMostBytesInMessage) {
    buffer.in_message_.resize(size);
    return buffer;
  }
  WARD_ASSIGN_OR_RETURN(buffer.memory_, AllocateMemory(size));
  buffer.mapped_ = {mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED,
                         buffer.memory_.get(), 0),
                    size};
  if (!buffer.mapped_.is_mapped()) return NotMapped(size);
  // A child that had it could not be told from somebody who writes to it.
  if (madvise(buffer.mapped_.begin(), size, MADV_DONTFORK) != 0) {
    return SystemError(errno, absl::StrCat("keep a bulk of ", size,
                                           " bytes from children (madvise)"));
  }
  return buffer;
}

}  // namespace ward
