// A password in memory.
//
//   ward::Secret password = ward::Secret::Generate();
//   if (password.Matches(attempt)) ...
//
// It cannot be printed by accident (no conversion, no stream operator), is
// compared in constant time, and is wiped when destroyed. Misuse: copying
// `Expose()` into a std::string, where it outlives this object.

#ifndef WARD_CHANNEL_SECRET_H_
#define WARD_CHANNEL_SECRET_H_

#include <cstddef>
#include <memory>
#include <string_view>

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

  // 256 bits from the kernel's generator (getrandom(2)) as 64 hexadecimal
  // digits, so that a person can carry it too.
  static Secret Generate();

  Secret Copy() const { return Secret(Expose()); }

  bool empty() const { return size_ == 0; }

  // Whether `attempt` is this secret. How long it takes depends on the length
  // of `attempt` alone, not on where it differs: a peer that measures learns
  // nothing (the original compared with !=). An empty secret matches nothing:
  // one that was moved from, or never set, must not let everyone in.
  bool Matches(std::string_view attempt) const;

  std::string_view Expose() const { return {bytes_.get(), size_}; }

 private:
  std::unique_ptr<char[]> bytes_;
  size_t size_ = 0;
};

// Overwrites `size` bytes in a way that the compiler may not leave out.
void Wipe(void* bytes, size_t size);

}  // namespace ward

#endif  // WARD_CHANNEL_SECRET_H_
