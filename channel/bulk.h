// A large value that travels as memory: it is passed, and not copied.
//
//   absl::StatusOr<ward::Bulk> Render(int width, int height) {  // a handler
//     WARD_ASSIGN_OR_RETURN(ward::BulkBuffer image,
//                           ward::AllocateBulk(size_t{4} * width * height));
//     Draw(image.bytes());
//     return std::move(image).Seal();
//   }
//
//   WARD_ASSIGN_OR_RETURN(ward::Bulk image, server.Call(kRender, 640, 480));
//   Show(image.bytes());
//
// It may be an argument wherever a string may. A small one, of up to
// kMostBytesInMessage, travels in its message. A larger one is a memfd whose
// content nobody can change any more, the sender included (memfd_create(2),
// "File sealing"): it is attached, and the receiver maps it, to read. To limits
// it is a descriptor, and has one of its own, ChannelLimits::max_bulk_bytes.
// docs/protocol.md has what it is on the wire.
//
// What is sent again and again, or read only in part, gains most: one that is
// kept costs its sender nothing, and each receiver what he looks at of it. One
// that is made anew for each call takes pages that are new: under some MiB a
// string is as fast. docs/calls.md has figures.
//
// Misuse:
// - Keeping bytes() longer than the last copy of its Bulk.
// - One that was made before the server is forked: there its memory's
//   descriptor is closed. InitializeServer is the place for one that is kept.
// - A secret: whoever has received the memory has it as long as he likes.
// - New ones, call after call, for clients that are not trusted: a client that
//   keeps what it gets keeps memory that the kernel has charged to the server.
//   Let such clients have one that is kept, strings, or a stream.

#ifndef WARD_CHANNEL_BULK_H_
#define WARD_CHANNEL_BULK_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ward/channel/conversions.h"
#include "ward/channel/file_descriptor.h"

namespace ward {
namespace internal {

// Some memory of a memfd, mapped from its beginning; or none.
class MappedMemory {
 public:
  MappedMemory() = default;
  // Owns what mmap(2) has returned, MAP_FAILED included.
  MappedMemory(void* begin, size_t size);
  MappedMemory(MappedMemory&& other) noexcept
      : begin_(std::exchange(other.begin_, nullptr)), size_(other.size_) {}
  MappedMemory& operator=(MappedMemory&& other) noexcept;
  ~MappedMemory();

  char* begin() const { return begin_; }
  bool is_mapped() const { return begin_ != nullptr; }

 private:
  char* begin_ = nullptr;
  size_t size_ = 0;
};

}  // namespace internal

// Bytes that do not change. Copies share them; they may be used on different
// threads, as those of a std::shared_ptr. What was moved from is empty. A large
// one has a descriptor open.
class Bulk {
 public:
  // In bytes. Up to here two copies cost less than a descriptor, and pages.
  static constexpr size_t kMostBytesInMessage = size_t{32} << 10;

  // Without bytes.
  Bulk() = default;

  // Good as long as there is this one, or a copy of it.
  std::string_view bytes() const;
  size_t size() const { return content_ == nullptr ? 0 : content_->size; }

 private:
  friend class BulkBuffer;
  friend class Argument;
  template <typename T>
  friend bool internal::FromPart(std::string_view part, T& value);
  template <typename T>
  friend size_t internal::AttachedTo(const T& value);
  template <typename T>
  friend bool internal::MapNext(
      std::vector<FileDescriptor>::const_iterator& next, size_t& part, T& value,
      size_t max_bulk_bytes, absl::Status& error);
  template <typename T>
  friend void internal::TakeNext(std::vector<FileDescriptor>::iterator& next,
                                 T& value);

  // Either `in_message`, or of `memory`.
  struct Content {
    size_t size = 0;
    std::string in_message;
    FileDescriptor memory;
    internal::MappedMemory mapped;
  };

  // The part of the message.
  std::string ToPart() const;
  // What is attached beside it, if anything is; otherwise null.
  const FileDescriptor* memory() const;

  // The opposite; false if `part` is none. If it has_memory(), Map and Own must
  // follow.
  bool FromPart(std::string_view part);
  bool has_memory() const;
  // Maps `memory`, which is a peer's. kFrameTooLarge for more than
  // `max_bytes`; kInvalidArguments if it is not what the part has said, not
  // all there, or can change.
  absl::Status Map(const FileDescriptor& memory, size_t max_bytes);
  void Own(FileDescriptor memory);

  std::shared_ptr<Content> content_;
};

// A Bulk that is being built. Move-only; for one thread at a time. A child that
// is forked meanwhile does not have its memory.
class BulkBuffer {
 public:
  // All zero at first. Where the value is built; until Seal().
  absl::Span<char> bytes();

  // What it has become: nobody changes it any more. It is copied if the kernel
  // is still to write to it for somebody, such as io_uring to a buffer.
  absl::StatusOr<Bulk> Seal() &&;

 private:
  friend absl::StatusOr<BulkBuffer> AllocateBulk(size_t size);

  size_t size_ = 0;
  std::string in_message_;
  FileDescriptor memory_;
  internal::MappedMemory mapped_;
};

// Memory for a value of `size` bytes, all of it at once: that there is no room
// for it is an error here, and no SIGBUS later. If it is more than is free, and
// not more than the machine has, the kernel may end a process for it, as for
// any memory that is used. Over kMostBytesInMessage it is an error where a
// sandbox denies memfd_create, or with an RLIMIT_FSIZE under it;
// kDescriptorTableFull.
absl::StatusOr<BulkBuffer> AllocateBulk(size_t size);

}  // namespace ward

#endif  // WARD_CHANNEL_BULK_H_
