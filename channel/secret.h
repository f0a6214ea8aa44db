// A password in memory.
//
//   absl::StatusOr<ward::Secret> password = ward::Secret::Generate();
//   if (password->Matches(attempt)) ...
//
// It cannot be printed by accident (no conversion, no stream operator), is
// compared in constant time, and is wiped when destroyed. Misuse: copying
// `Expose()` into a std::string, where it outlives this object.

#ifndef WARD_CHANNEL_SECRET_H_
#define WARD_CHANNEL_SECRET_H_

#include <cstddef>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "ward/channel/file_descriptor.h"

namespace ward {

// Bytes, immutable; move-only, since each copy is one more place to wipe.
// Always on the heap: a moved short std::string leaves its bytes behind.
class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string_view bytes);
  Secret(Secret&& other) noexcept;
  Secret& operator=(Secret&& other) noexcept;
  ~Secret();

  // 256 bits of FillWithRandom's as 64 hexadecimal digits, so that a person can
  // carry it too. Fails only with that.
  static absl::StatusOr<Secret> Generate();

  Secret Copy() const { return Secret(Expose()); }

  bool empty() const { return size_ == 0; }

  // Whether `attempt` is this secret. How long it takes depends on the length
  // of `attempt` alone, not on where it differs: a peer that measures learns
  // nothing (the original compared with !=). An empty secret matches nothing:
  // one that was moved from, or never set, must not let everyone in.
  bool Matches(std::string_view attempt) const;

  std::string_view Expose() const { return {bytes_.get(), size_}; }

  // For one other process: a descriptor from which the bytes can be read once,
  // to be attached to a message. So they come into no buffer of a channel's,
  // and are gone when they have been read, or with the last copy of the
  // descriptor. It is one end of a pair of sockets whose other end is closed,
  // which neither a limit of files' sizes nor a sandbox forbids, as they do a
  // memfd. InvalidArgument for an empty secret, and for one of over 4 KiB.
  absl::StatusOr<FileDescriptor> Share() const;

  // From a descriptor of Share. What else it may be is the peer's word:
  // kInvalidArguments for anything that does not hold 1 byte to 4 KiB now.
  // Never waits.
  static absl::StatusOr<Secret> Adopt(const FileDescriptor& shared);

 private:
  std::unique_ptr<char[]> bytes_;
  size_t size_ = 0;
};

// `size` bytes, at most 256, from the kernel's generator: getrandom(2), or
// /dev/urandom where a sandbox denies that. If neither gives any it is false,
// and errno is getrandom's. Neither allocates nor locks, as the child of a fork
// must not.
bool FillWithRandom(void* bytes, size_t size);

// Overwrites `size` bytes in a way that the compiler may not leave out.
void Wipe(void* bytes, size_t size);

}  // namespace ward

#endif  // WARD_CHANNEL_SECRET_H_
