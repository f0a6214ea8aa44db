#include "ward/channel/secret.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"

namespace ward {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
constexpr off_t kMostShared = 4096;

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

Secret Secret::Generate() {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::array<unsigned char, 32> random;
  // Up to 256 bytes never come short, nor fail once the kernel's generator is
  // seeded (getrandom(2)).
  const ssize_t got = getrandom(random.data(), random.size(), 0);
  if (got != static_cast<ssize_t>(random.size())) abort();
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
  // volatile: the compiler must not find out that it could stop early.
  volatile unsigned char difference =
      size_ > 0 && attempt.size() == size_ ? 0 : 1;
  for (size_t i = 0; i < attempt.size(); ++i) {
    const char expected = size_ == 0 ? '\0' : bytes_[i % size_];
    difference = difference | static_cast<unsigned char>(attempt[i] ^ expected);
  }
  return difference == 0;
}

absl::StatusOr<FileDescriptor> Secret::Share() const {
  FileDescriptor memory(
      memfd_create("ward-secret", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  // A memfd takes all that is written at once, or has no memory for it.
  if (!memory.is_open() ||
      pwrite(memory.get(), bytes_.get(), size_, 0) !=
          static_cast<ssize_t>(size_) ||
      fcntl(memory.get(), F_ADD_SEALS, kSeals) != 0) {
    return SystemError(errno, "put a password where another process reads it");
  }
  return memory;
}

absl::StatusOr<Secret> Secret::Adopt(const FileDescriptor& shared) {
  struct stat found {};
  const bool sealed = fcntl(shared.get(), F_GET_SEALS) == kSeals;
  if (!sealed || fstat(shared.get(), &found) != 0 || found.st_size < 1 ||
      found.st_size > kMostShared) {
    return MakeError(reason::kInvalidArguments,
                     "the descriptor that came holds no password");
  }
  Secret secret;
  secret.size_ = static_cast<size_t>(found.st_size);
  secret.bytes_.reset(new char[secret.size_]);
  if (pread(shared.get(), secret.bytes_.get(), secret.size_, 0) !=
      found.st_size) {
    return SystemError(errno, "read the password that came");
  }
  return secret;
}

void Wipe(void* bytes, size_t size) {
  if (size > 0) explicit_bzero(bytes, size);
}

}  // namespace ward
