// Functions of the C library that access memory for who calls them, see look.h.
//
// Compilers leave these as calls, which they do not instrument; Clang calls
// memcpy and its like by names of its own, from version 15 on. What calls them
// in the C++ library is not seen.

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "ward/testing/accesses/checker.h"
#include "ward/testing/accesses/look.h"

using ::ward::testing::IsInstrumented;
using ::ward::testing::kRead;
using ::ward::testing::kWrite;
using ::ward::testing::Look;

namespace {

// The first `size` bytes of what lies in these pieces.
void LookAtPieces(const iovec* pieces, size_t count, size_t size, uint8_t flags,
                  uintptr_t caller) {
  for (size_t i = 0; i < count && size > 0; ++i) {
    const size_t part = std::min(size, pieces[i].iov_len);
    Look(pieces[i].iov_base, part, flags, caller);
    size -= part;
  }
}

// How much two strings have to be read to compare them.
size_t SizeOfComparison(const char* a, const char* b, size_t most) {
  size_t i = 0;
  while (i < most && a[i] == b[i] && a[i] != '\0') ++i;
  return std::min(i + 1, most);
}

size_t SizeOfDifference(const char* a, const char* b, size_t size) {
  return std::min(
      size, static_cast<size_t>(std::mismatch(a, a + size, b).first - a) + 1);
}

}  // namespace

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)

// --- memory ---

WARD_WRAP(void*, memcpy, (void* to, const void* from, size_t size)) {
  if (IsInstrumented(WARD_STACK)) {
    Look(from, size, kRead, WARD_CALLER);
    Look(to, size, kWrite, WARD_CALLER);
  }
  return __real_memcpy(to, from, size);
}

WARD_WRAP(void*, memmove, (void* to, const void* from, size_t size)) {
  if (IsInstrumented(WARD_STACK)) {
    Look(from, size, kRead, WARD_CALLER);
    Look(to, size, kWrite, WARD_CALLER);
  }
  return __real_memmove(to, from, size);
}

WARD_WRAP(void*, memset, (void* to, int byte, size_t size)) {
  if (IsInstrumented(WARD_STACK)) Look(to, size, kWrite, WARD_CALLER);
  return __real_memset(to, byte, size);
}

void* __tsan_memcpy(void* to, const void* from, size_t size) {
  Look(from, size, kRead, WARD_CALLER);
  Look(to, size, kWrite, WARD_CALLER);
  return __real_memcpy(to, from, size);
}

void* __tsan_memmove(void* to, const void* from, size_t size) {
  Look(from, size, kRead, WARD_CALLER);
  Look(to, size, kWrite, WARD_CALLER);
  return __real_memmove(to, from, size);
}

void* __tsan_memset(void* to, int byte, size_t size) {
  Look(to, size, kWrite, WARD_CALLER);
  return __real_memset(to, byte, size);
}

// Clang calls bcmp where it does not matter which of them is less.
#define WARD_WRAP_COMPARISON(function)                                         \
  WARD_WRAP(int, function, (const void* a, const void* b, size_t size)) {      \
    if (IsInstrumented(WARD_STACK)) {                                          \
      const size_t read = SizeOfDifference(static_cast<const char*>(a),        \
                                           static_cast<const char*>(b), size); \
      Look(a, read, kRead, WARD_CALLER);                                       \
      Look(b, read, kRead, WARD_CALLER);                                       \
    }                                                                          \
    return __real_##function(a, b, size);                                      \
  }
WARD_WRAP_COMPARISON(memcmp)
WARD_WRAP_COMPARISON(bcmp)

WARD_WRAP(void*, memchr, (const void* in, int byte, size_t size)) {
  void* const found = __real_memchr(in, byte, size);
  if (IsInstrumented(WARD_STACK)) {
    const size_t read = found == nullptr ? size
                                         : static_cast<const char*>(found) -
                                               static_cast<const char*>(in) + 1;
    Look(in, read, kRead, WARD_CALLER);
  }
  return found;
}

// --- strings ---

WARD_WRAP(size_t, strlen, (const char* string)) {
  const size_t size = __real_strlen(string);
  if (IsInstrumented(WARD_STACK)) Look(string, size + 1, kRead, WARD_CALLER);
  return size;
}

WARD_WRAP(size_t, strnlen, (const char* string, size_t most)) {
  const size_t size = __real_strnlen(string, most);
  if (IsInstrumented(WARD_STACK)) {
    Look(string, std::min(size + 1, most), kRead, WARD_CALLER);
  }
  return size;
}

WARD_WRAP(int, strcmp, (const char* a, const char* b)) {
  if (IsInstrumented(WARD_STACK)) {
    const size_t read = SizeOfComparison(a, b, SIZE_MAX);
    Look(a, read, kRead, WARD_CALLER);
    Look(b, read, kRead, WARD_CALLER);
  }
  return __real_strcmp(a, b);
}

WARD_WRAP(int, strncmp, (const char* a, const char* b, size_t most)) {
  if (IsInstrumented(WARD_STACK)) {
    const size_t read = SizeOfComparison(a, b, most);
    Look(a, read, kRead, WARD_CALLER);
    Look(b, read, kRead, WARD_CALLER);
  }
  return __real_strncmp(a, b, most);
}

#define WARD_WRAP_COPY(function)                             \
  WARD_WRAP(char*, function, (char* to, const char* from)) { \
    if (IsInstrumented(WARD_STACK)) {                        \
      const size_t size = __real_strlen(from) + 1;           \
      Look(from, size, kRead, WARD_CALLER);                  \
      Look(to, size, kWrite, WARD_CALLER);                   \
    }                                                        \
    return __real_##function(to, from);                      \
  }
