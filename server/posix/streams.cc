#include "ward/server/posix/streams.h"

#include <poll.h>
#include <stdio_ext.h>

#include <cstdio>
#include <iostream>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "ward/channel/posix_wait.h"

// All of C's streams: glibc exports these, since 2.2, and no header of it has
// them. NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" {
[[gnu::weak]] void _IO_list_lock();
[[gnu::weak]] void _IO_list_unlock();
[[gnu::weak]] FILE* _IO_iter_begin();
[[gnu::weak]] FILE* _IO_iter_end();
[[gnu::weak]] FILE* _IO_iter_next(FILE* at);
[[gnu::weak]] FILE* _IO_iter_file(FILE* at);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

namespace ward {
namespace {

constexpr absl::Duration kPatience = absl::Milliseconds(100);

// Of all that have something to write: one that is read has not, and may be
// held for ever. False where the C library does not tell.
bool ForEachPending(absl::FunctionRef<void(FILE*)> visit) {
  if (_IO_list_lock == nullptr || _IO_list_unlock == nullptr ||
      _IO_iter_begin == nullptr || _IO_iter_end == nullptr ||
      _IO_iter_next == nullptr || _IO_iter_file == nullptr) {
    return false;
  }
  _IO_list_lock();
  for (FILE* at = _IO_iter_begin(); at != _IO_iter_end();
       at = _IO_iter_next(at)) {
    FILE* const stream = _IO_iter_file(at);
    if (__fpending(stream) > 0) visit(stream);
  }
  _IO_list_unlock();
  return true;
}

class Flush {
 public:
  // fflush(nullptr) waits for the lock of each, whoever has it, and nobody can
  // open or close a stream meanwhile.
  void CStreams() {
    const bool visited = ForEachPending([this](FILE* stream) {
      Holding(stream, [stream] {
        if (__fpending(stream) > 0) std::fflush(stream);
      });
    });
    if (!visited) std::fflush(nullptr);
  }

  // Whose buffers are those of stdout and stderr, unless the program has given
  // them others. Not flush(), which throws where the program has told it to.
  void CxxStreams() {
    Holding(stdout, [] {
      Sync(std::cout);
      Sync(std::wcout);
    });
    Holding(stderr, [] {
      Sync(std::clog);
      Sync(std::wclog);
    });
  }

 private:
  // Unless another thread keeps it.
  void Holding(FILE* stream, absl::FunctionRef<void()> flush) {
    while (ftrylockfile(stream) != 0) {
      if (until_ == absl::InfinitePast()) until_ = MonotonicNow() + kPatience;
      if (MonotonicNow() >= until_) return;
      poll(nullptr, 0, 1);
    }
    flush();
    funlockfile(stream);
  }

  template <typename Stream>
  static void Sync(Stream& stream) {
    if (stream.rdbuf() != nullptr) stream.rdbuf()->pubsync();
  }

  absl::Time until_ = absl::InfinitePast();  // Not asked for yet.
};

}  // namespace

void FlushStreams() {
  Flush flush;
  flush.CStreams();
  flush.CxxStreams();
}

void DropInChild() {
  (void)ForEachPending([](FILE* stream) { __fpurge(stream); });
}

}  // namespace ward
