// What waits, or wakes, and is not in the schedule: it does what it always
// does, and is said once, so that nobody takes a search for what it is not.

#include <aio.h>
#include <fcntl.h>
#include <mqueue.h>
#include <netdb.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <cstdarg>

#include "absl/base/attributes.h"
#include "ward/testing/interception/interception.h"
#include "ward/testing/interception/outside.h"
#include "ward/testing/interception/real.h"
#include "ward/testing/simulator/remarks.h"
#include "ward/testing/simulator/scheduler.h"

WARD_REAL(aio_fsync);
WARD_REAL(aio_fsync64);
WARD_REAL(aio_read);
WARD_REAL(aio_read64);
WARD_REAL(aio_suspend);
WARD_REAL(aio_suspend64);
WARD_REAL(aio_write);
WARD_REAL(aio_write64);
WARD_REAL(alarm);
WARD_REAL(getaddrinfo_a);
WARD_REAL(lio_listio);
WARD_REAL(lio_listio64);
WARD_REAL(mq_notify);
WARD_REAL(setitimer);
WARD_REAL(timer_create);
WARD_REAL(sigqueue);
WARD_REAL(lockf);
WARD_REAL(recvmmsg);
WARD_REAL(sendmmsg);
WARD_REAL(splice);
WARD_REAL(sendfile);
WARD_REAL(semop);
WARD_REAL(semtimedop);
WARD_REAL(msgrcv);
WARD_REAL(msgsnd);
WARD_REAL(mq_receive);
WARD_REAL(mq_timedreceive);
WARD_REAL(mq_send);
WARD_REAL(mq_timedsend);
WARD_REAL(pthread_mutexattr_setprotocol);
WARD_REAL(pthread_mutexattr_setrobust);

using Start = int(void*);
static ward::testing::Real<int, Start*, void*, int, void*, void*, void*, void*>
    real_clone("clone", nullptr);

namespace ward::testing {
namespace {

template <typename Result, typename... Parameters, typename... Arguments>
Result Unseen(const char* function, Real<Result, Parameters...>& real,
              Arguments... arguments) {
  if (Scheduler* const scheduler = Intercepting()) {
    AskOutside(*scheduler);
    Remarks::Add(function, "which is not in the schedule");
  }
  return real(arguments...);
}

}  // namespace
}  // namespace ward::testing

using ::ward::testing::Unseen;

extern "C" {
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): short ones.

// The C library has threads of its own for these (aio(7)).
int aio_read(aiocb* request) noexcept {
  return Unseen("aio_read", real_aio_read, request);
}
int aio_read64(aiocb64* request) noexcept {
  return Unseen("aio_read64", real_aio_read64, request);
}
int aio_write(aiocb* request) noexcept {
  return Unseen("aio_write", real_aio_write, request);
}
int aio_write64(aiocb64* request) noexcept {
  return Unseen("aio_write64", real_aio_write64, request);
}
int aio_fsync(int operation, aiocb* request) noexcept {
  return Unseen("aio_fsync", real_aio_fsync, operation, request);
}
int aio_fsync64(int operation, aiocb64* request) noexcept {
  return Unseen("aio_fsync64", real_aio_fsync64, operation, request);
}
int aio_suspend(const aiocb* const requests[], int count,
                const timespec* limit) {
  return Unseen("aio_suspend", real_aio_suspend, requests, count, limit);
}
int aio_suspend64(const aiocb64* const requests[], int count,
                  const timespec* limit) {
  return Unseen("aio_suspend64", real_aio_suspend64, requests, count, limit);
}
int lio_listio(int mode, aiocb* const requests[], int count,
               sigevent* event) noexcept {
  return Unseen("lio_listio", real_lio_listio, mode, requests, count, event);
}
int lio_listio64(int mode, aiocb64* const requests[], int count,
                 sigevent* event) noexcept {
  return Unseen("lio_listio64", real_lio_listio64, mode, requests, count,
                event);
}
int getaddrinfo_a(int mode, gaicb* requests[], int count, sigevent* event) {
  return Unseen("getaddrinfo_a", real_getaddrinfo_a, mode, requests, count,
                event);
}
int mq_notify(mqd_t queue, const sigevent* event) noexcept {
  return Unseen("mq_notify", real_mq_notify, queue, event);
}

