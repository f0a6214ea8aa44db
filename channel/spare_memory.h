// Memory for what comes and goes with each connection: a piece that a thread
// has freed serves the next of the same size that it needs.
//
//   class Thing : public internal::InSpareMemory {...};
//   auto thing = std::make_unique<Thing>();
//
// Each thread keeps one or two pieces of each of a few sizes, until it ends.
// Misuse: for what has many sizes; the first ones are kept, the others come
// from operator new as ever.

#ifndef WARD_CHANNEL_SPARE_MEMORY_H_
#define WARD_CHANNEL_SPARE_MEMORY_H_

#include <cstddef>
#include <memory>
#include <utility>

namespace ward::internal {

// As operator new and operator delete.
void* TakeSpare(size_t size);
void GiveSpare(void* memory, size_t size) noexcept;

// A base class whose objects, with what is derived from them, lie in it.
class InSpareMemory {
 public:
  // NOLINTNEXTLINE(misc-new-delete-overloads): its operator delete has a size.
  static void* operator new(size_t size) { return TakeSpare(size); }
  static void operator delete(void* memory, size_t size) {
    GiveSpare(memory, size);
  }
};

// What std::allocator is, for one object at a time.
template <typename T>
struct SpareAllocator {
  using value_type = T;

  SpareAllocator() = default;
  template <typename Other>
  // NOLINTNEXTLINE(google-explicit-constructor): as allocators are converted.
  SpareAllocator(const SpareAllocator<Other>& /*other*/) {}

  T* allocate(size_t count) {
    return static_cast<T*>(TakeSpare(count * sizeof(T)));
  }
  void deallocate(T* memory, size_t count) noexcept {
    GiveSpare(memory, count * sizeof(T));
  }

  template <typename Other>
  bool operator==(const SpareAllocator<Other>& /*other*/) const {
    return true;
  }
  template <typename Other>
  bool operator!=(const SpareAllocator<Other>& /*other*/) const {
    return false;
  }
};

// `owned`, to be shared.
template <typename T>
std::shared_ptr<T> Shared(std::unique_ptr<T> owned) {
  return std::shared_ptr<T>(owned.release(), std::default_delete<T>(),
                            SpareAllocator<T>());
}

}  // namespace ward::internal

#endif  // WARD_CHANNEL_SPARE_MEMORY_H_
