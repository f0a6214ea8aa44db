#include "ward/channel/spare_memory.h"

#include <array>
#include <cstddef>
#include <new>
#include <utility>

#include "absl/base/config.h"

#ifdef ABSL_HAVE_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#else
// What lies in a piece that is kept is nobody's to read.
#define ASAN_POISON_MEMORY_REGION(memory, size)
#define ASAN_UNPOISON_MEMORY_REGION(memory, size)
#endif

namespace ward::internal {
namespace {

// Of a client, or of a thread that serves them: a transport, who shares it, a
// buffer, a client, its place in a list. Some may have the same size.
constexpr size_t kPieces = 12;
constexpr int kMostOfASize = 2;

struct Piece {
  size_t size = 0;
  void* memory = nullptr;
};

struct Pieces {
  std::array<Piece, kPieces> all;
  // The thread is about to end, and others of its objects may go after these.
  bool over = false;
};

// Has no destructor, so that it can be used until the thread is gone.
thread_local Pieces pieces;

struct AtEnd {
  AtEnd() = default;
  AtEnd(const AtEnd&) = delete;
  AtEnd& operator=(const AtEnd&) = delete;
  ~AtEnd() {
    pieces.over = true;
    for (Piece& piece : pieces.all) {
      if (piece.memory == nullptr) continue;
      ASAN_UNPOISON_MEMORY_REGION(piece.memory, piece.size);
      ::operator delete(std::exchange(piece.memory, nullptr));
    }
  }
};

}  // namespace

void* TakeSpare(size_t size) {
  for (Piece& piece : pieces.all) {
    if (piece.memory == nullptr || piece.size != size) continue;
    ASAN_UNPOISON_MEMORY_REGION(piece.memory, size);
    return std::exchange(piece.memory, nullptr);
  }
  return ::operator new(size);
}

void GiveSpare(void* memory, size_t size) noexcept {
  Piece* place = nullptr;
  int same = 0;
  for (Piece& piece : pieces.all) {
    if (piece.memory == nullptr) {
      place = &piece;
    } else if (piece.size == size) {
      ++same;
    }
  }
  if (memory == nullptr || place == nullptr || same == kMostOfASize ||
      pieces.over) {
    ::operator delete(memory);
    return;
  }
  [[maybe_unused]] thread_local AtEnd at_end;
  *place = {size, memory};
  ASAN_POISON_MEMORY_REGION(memory, size);
}

}  // namespace ward::internal