unsigned alarm(unsigned seconds) noexcept {
  return Unseen("alarm", real_alarm, seconds);
}

int setitimer(__itimer_which_t which, const itimerval* setting,
              itimerval* old) noexcept {
  return Unseen("setitimer", real_setitimer, which, setting, old);
}

int timer_create(clockid_t clock, sigevent* event, timer_t* timer) noexcept {
  return Unseen("timer_create", real_timer_create, clock, event, timer);
}

int sigqueue(pid_t process, int signal, const sigval value) noexcept {
  return Unseen("sigqueue", real_sigqueue, process, signal, value);
}

int lockf(int fd, int operation, off_t size) {
  return Unseen("lockf", real_lockf, fd, operation, size);
}

int semop(int semaphores, sembuf* operations, size_t count) noexcept {
  return Unseen("semop", real_semop, semaphores, operations, count);
}

int semtimedop(int semaphores, sembuf* operations, size_t count,
               const timespec* limit) noexcept {
  return Unseen("semtimedop", real_semtimedop, semaphores, operations, count,
                limit);
}

int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags,
             timespec* limit) {
  return Unseen("recvmmsg", real_recvmmsg, fd, messages, count, flags, limit);
}

int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  return Unseen("sendmmsg", real_sendmmsg, fd, messages, count, flags);
}

ssize_t splice(int from, off64_t* from_offset, int to, off64_t* to_offset,
               size_t size, unsigned flags) {
  return Unseen("splice", real_splice, from, from_offset, to, to_offset, size,
                flags);
}

ssize_t sendfile(int to, int from, off_t* offset, size_t size) noexcept {
  return Unseen("sendfile", real_sendfile, to, from, offset, size);
}

ssize_t msgrcv(int queue, void* message, size_t size, long type, int flags) {
  return Unseen("msgrcv", real_msgrcv, queue, message, size, type, flags);
}

int msgsnd(int queue, const void* message, size_t size, int flags) {
  return Unseen("msgsnd", real_msgsnd, queue, message, size, flags);
}

ssize_t mq_receive(mqd_t queue, char* message, size_t size,
                   unsigned* priority) {
  return Unseen("mq_receive", real_mq_receive, queue, message, size, priority);
}

ssize_t mq_timedreceive(mqd_t queue, char* message, size_t size,
                        unsigned* priority, const timespec* limit) {
  return Unseen("mq_timedreceive", real_mq_timedreceive, queue, message, size,
                priority, limit);
}

int mq_send(mqd_t queue, const char* message, size_t size, unsigned priority) {
  return Unseen("mq_send", real_mq_send, queue, message, size, priority);
}

int mq_timedsend(mqd_t queue, const char* message, size_t size,
                 unsigned priority, const timespec* limit) {
  return Unseen("mq_timedsend", real_mq_timedsend, queue, message, size,
                priority, limit);
}

// It may have fewer arguments, as syscall() of futex.cc.
ABSL_ATTRIBUTE_NO_SANITIZE_ADDRESS int clone(Start* start, void* stack,
                                             int flags, void* argument,
                                             ...) noexcept {
  va_list list;
  va_start(list, argument);
  void* const parent = va_arg(list, void*);
  void* const variables = va_arg(list, void*);
  void* const child = va_arg(list, void*);
  va_end(list);
  return Unseen("clone", real_clone, start, stack, flags, argument, parent,
                variables, child);
}

int pthread_mutexattr_setprotocol(pthread_mutexattr_t* attributes,
                                  int protocol) noexcept {
  if (protocol == PTHREAD_PRIO_NONE) {
    return real_pthread_mutexattr_setprotocol(attributes, protocol);
  }
  return Unseen("pthread_mutexattr_setprotocol",
                real_pthread_mutexattr_setprotocol, attributes, protocol);
}

int pthread_mutexattr_setrobust(pthread_mutexattr_t* attributes,
                                int robust) noexcept {
  return Unseen("pthread_mutexattr_setrobust", real_pthread_mutexattr_setrobust,
                attributes, robust);
}

// NOLINTEND(readability-inconsistent-declaration-parameter-name)
}  // extern "C"
