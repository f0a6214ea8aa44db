#include "ward/channel/secret.h"

#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"

namespace ward {
namespace {

constexpr size_t kMostShared = 4096;

}  // namespace

Secret::Secret(std::string_view bytes)
    : bytes_(new char[bytes.size()]), size_(bytes.size()) {
  bytes.copy(bytes_.get(), size_);
}

Secret::Secret(Secret&& other) noexcept
    : bytes_(std::move(other.bytes_)), size_(std::exchange(other.size_, 0)) {}

Secret& Secret::operator=(Secret&& other) noexcept {
  // What was here is wiped now, not whenever `other` goes.
  Secret taken(std::move(other));
  std::swap(bytes_, taken.bytes_);
  std::swap(size_, taken.size_);
  return *this;
}

Secret::~Secret() { Wipe(bytes_.get(), size_); }

absl::StatusOr<Secret> Secret::Generate() {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::array<unsigned char, 32> random;
  if (!FillWithRandom(random.data(), random.size())) {
    return SystemError(errno,
                       "draw a password (getrandom(2), which failed, and "
                       "/dev/urandom, which did not help)");
  }
  Secret secret;
  secret.size_ = 2 * random.size();
  secret.bytes_.reset(new char[secret.size_]);
  char* out = secret.bytes_.get();
  for (const unsigned char byte : random) {
    *out++ = kDigits[byte >> 4];
    *out++ = kDigits[byte & 15];
  }
  Wipe(random.data(), random.size());
  return secret;
}

bool Secret::Matches(std::string_view attempt) const {
  const bool fits = size_ > 0 && attempt.size() == size_;
  // One of another length is compared with itself, which takes as long.
  const char* const expected = fits ? bytes_.get() : attempt.data();
  const auto word = [](const char* bytes, size_t size) {
    uint64_t read = 0;
    std::memcpy(&read, bytes, size);
    return read;
  };
  // volatile: the compiler must not find out that it could stop early.
  volatile uint64_t difference = fits ? 0 : 1;
  size_t i = 0;
  for (; attempt.size() - i >= sizeof(uint64_t); i += sizeof(uint64_t)) {
    difference = difference | (word(attempt.data() + i, sizeof(uint64_t)) ^
                               word(expected + i, sizeof(uint64_t)));
  }
  for (; i < attempt.size(); ++i) {
    difference =
        difference | (word(attempt.data() + i, 1) ^ word(expected + i, 1));
  }
  return difference == 0;
}

absl::StatusOr<FileDescriptor> Secret::Share() const {
  if (empty() || size_ > kMostShared) {
    return MakeError(reason::kInvalidArguments,
                     absl::StrCat("share a password of ", size_,
                                  " bytes: it must have 1 to ", kMostShared));
  }
  constexpr std::string_view kAttempt =
      "put a password where another process reads it";
  std::array<int, 2> ends;
  // One send is one packet, whole (unix(7)), and stays when the end that it was
  // sent from is closed.
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return SystemError(errno, kAttempt);
  }
  const FileDescriptor writes = FileDescriptor::Opened(ends[0]);
  FileDescriptor reads = FileDescriptor::Opened(ends[1]);
  if (!writes.is_open() || !reads.is_open() ||
      send(writes.get(), bytes_.get(), size_, MSG_NOSIGNAL | MSG_DONTWAIT) !=
          static_cast<ssize_t>(size_)) {
    return SystemError(errno, kAttempt);
  }
  return reads;
}

absl::StatusOr<Secret> Secret::Adopt(const FileDescriptor& shared) {
  std::array<char, kMostShared + 1> bytes;
  const ssize_t got =
      recv(shared.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  Secret secret;
  if (got > 0 && static_cast<size_t>(got) <= kMostShared) {
    secret = Secret(std::string_view(bytes.data(), static_cast<size_t>(got)));
  }
  Wipe(bytes.data(), bytes.size());
  if (secret.empty()) {
    return MakeError(reason::kInvalidArguments,
                     "the descriptor that came holds no password");
  }
  return secret;
}

bool FillWithRandom(void* bytes, size_t size) {
  ssize_t got;
  // Up to 256 bytes never come short; only until the generator is seeded, at
  // the machine's start, can a signal come in between (getrandom(2)).
  do {
    got = getrandom(bytes, size, 0);
  } while (got < 0 && errno == EINTR);
  if (got == static_cast<ssize_t>(size)) return true;
  const int getrandom_error = errno;
  const FileDescriptor device =
      FileDescriptor::Opened(open("/dev/urandom", O_RDONLY | O_CLOEXEC));
  struct stat found {};
  // A jail may have anything there.
  const bool is_device = device.is_open() && fstat(device.get(), &found) == 0 &&
                         S_ISCHR(found.st_mode);
  // It gives up to 256 bytes at once, too (random(4)).
  if (is_device &&
      read(device.get(), bytes, size) == static_cast<ssize_t>(size)) {
    return true;
  }
  errno = getrandom_error;
  return false;
}

void Wipe(void* bytes, size_t size) {
  if (size > 0) explicit_bzero(bytes, size);
}

}  // namespace ward
