// Functions of the C library that access memory for who calls them, see look.h.
//
// Compilers leave these as calls, which they do not instrument; Clang calls
// memcpy and its like by names of its own, from version 15 on. What calls them
// in the C++ library is not seen.

#include <pthread.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <threads.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "ward/testing/accesses/checker.h"
#include "ward/testing/accesses/look.h"

using ::ward::testing::IsInstrumented;
using ::ward::testing::IsInstrumentedWithArguments;
using ::ward::testing::kCalled;
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

// Text of this length, or an error, where `size` is the room for it.
void LookAtPrinted(const char* to, size_t size, const char* format, int length,
                   uintptr_t caller) {
  Look(format, std::strlen(format) + 1, kRead, caller);
  if (length < 0) return;
  Look(to, std::min(size, static_cast<size_t>(length) + 1), kWrite, caller);
}

// By strtok_r, which has found this word or none: it ends the word by writing
// there, unless the string ends there.
void LookAtCut(const char* from, const char* word, const char* ends,
               char* const* rest, uintptr_t caller) {
  Look(ends, std::strlen(ends) + 1, kRead, caller);
  Look(rest, sizeof(*rest), kWrite, caller);
  if (from == nullptr) return;
  const char* const end = word == nullptr ? *rest : word + std::strlen(word);
  Look(from, end - from + 1, kRead, caller);
  if (*rest != end) Look(end, 1, kWrite, caller);
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

// --- text that is printed to memory ---

int __real_vsnprintf(char* to, size_t size, const char* format,
                     va_list arguments);
int __real_vsprintf(char* to, const char* format, va_list arguments);

int __wrap_vsnprintf(char* to, size_t size, const char* format,
                     va_list arguments) {
  const int length = __real_vsnprintf(to, size, format, arguments);
  if (IsInstrumented(WARD_STACK)) {
    LookAtPrinted(to, size, format, length, WARD_CALLER);
  }
  return length;
}

int __wrap_vsprintf(char* to, const char* format, va_list arguments) {
  const int length = __real_vsprintf(to, format, arguments);
  if (IsInstrumented(WARD_STACK)) {
    LookAtPrinted(to, SIZE_MAX, format, length, WARD_CALLER);
  }
  return length;
}

int __wrap_snprintf(char* to, size_t size, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int length = __real_vsnprintf(to, size, format, arguments);
  va_end(arguments);
  if (IsInstrumentedWithArguments(WARD_STACK, WARD_CALLER)) {
    LookAtPrinted(to, size, format, length, WARD_CALLER);
  }
  return length;
}

int __wrap_sprintf(char* to, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int length = __real_vsprintf(to, format, arguments);
  va_end(arguments);
  if (IsInstrumentedWithArguments(WARD_STACK, WARD_CALLER)) {
    LookAtPrinted(to, SIZE_MAX, format, length, WARD_CALLER);
  }
  return length;
}

// --- times and errors: in the caller's memory, or the C library's own ---

#define WARD_WRAP_TIME(type, function, parameters, arguments, size) \
  WARD_WRAP(type*, function, parameters) {                          \
    type* const made = __real_##function arguments;                 \
    if (made != nullptr && IsInstrumented(WARD_STACK)) {            \
      Look(from, sizeof(*from), kRead, WARD_CALLER);                \
      Look(made, size, kWrite, WARD_CALLER);                        \
    }                                                               \
    return made;                                                    \
  }
WARD_WRAP_TIME(tm, localtime, (const time_t* from), (from), sizeof(tm))
WARD_WRAP_TIME(tm, localtime_r, (const time_t* from, tm* to), (from, to),
               sizeof(tm))
WARD_WRAP_TIME(tm, gmtime, (const time_t* from), (from), sizeof(tm))
WARD_WRAP_TIME(tm, gmtime_r, (const time_t* from, tm* to), (from, to),
               sizeof(tm))
WARD_WRAP_TIME(char, asctime, (const tm* from), (from), __real_strlen(made) + 1)
WARD_WRAP_TIME(char, asctime_r, (const tm* from, char* to), (from, to),
               __real_strlen(made) + 1)
WARD_WRAP_TIME(char, ctime_r, (const time_t* from, char* to), (from, to),
               __real_strlen(made) + 1)

// It is asctime(localtime(from)), ctime(3p).
WARD_WRAP(char*, ctime, (const time_t* from)) {
  if (!IsInstrumented(WARD_STACK)) return __real_ctime(from);
  Look(from, sizeof(*from), kRead, WARD_CALLER);
  const tm* const local = __real_localtime(from);
  if (local == nullptr) return nullptr;
  Look(local, sizeof(*local), kWrite, WARD_CALLER);
  char* const text = __real_asctime(local);
  if (text != nullptr) {
    Look(text, __real_strlen(text) + 1, kWrite, WARD_CALLER);
  }
  return text;
}

// GNU's. What it finds a text for, it writes nowhere.
WARD_WRAP(char*, strerror_r, (int error, char* buffer, size_t size)) {
  char* const text = __real_strerror_r(error, buffer, size);
  if (text == buffer && size > 0 && IsInstrumented(WARD_STACK)) {
    Look(text, __real_strlen(text) + 1, kWrite, WARD_CALLER);
  }
  return text;
}

// --- words ---

WARD_WRAP(char*, strtok_r, (char* string, const char* ends, char** rest)) {
  const char* const from = string != nullptr ? string : *rest;
  char* const word = __real_strtok_r(string, ends, rest);
  if (IsInstrumented(WARD_STACK)) {
    LookAtCut(from, word, ends, rest, WARD_CALLER);
  }
  return word;
}

// As the C library has it, but for where the rest is kept.
WARD_WRAP(char*, strtok, (char* string, const char* ends)) {
  static char* rest = nullptr;
  const char* const from = string != nullptr ? string : rest;
  char* const word = __real_strtok_r(string, ends, &rest);
  if (IsInstrumented(WARD_STACK)) {
    LookAtCut(from, word, ends, &rest, WARD_CALLER);
  }
  return word;
}

// --- the environment, which is one object ---

#define WARD_WRAP_ENVIRONMENT(result, function, parameters, arguments, flags) \
  WARD_WRAP(result, function, parameters) {                                   \
    if (IsInstrumented(WARD_STACK)) {                                         \
      Look(&environ, sizeof(environ), flags, WARD_CALLER);                    \
    }                                                                         \
    return __real_##function arguments;                                       \
  }
WARD_WRAP_ENVIRONMENT(char*, getenv, (const char* name), (name), kRead)
WARD_WRAP_ENVIRONMENT(char*, secure_getenv, (const char* name), (name), kRead)
WARD_WRAP_ENVIRONMENT(int, setenv,
                      (const char* name, const char* value, int replace),
                      (name, value, replace), kWrite)
WARD_WRAP_ENVIRONMENT(int, unsetenv, (const char* name), (name), kWrite)
WARD_WRAP_ENVIRONMENT(int, putenv, (char* variable), (variable), kWrite)
WARD_WRAP_ENVIRONMENT(int, clearenv, (), (), kWrite)

// --- what orders threads, when it is destroyed ---

// What others do with it must come before: that is told by what takes over
// locks and their like, and looked at by AccessChecker::Uses.
#define WARD_WRAP_END(result, function, type)         \
  WARD_WRAP(result, function, (type * object)) {      \
    if (IsInstrumented(WARD_STACK)) {                 \
      Look(object, 1, kWrite | kCalled, WARD_CALLER); \
    }                                                 \
    return __real_##function(object);                 \
  }
WARD_WRAP_END(int, pthread_mutex_destroy, pthread_mutex_t)
WARD_WRAP_END(int, pthread_spin_destroy, pthread_spinlock_t)
WARD_WRAP_END(int, pthread_rwlock_destroy, pthread_rwlock_t)
WARD_WRAP_END(int, pthread_cond_destroy, pthread_cond_t)
WARD_WRAP_END(int, pthread_barrier_destroy, pthread_barrier_t)
WARD_WRAP_END(int, sem_destroy, sem_t)
WARD_WRAP_END(void, mtx_destroy, mtx_t)
WARD_WRAP_END(void, cnd_destroy, cnd_t)
#ifdef __GLIBCXX__
// std::mutex and std::shared_mutex leave nothing to be done.
WARD_WRAP_END(void, _ZNSt18condition_variableD1Ev, std::condition_variable)
#endif

// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
}  // extern "C"
