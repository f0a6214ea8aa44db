#include "ward/channel/secret.h"

#include <string.h>
#include <sys/random.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>

namespace ward {

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

void Wipe(void* bytes, size_t size) {
  if (size > 0) explicit_bzero(bytes, size);
}

}  // namespace ward