WARD_WRAP_COPY(strcpy)
WARD_WRAP_COPY(stpcpy)

WARD_WRAP(char*, strncpy, (char* to, const char* from, size_t size)) {
  if (IsInstrumented(WARD_STACK)) {
    Look(from, std::min(__real_strnlen(from, size) + 1, size), kRead,
         WARD_CALLER);
    Look(to, size, kWrite, WARD_CALLER);
  }
  return __real_strncpy(to, from, size);
}

WARD_WRAP(char*, strcat, (char* to, const char* from)) {
  if (IsInstrumented(WARD_STACK)) {
    const size_t size = __real_strlen(from) + 1;
    const size_t before = __real_strlen(to);
    Look(from, size, kRead, WARD_CALLER);
    Look(to, before, kRead, WARD_CALLER);
    Look(to + before, size, kWrite, WARD_CALLER);
  }
  return __real_strcat(to, from);
}

// --- descriptors, and files ---

// What is written is read before others may have it, and what is read is
// written once they have given it.
#define WARD_WRAP_INPUT(function, parameters, arguments) \
  WARD_WRAP(ssize_t, function, parameters) {             \
    const ssize_t read = __real_##function arguments;    \
    if (read > 0 && IsInstrumented(WARD_STACK)) {        \
      Look(buffer, read, kWrite, WARD_CALLER);           \
    }                                                    \
    return read;                                         \
  }
#define WARD_WRAP_OUTPUT(function, parameters, arguments)                   \
  WARD_WRAP(ssize_t, function, parameters) {                                \
    if (IsInstrumented(WARD_STACK)) Look(buffer, size, kRead, WARD_CALLER); \
    return __real_##function arguments;                                     \
  }

WARD_WRAP_INPUT(read, (int fd, void* buffer, size_t size), (fd, buffer, size))
WARD_WRAP_INPUT(pread, (int fd, void* buffer, size_t size, off_t offset),
                (fd, buffer, size, offset))
WARD_WRAP_INPUT(pread64, (int fd, void* buffer, size_t size, off64_t offset),
                (fd, buffer, size, offset))
WARD_WRAP_INPUT(recv, (int fd, void* buffer, size_t size, int flags),
                (fd, buffer, size, flags))
WARD_WRAP_INPUT(recvfrom,
                (int fd, void* buffer, size_t size, int flags, sockaddr* from,
                 socklen_t* from_size),
                (fd, buffer, size, flags, from, from_size))
WARD_WRAP_OUTPUT(write, (int fd, const void* buffer, size_t size),
                 (fd, buffer, size))
WARD_WRAP_OUTPUT(pwrite,
                 (int fd, const void* buffer, size_t size, off_t offset),
                 (fd, buffer, size, offset))
WARD_WRAP_OUTPUT(pwrite64,
                 (int fd, const void* buffer, size_t size, off64_t offset),
                 (fd, buffer, size, offset))
WARD_WRAP_OUTPUT(send, (int fd, const void* buffer, size_t size, int flags),
                 (fd, buffer, size, flags))
WARD_WRAP_OUTPUT(sendto,
                 (int fd, const void* buffer, size_t size, int flags,
                  const sockaddr* to, socklen_t to_size),
                 (fd, buffer, size, flags, to, to_size))

WARD_WRAP(ssize_t, readv, (int fd, const iovec* pieces, int count)) {
  const ssize_t read = __real_readv(fd, pieces, count);
  if (read > 0 && IsInstrumented(WARD_STACK)) {
    LookAtPieces(pieces, count, read, kWrite, WARD_CALLER);
  }
  return read;
}

WARD_WRAP(ssize_t, recvmsg, (int fd, msghdr* message, int flags)) {
  const ssize_t read = __real_recvmsg(fd, message, flags);
  if (read > 0 && IsInstrumented(WARD_STACK)) {
    LookAtPieces(message->msg_iov, message->msg_iovlen, read, kWrite,
                 WARD_CALLER);
  }
  return read;
}

WARD_WRAP(ssize_t, writev, (int fd, const iovec* pieces, int count)) {
  if (IsInstrumented(WARD_STACK) && count > 0) {
    LookAtPieces(pieces, count, SIZE_MAX, kRead, WARD_CALLER);
  }
  return __real_writev(fd, pieces, count);
}

WARD_WRAP(ssize_t, sendmsg, (int fd, const msghdr* message, int flags)) {
  if (IsInstrumented(WARD_STACK)) {
    LookAtPieces(message->msg_iov, message->msg_iovlen, SIZE_MAX, kRead,
                 WARD_CALLER);
  }
  return __real_sendmsg(fd, message, flags);
}

WARD_WRAP(size_t, fread,
          (void* buffer, size_t size, size_t count, FILE* file)) {
  const size_t read = __real_fread(buffer, size, count, file);
  if (IsInstrumented(WARD_STACK)) {
    Look(buffer, read * size, kWrite, WARD_CALLER);
  }
  return read;
}

WARD_WRAP(size_t, fwrite,
          (const void* buffer, size_t size, size_t count, FILE* file)) {
  if (IsInstrumented(WARD_STACK)) {
    Look(buffer, size * count, kRead, WARD_CALLER);
  }
  return __real_fwrite(buffer, size, count, file);
}

// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
}  // extern "C"
