// Programs that wait in the kernel for descriptors which their own threads
// serve: they run in the schedule, and the same again.

#include <aio.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/kcmp.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iterator>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ward/channel/file_descriptor.h"
#include "ward/testing/explore.h"
#include "ward/testing/simulator/scheduler.h"

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" ssize_t __read_chk(int fd, void* buffer, size_t size, size_t room);
extern "C" int __poll_chk(pollfd* polled, nfds_t count, int limit, size_t room);
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

namespace ward::testing {
namespace {

struct Pair {
  FileDescriptor first;
  FileDescriptor second;
};

Pair MakePair(int (*make)(int*)) {
  std::array<int, 2> ends;
  EXPECT_EQ(make(ends.data()), 0);
  return {FileDescriptor(ends[0]), FileDescriptor(ends[1])};
}
Pair MakePipe() {
  return MakePair([](int* ends) { return pipe2(ends, O_CLOEXEC); });
}
Pair MakeSocketPair() {
  return MakePair([](int* ends) {
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
  });
}

void WriteOne(const FileDescriptor& to) {
  EXPECT_EQ(write(to.get(), "x", 1), 1);
}
void ReadOne(const FileDescriptor& from) {
  char byte;
  EXPECT_EQ(read(from.get(), &byte, 1), 1);
}

void Everywhere(void (*body)()) {
  for (const Search search : {Search::kPortfolio, Search::kRandom, Search::kPct,
                              Search::kDepthFirst}) {
    ExploreOptions options;
    options.runs = 300;
    options.search = search;
    Explore(options, body);
  }
  ExploreOptions options;
  for (uint64_t run = 0; run < 20; ++run) {
    EXPECT_EQ(FingerprintOfRun(options, run, body),
              FingerprintOfRun(options, run, body));
  }
}

TEST(EventLoops, APipeIsReadByOneAndWrittenByAnother) {
  Everywhere([] {
    const Pair pipe = MakePipe();
    std::thread writer([&] {
      for (int i = 0; i < 3; ++i) WriteOne(pipe.second);
    });
    for (int i = 0; i < 3; ++i) ReadOne(pipe.first);
    writer.join();
  });
}

// Far more than a pipe or a socket holds.
TEST(EventLoops, ALongWriteWaitsForItsReader) {
  for (Pair (*const make)() : {MakePipe, MakeSocketPair}) {
    Explore({.runs = 20}, [&] {
      const Pair own = make();
      const std::string sent(500'000, 'x');
      std::thread writer([&] {
        EXPECT_EQ(write(own.second.get(), sent.data(), sent.size()),
                  static_cast<ssize_t>(sent.size()));
      });
      size_t got = 0;
      std::array<char, 5000> buffer;
      while (got < sent.size()) {
        const ssize_t size =
            read(own.first.get(), buffer.data(), buffer.size());
        ASSERT_GT(size, 0);
        got += static_cast<size_t>(size);
      }
      writer.join();
    });
  }
}

iovec Piece(std::string& of, size_t from, size_t size) {
  return {of.data() + from, size};
}

TEST(EventLoops, ALongWriteOfSeveralBuffersWaitsForItsReader) {
  using Write = ssize_t (*)(int fd, const iovec* buffers);
  constexpr Write kWrites[] = {
      [](int fd, const iovec* buffers) { return writev(fd, buffers, 2); },
      [](int fd, const iovec* buffers) {
        msghdr message{};
        message.msg_iov = const_cast<iovec*>(buffers);
        message.msg_iovlen = 2;
        return sendmsg(fd, &message, 0);
      }};
  for (const Write write_it : kWrites) {
    Explore({.runs = 5}, [write_it] {
      const Pair own = MakeSocketPair();
      std::string sent;
      while (sent.size() < 500'000) absl::StrAppend(&sent, sent.size(), " ");
      const size_t half = 200'001;
      std::thread writer([&] {
        const iovec buffers[] = {Piece(sent, 0, half),
                                 Piece(sent, half, sent.size() - half)};
        EXPECT_EQ(write_it(own.second.get(), buffers),
                  static_cast<ssize_t>(sent.size()));
      });
      std::string got;
      std::array<char, 50'000> buffer;
      while (got.size() < sent.size()) {
        const ssize_t size =
            read(own.first.get(), buffer.data(), buffer.size());
        ASSERT_GT(size, 0);
        got.append(buffer.data(), static_cast<size_t>(size));
      }
      EXPECT_TRUE(got == sent);
      writer.join();
    });
  }
}

TEST(EventLoops, WhoReceivesAllWaitsForAll) {
  Explore({.runs = 20}, [] {
    Pair own = MakeSocketPair();
    std::thread writer([&] {
      for (int i = 0; i < 5; ++i) WriteOne(own.second);
      own.second.Reset();
    });
    std::string got = "....";
    EXPECT_EQ(recv(own.first.get(), got.data(), 2, MSG_WAITALL), 2);
    iovec buffers[] = {Piece(got, 2, 1), Piece(got, 3, 1)};
    msghdr message{};
    message.msg_iov = buffers;
    message.msg_iovlen = 2;
    EXPECT_EQ(recvmsg(own.first.get(), &message, MSG_WAITALL), 2);
    EXPECT_EQ(got, "xxxx");
    EXPECT_EQ(recv(own.first.get(), got.data(), 2, MSG_WAITALL), 1) << "an end";
    writer.join();
  });
}

// A message with a descriptor ends what is received at once (unix(7)).
void SendDescriptor(const FileDescriptor& to, const FileDescriptor& sent) {
  std::string byte = "d";
  iovec buffer = Piece(byte, 0, 1);
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &buffer;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const along = CMSG_FIRSTHDR(&message);
  along->cmsg_level = SOL_SOCKET;
  along->cmsg_type = SCM_RIGHTS;
  along->cmsg_len = CMSG_LEN(sizeof(int));
  const int number = sent.get();
  std::memcpy(CMSG_DATA(along), &number, sizeof(number));
  EXPECT_EQ(sendmsg(to.get(), &message, MSG_NOSIGNAL), 1);
}

struct Received {
  std::string bytes;
  FileDescriptor descriptor;
};
Received Receive(const FileDescriptor& from, size_t size) {
  Received received{std::string(size, '.'), {}};
  iovec buffer = Piece(received.bytes, 0, size);
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &buffer;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = recvmsg(from.get(), &message, MSG_WAITALL);
  EXPECT_GE(got, 0);
  received.bytes.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  if (const cmsghdr* const along = CMSG_FIRSTHDR(&message)) {
    EXPECT_EQ(along->cmsg_type, SCM_RIGHTS);
    int number = -1;
    std::memcpy(&number, CMSG_DATA(along), sizeof(number));
    received.descriptor.Reset(number);
  }
  return received;
}

TEST(EventLoops, WhoReceivesAllAndDescriptorsWaitsForAll) {
  Explore({.runs = 100, .early_sleeps = false}, [] {
    Pair own = MakeSocketPair();
    std::thread writer([&] {
      for (int i = 0; i < 3; ++i) {
        WriteOne(own.second);
        std::this_thread::sleep_for(std::chrono::seconds(1));
      }
      SendDescriptor(own.second, own.second);
      SendDescriptor(own.second, own.second);
      for (int i = 0; i < 3; ++i) WriteOne(own.second);
      own.second.Reset();
    });
    {
      const Received received = Receive(own.first, 2);
      EXPECT_EQ(received.bytes, "xx");
      EXPECT_FALSE(received.descriptor.is_open());
    }
    for (const char* const bytes : {"xd", "d"}) {
      const Received received = Receive(own.first, 4);
      EXPECT_EQ(received.bytes, bytes);
      EXPECT_TRUE(received.descriptor.is_open());
    }
    EXPECT_EQ(Receive(own.first, 3).bytes, "xxx");
    EXPECT_EQ(Receive(own.first, 3).bytes, "") << "an end";
    writer.join();
  });
}

// Not what another process has sent, if it is to be told who has (unix(7)).
TEST(EventLoops, WhoReceivesAllHasItOfOneSender) {
  Explore({.runs = 5, .early_sleeps = false}, [] {
    const Pair own = MakeSocketPair();
    const int on = 1;
    ASSERT_EQ(
        setsockopt(own.first.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)),
        0);
    std::string got = "....";
    iovec buffer = Piece(got, 0, 4);
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(ucred))> control{};
    msghdr message{};
    message.msg_iov = &buffer;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    std::thread writer([&] {
      WriteOne(own.second);
      WriteOne(own.second);
      const pid_t child = fork();
      if (child == 0) {
        (void)!write(own.second.get(), "y", 1);
        _exit(7);
      }
      int status = 0;
      EXPECT_EQ(waitpid(child, &status, 0), child);
    });
    EXPECT_EQ(recvmsg(own.first.get(), &message, MSG_WAITALL), 2);
    EXPECT_EQ(got, "xx..");
    ucred sender{};
    std::memcpy(&sender, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(sender));
    EXPECT_EQ(sender.pid, getpid());
    writer.join();
  });
}

FileDescriptor ListenAnywhere(int domain) {
  FileDescriptor listener(socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (domain == AF_UNIX) {
    const sockaddr name{AF_UNIX, {}};
    EXPECT_EQ(bind(listener.get(), &name, sizeof(name.sa_family)), 0);
  }
  EXPECT_EQ(listen(listener.get(), 1), 0);
  return listener;
}

Pair MakeConnection() {
  const auto make = [] {
    return FileDescriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  };
  const FileDescriptor listener = make();
  sockaddr_storage name{};
  name.ss_family = AF_INET;
  auto* const address = reinterpret_cast<sockaddr*>(&name);
  socklen_t size = sizeof(name);
  EXPECT_EQ(listen(listener.get(), 1), 0);
  EXPECT_EQ(getsockname(listener.get(), address, &size), 0);
  FileDescriptor client = make();
  EXPECT_EQ(connect(client.get(), address, size), 0);
  FileDescriptor server(accept(listener.get(), nullptr, nullptr));
  return {std::move(server), std::move(client)};
}

// Not even of the peer's name is more written than there is room for, though
// the first piece says how long it is.
TEST(EventLoops, WhoReceivesAllHasNoMoreThanItsRoom) {
  for (const bool is_message : {false, true}) {
    Explore({.runs = 5, .early_sleeps = false}, [is_message] {
      const FileDescriptor listener = ListenAnywhere(AF_UNIX);
      sockaddr_storage name{};
      name.ss_family = AF_UNIX;
      auto* const address = reinterpret_cast<sockaddr*>(&name);
      const FileDescriptor client(socket(AF_UNIX, SOCK_STREAM, 0));
      ASSERT_EQ(bind(client.get(), address, sizeof(sa_family_t)), 0);
      socklen_t size = sizeof(name);
      ASSERT_EQ(getsockname(listener.get(), address, &size), 0);
      ASSERT_EQ(connect(client.get(), address, size), 0);
      const FileDescriptor server(accept(listener.get(), nullptr, nullptr));
      std::thread writer([&] {
        for (int i = 0; i < 3; ++i) {
          WriteOne(client);
          std::this_thread::sleep_for(std::chrono::seconds(1));
        }
      });
      std::string peer(sizeof(name), '#');
      const socklen_t room = 4;
      std::string got = "...";
      socklen_t peer_size = room;
      if (is_message) {
        iovec buffer = Piece(got, 0, 3);
        msghdr message{};
        message.msg_iov = &buffer;
        message.msg_iovlen = 1;
        message.msg_name = peer.data();
        message.msg_namelen = room;
        EXPECT_EQ(recvmsg(server.get(), &message, MSG_WAITALL), 3);
        peer_size = message.msg_namelen;
      } else {
        EXPECT_EQ(
            recvfrom(server.get(), got.data(), 3, MSG_WAITALL,
                     reinterpret_cast<sockaddr*>(peer.data()), &peer_size),
            3);
      }
      EXPECT_EQ(got, "xxx");
      EXPECT_GT(peer_size, room);
      EXPECT_EQ(peer.find_first_not_of('#', room), std::string::npos) << peer;
      EXPECT_NE(peer.substr(0, room), "####");
      writer.join();
    });
  }
}

// The next call says so (tcp(7)).
TEST(EventLoops, AnErrorAfterSomeBytesIsToldByTheNextCall) {
  Explore({.runs = 5, .early_sleeps = false}, [] {
    Pair own = MakeConnection();
    std::thread writer([&] {
      WriteOne(own.second);
      std::this_thread::sleep_for(std::chrono::seconds(1));
      const linger reset{1, 0};
      EXPECT_EQ(setsockopt(own.second.get(), SOL_SOCKET, SO_LINGER, &reset,
                           sizeof(reset)),
                0);
      own.second.Reset();
    });
    std::array<char, 8> bytes;
    EXPECT_EQ(recv(own.first.get(), bytes.data(), bytes.size(), MSG_WAITALL),
              1);
    EXPECT_EQ(recv(own.first.get(), bytes.data(), bytes.size(), 0), -1);
    EXPECT_EQ(errno, ECONNRESET);
    writer.join();
  });
}

// However few have come, nobody waits for the others in the kernel.
TEST(EventLoops, WhoWantsSoManyBytesWaitsForThemInTheSchedule) {
  for (Pair (*const make)() : {MakeSocketPair, MakeConnection}) {
    Explore({.runs = 20, .early_sleeps = false}, [make] {
      const Pair own = make();
      const int least = 3;
      ASSERT_EQ(setsockopt(own.first.get(), SOL_SOCKET, SO_RCVLOWAT, &least,
                           sizeof(least)),
                0);
      std::thread writer([&] {
        for (int i = 0; i < 9; ++i) {
          WriteOne(own.second);
          std::this_thread::sleep_for(std::chrono::seconds(1));
        }
      });
      std::array<char, 9> bytes;
      ssize_t got = recv(own.first.get(), bytes.data(), 2, 0);
      EXPECT_EQ(got, 2) << "no more was asked for";
      const ssize_t some = read(own.first.get(), bytes.data(), 5);
      EXPECT_GE(some, 3);
      got += some;
      while (got < 9) {
        iovec buffer{bytes.data(), static_cast<size_t>(9 - got)};
        const ssize_t more = readv(own.first.get(), &buffer, 1);
        ASSERT_GT(more, 0);
        got += more;
      }
      writer.join();
    });
  }
}

TEST(EventLoops, WhoPeeksAtAllWaitsForAllByTcpAlone) {
  for (const bool is_tcp : {false, true}) {
    Explore({.runs = 20, .early_sleeps = false}, [is_tcp] {
      Pair own = is_tcp ? MakeConnection() : MakeSocketPair();
      std::thread writer([&] {
        for (int i = 0; i < 3; ++i) {
          WriteOne(own.second);
          std::this_thread::sleep_for(std::chrono::seconds(1));
        }
        own.second.Reset();
      });
      std::array<char, 3> bytes;
      const auto peek = [&] {
        return recv(own.first.get(), bytes.data(), 3, MSG_PEEK | MSG_WAITALL);
      };
      EXPECT_GE(peek(), is_tcp ? 3 : 1);
      ReadOne(own.first);
      writer.join();
      EXPECT_EQ(peek(), 2) << "an end";
    });
  }
}

// Whatever has its number by then.
TEST(EventLoops, WhatGoesInPiecesHasTheFileThatItBeganWith) {
  Explore({.runs = 300}, [] {
    const Pair one = MakePipe();
    const Pair other = MakePipe();
    std::thread replacer([&] {
      EXPECT_EQ(dup2(other.second.get(), one.second.get()), one.second.get());
    });
    const std::string sent(10'000, 'x');
    EXPECT_EQ(write(one.second.get(), sent.data(), sent.size()), 10'000);
    replacer.join();
    for (const Pair* const pipe : {&one, &other}) {
      int come = 0;
      ASSERT_EQ(ioctl(pipe->first.get(), FIONREAD, &come), 0);
      EXPECT_TRUE(come == 0 || come == 10'000) << come;
    }
  });
  Explore({.runs = 300}, [] {
    const Pair one = MakeSocketPair();
    const Pair other = MakeSocketPair();
    for (int i = 0; i < 2; ++i) WriteOne(one.second);
    EXPECT_EQ(write(other.second.get(), "yyyy", 4), 4);
    const int number = dup(one.first.get());
    std::thread replacer([&] {
      EXPECT_EQ(dup2(other.first.get(), number), number);
      for (int i = 0; i < 2; ++i) WriteOne(one.second);
    });
    std::string got = "....";
    EXPECT_EQ(recv(number, got.data(), 4, MSG_WAITALL), 4);
    EXPECT_TRUE(got == "xxxx" || got == "yyyy") << got;
    replacer.join();
    close(number);
  });
}

// One that keeps its messages apart is not written to in pieces.
TEST(EventLoops, AMessageStaysWhole) {
  Explore({.runs = 20}, [] {
    const Pair own = MakePair([](int* ends) {
      return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
    });
    const std::string sent(10'000, 'x');
    std::thread writer([&] {
      EXPECT_EQ(write(own.second.get(), sent.data(), sent.size()), 10'000);
      EXPECT_EQ(send(own.second.get(), sent.data(), sent.size(), 0), 10'000);
    });
    std::vector<char> buffer(20'000);
    EXPECT_EQ(read(own.first.get(), buffer.data(), buffer.size()), 10'000);
    EXPECT_EQ(recv(own.first.get(), buffer.data(), buffer.size(), 0), 10'000);
    writer.join();
  });
}

TEST(EventLoops, ASocketsOwnLimitIsOfSimulatedTime) {
  Explore({.runs = 20}, [] {
    const Pair own = MakeSocketPair();
    const timeval limit{3, 0};
    ASSERT_EQ(setsockopt(own.first.get(), SOL_SOCKET, SO_RCVTIMEO, &limit,
                         sizeof(limit)),
              0);
    const absl::Time start = Scheduler::Current()->now();
    char byte;
    EXPECT_EQ(recv(own.first.get(), &byte, 1, 0), -1);
    EXPECT_EQ(errno, EAGAIN);
    EXPECT_EQ(Scheduler::Current()->now() - start, absl::Seconds(3));
  });
  // It is that of the whole call.
  Explore({.runs = 5, .early_sleeps = false}, [] {
    const Pair own = MakeSocketPair();
    const timeval limit{3, 0};
    ASSERT_EQ(setsockopt(own.first.get(), SOL_SOCKET, SO_RCVTIMEO, &limit,
                         sizeof(limit)),
              0);
    const absl::Time start = Scheduler::Current()->now();
    std::thread writer([&] {
      for (int i = 0; i < 3; ++i) {
        std::this_thread::sleep_for(std::chrono::seconds(2));
        WriteOne(own.second);
      }
    });
    std::array<char, 3> bytes;
    EXPECT_EQ(recv(own.first.get(), bytes.data(), bytes.size(), MSG_WAITALL),
              1);
    EXPECT_EQ(Scheduler::Current()->now() - start, absl::Seconds(3));
    writer.join();
  });
}

// Whatever there is, and whatever room.
TEST(EventLoops, WhatNeverWaitsIsNotWaitedFor) {
  Explore({.runs = 1}, [] {
    const Pair connection = MakeConnection();
    const Pair sockets = MakeSocketPair();
    const Pair pipe = MakePipe();
    char byte = 'x';
    iovec nothing{&byte, 0};
    for (const Pair* const pair : {&pipe, &sockets, &connection}) {
      const int to = pair->second.get();
      EXPECT_EQ(read(pair->first.get(), &byte, 0), 0);
      EXPECT_EQ(readv(pair->first.get(), &nothing, 1), 0);
      const int flags = fcntl(to, F_GETFL);
      EXPECT_EQ(fcntl(to, F_SETFL, flags | O_NONBLOCK), 0);
      const std::string bytes(50'000, 'x');
      while (write(to, bytes.data(), bytes.size()) > 0) {
      }
      EXPECT_EQ(fcntl(to, F_SETFL, flags), 0);
      EXPECT_EQ(write(to, &byte, 0), 0);
      EXPECT_EQ(writev(to, &nothing, 1), 0);
    }
    const int socket = connection.second.get();
    EXPECT_EQ(recv(socket, &byte, 1, MSG_OOB), -1);
    EXPECT_EQ(errno, EINVAL);
    EXPECT_EQ(recv(socket, &byte, 1, MSG_ERRQUEUE), -1);
    EXPECT_EQ(errno, EAGAIN);
  });
}

TEST(EventLoops, AnEpollLoopServesItsClientsAndStopsByAnEvent) {
  Everywhere([] {
    Pair one = MakeSocketPair();
    Pair other = MakeSocketPair();
    const FileDescriptor stop(eventfd(0, EFD_CLOEXEC));
    const FileDescriptor epoll(epoll_create1(EPOLL_CLOEXEC));
    const std::vector<int> watched = {one.first.get(), other.first.get(),
                                      stop.get()};
    for (const int fd : watched) {
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.fd = fd;
      ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event), 0);
    }
    std::thread loop([&] {
      while (true) {
        epoll_event event;
        ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, -1), 1);
        if (event.data.fd == stop.get()) return;
        char byte;
        ASSERT_EQ(recv(event.data.fd, &byte, 1, 0), 1);
        ASSERT_EQ(send(event.data.fd, &byte, 1, MSG_NOSIGNAL), 1);
      }
    });
    const auto call = [](const FileDescriptor& end) {
      WriteOne(end);
      ReadOne(end);
    };
    std::thread client([&] { call(one.second); });
    call(other.second);
    client.join();
    const uint64_t word = 1;
    ASSERT_EQ(write(stop.get(), &word, sizeof(word)),
              static_cast<ssize_t>(sizeof(word)));
    loop.join();
  });
}

TEST(EventLoops, LimitsOfPollsAreOfSimulatedTime) {
  Explore({.runs = 100}, [] {
    const Pair pipe = MakePipe();
    const absl::Time start = Scheduler::Current()->now();
    const FileDescriptor epoll(epoll_create1(EPOLL_CLOEXEC));
    const timespec second = {1, 0};
    epoll_event event;
    EXPECT_EQ(epoll_pwait2(epoll.get(), &event, 1, &second, nullptr), 0);
    EXPECT_EQ(epoll_wait(epoll.get(), &event, 1, 1000), 0);
    pollfd polled{pipe.first.get(), POLLIN, 0};
    EXPECT_EQ(poll(&polled, 1, 1000), 0);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pipe.first.get(), &set);
    timeval limit{4, 0};
    EXPECT_EQ(select(pipe.first.get() + 1, &set, nullptr, nullptr, &limit), 0);
    EXPECT_EQ(Scheduler::Current()->now() - start, absl::Seconds(7));
    WriteOne(pipe.second);
    EXPECT_EQ(poll(&polled, 1, 3000), 1);
    FD_SET(pipe.first.get(), &set);
    EXPECT_EQ(select(pipe.first.get() + 1, &set, nullptr, nullptr, nullptr), 1);
    EXPECT_EQ(Scheduler::Current()->now() - start, absl::Seconds(7));
  });
}

using Locking = bool (*)(int file, bool lock);

bool LockWhole(int file, bool lock) {
  return flock(file, lock ? LOCK_EX : LOCK_UN) == 0;
}

// A part of it, for this open file (fcntl(2)).
bool LockPart(int file, bool lock) {
  struct flock part {};
  part.l_type = static_cast<short>(lock ? F_WRLCK : F_UNLCK);
  part.l_len = 1;
  return fcntl(file, lock ? F_OFD_SETLKW : F_OFD_SETLK, &part) == 0;
}

// As code that is compiled with _FILE_OFFSET_BITS has it.
bool LockPart64(int file, bool lock) {
  struct flock64 part {};
  part.l_type = static_cast<short>(lock ? F_WRLCK : F_UNLCK);
  part.l_len = 1;
  return fcntl64(file, F_OFD_SETLKW, &part) == 0;
}

// Several processes make runs at once.
FileDescriptor OpenLock(const char* name = "lock",
                        int process = static_cast<int>(getpid())) {
  const std::string path =
      absl::StrCat(std::getenv("TEST_TMPDIR"), "/", name, ".", process);
  return FileDescriptor(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
}

template <Locking lock>
void Exclude() {
  int inside = 0;
  const auto work = [&] {
    const FileDescriptor file = OpenLock();
    ASSERT_TRUE(lock(file.get(), true));
    EXPECT_EQ(++inside, 1);
    SchedulingPoint();
    --inside;
  };
  std::thread other(work);
  work();
  other.join();
}

TEST(EventLoops, AFileLockExcludesInTheSchedule) {
  Everywhere(Exclude<LockWhole>);
  Everywhere(Exclude<LockPart>);
  Everywhere(Exclude<LockPart64>);
}

// Those of a process let all of its threads in (fcntl(2)).
TEST(EventLoops, ALockOfAProcessIsNotWaitedForByItsThreads) {
  Everywhere([] {
    struct flock part {};
    part.l_type = F_WRLCK;
    const FileDescriptor file = OpenLock();
    EXPECT_EQ(fcntl(file.get(), F_SETLKW, &part), 0);
    std::thread other([&] {
      const FileDescriptor same = OpenLock();
      EXPECT_EQ(fcntl(same.get(), F_SETLKW, &part), 0);
    });
    other.join();
    part.l_type = 99;
    EXPECT_EQ(fcntl(file.get(), F_SETLKW, &part), -1);
    EXPECT_EQ(errno, EINVAL);
    EXPECT_EQ(fcntl(-1, F_SETLKW, &part), -1);
    EXPECT_EQ(errno, EBADF);
  });
}

// As code that is compiled with _FORTIFY_SOURCE has it.
TEST(EventLoops, ACheckedReadWaitsToo) {
  Everywhere([] {
    const Pair pipe = MakePipe();
    std::thread writer([&] { WriteOne(pipe.second); });
    char byte;
    pollfd polled{pipe.first.get(), POLLIN, 0};
    EXPECT_EQ(__poll_chk(&polled, 1, -1, sizeof(polled)), 1);
    EXPECT_EQ(__read_chk(pipe.first.get(), &byte, 1, 1), 1);
    writer.join();
  });
}

// A signal from outside the schedule every 20 us, as the watchdog sends itself
// two a second.
class Storm {
 public:
  Storm() {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR2, &action, nullptr);
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGUSR2;
    // The C library's functions are said.
    EXPECT_EQ(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer_), 0);
    const itimerspec setting = {{0, 20'000}, {0, 20'000}};
    EXPECT_EQ(syscall(SYS_timer_settime, timer_, 0, &setting, nullptr), 0);
  }
  ~Storm() { syscall(SYS_timer_delete, timer_); }
  Storm(const Storm&) = delete;
  Storm& operator=(const Storm&) = delete;

 private:
  int timer_ = 0;  // As the kernel has it.
};

// The kernel ends a poll(2) of nothing by a signal even if it has no time to
// wait: whoever then read would wait outside the schedule. The first run of
// this did.
TEST(EventLoops, NoSignalFromOutsideTheScheduleEndsAWait) {
  Explore({.runs = 100}, [] {
    const Storm storm;
    const Pair pipe = MakePipe();
    std::thread writer([&] {
      for (int i = 0; i < 4; ++i) WriteOne(pipe.second);
    });
    pollfd polled{pipe.first.get(), POLLIN, 0};
    EXPECT_EQ(poll(&polled, 1, -1), 1);
    ReadOne(pipe.first);
    fd_set wanted;
    FD_ZERO(&wanted);
    FD_SET(pipe.first.get(), &wanted);
    EXPECT_EQ(select(pipe.first.get() + 1, &wanted, nullptr, nullptr, nullptr),
              1);
    ReadOne(pipe.first);
    ReadOne(pipe.first);
    const FileDescriptor epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN;
    EXPECT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, pipe.first.get(), &event),
              0);
    EXPECT_EQ(epoll_wait(epoll.get(), &event, 1, -1), 1);
    ReadOne(pipe.first);
    EXPECT_EQ(poll(&polled, 1, 1), 0);
    writer.join();
  });
}

// The C library has them read and write by functions of its own.
TEST(EventLoops, AnEventIsReadByOneAndWrittenByAnother) {
  Everywhere([] {
    const FileDescriptor event(eventfd(0, EFD_CLOEXEC));
    std::thread writer([&] { EXPECT_EQ(eventfd_write(event.get(), 7), 0); });
    eventfd_t value = 0;
    EXPECT_EQ(eventfd_read(event.get(), &value), 0);
    EXPECT_EQ(value, 7u);
    writer.join();
    EXPECT_EQ(eventfd_write(event.get(), ~eventfd_t{0}), -1);
    EXPECT_EQ(errno, EINVAL);
  });
}

// What nobody of the simulation can say is waited for.
TEST(EventLoops, TheWorldIsGivenTime) {
  Explore({.runs = 5, .early_sleeps = false}, [] {
    const Pair pipe = MakePipe();
    timespec start;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &start);
    const pid_t child = fork();
    if (child == 0) {
      usleep(20'000);  // A real one.
      (void)!write(pipe.second.get(), "x", 1);
      _exit(7);
    }
    ReadOne(pipe.first);
    timespec end;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &end);
    EXPECT_GE(
        absl::DurationFromTimespec(end) - absl::DurationFromTimespec(start),
        absl::Milliseconds(15));
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(WEXITSTATUS(status), 7);
  });
}

// A child that waits, or not, and ends.
pid_t StartChild(int from = -1) {
  const pid_t child = fork();
  if (child != 0) return child;
  char byte;
  if (from >= 0) (void)!read(from, &byte, 1);
  _exit(7);
}

void AwaitChild(pid_t child) {
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

// However long it takes, which no machine is to decide.
TEST(EventLoops, AChildsEndHasItsPlaceInTheSchedule) {
  Everywhere([] {
    std::atomic<bool> ended{false};
    std::thread other([&] {
      AwaitChild(StartChild());
      ended = true;
    });
    std::thread ticker([&] {
      while (!ended) std::this_thread::sleep_for(std::chrono::seconds(1));
    });
    AwaitChild(StartChild());
    while (!ended) std::this_thread::yield();
    other.join();
    ticker.join();
  });
}

TEST(EventLoops, AChildMayWaitForAnotherThread) {
  Explore({.runs = 5, .early_sleeps = false}, [] {
    const Pair pipe = MakePipe();
    std::thread writer([&] {
      std::this_thread::sleep_for(std::chrono::seconds(1));
      WriteOne(pipe.second);
    });
    AwaitChild(StartChild(pipe.first.get()));
    writer.join();
  });
}

// What it calls before it becomes another program is no matter of the schedule,
// though it has this process's memory (vfork(2)).
TEST(EventLoops, AChildThatSharesMemoryHasNoPartInTheSchedule) {
  std::atomic<int>& others = *static_cast<std::atomic<int>*>(
      mmap(nullptr, sizeof(std::atomic<int>), PROT_READ | PROT_WRITE,
           MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  Explore({.runs = 100}, [&others] {
    others = 0;
    const pid_t self = getpid();
    std::thread other([&] {
      for (int i = 0; i < 3; ++i) {
        SchedulingPoint();
        if (getpid() != self) ++others;
      }
    });
    const Pair pipe = MakePipe();
    const pid_t child = vfork();  // NOLINT(clang-analyzer-*)
    if (child == 0) {
      dup2(STDERR_FILENO, 99);  // NOLINT(clang-analyzer-*)
      close(99);                // NOLINT(clang-analyzer-*)
      _exit(7);
    }
    AwaitChild(child);
    other.join();
    EXPECT_EQ(others, 0) << "it went on in the child";
  });
}

TEST(EventLoops, AnyFunctionWaitsForAChildInTheSchedule) {
  using Wait = pid_t (*)(pid_t child, int* status);
  constexpr Wait kWaits[] = {
      [](pid_t, int* status) { return wait(status); },
      [](pid_t, int* status) { return wait3(status, 0, nullptr); },
      [](pid_t child, int* status) { return wait4(child, status, 0, nullptr); },
      [](pid_t child, int* status) {
        siginfo_t about{};
        const auto id = static_cast<id_t>(child);
        if (waitid(P_PID, id, &about, WEXITED) != 0) return -1;
        *status = W_EXITCODE(about.si_status, 0);
        return about.si_pid;
      },
  };
  for (const Wait wait_for : kWaits) {
    Explore({.runs = 3, .early_sleeps = false}, [wait_for] {
      const Pair pipe = MakePipe();
      std::thread writer([&] {
        std::this_thread::sleep_for(std::chrono::seconds(1));
        WriteOne(pipe.second);
      });
      const pid_t child = StartChild(pipe.first.get());
      int status = 0;
      EXPECT_EQ(wait_for(child, &status), child);
      EXPECT_EQ(WEXITSTATUS(status), 7);
      writer.join();
    });
  }
}

// Calls that are no points.
bool IsThere(int fd, ino_t file) {
  struct stat found {};
  return fstat(fd, &found) == 0 && found.st_ino == file;
}
bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

// Whether it is found that others may act while `act` is under way and
// `is_done`, or is not yet.
void ExpectPointsAround(const char* what, void (*act)(int fd),
                        bool (*is_done)(int fd, ino_t file)) {
  for (const bool after : {false, true}) {
    const Exploration found = FindFailure({.runs = 100}, [=] {
      std::array<int, 2> ends;
      ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()),
                0);
      const FileDescriptor peer(ends[1]);
      const int fd = ends[0];
      struct stat file {};
      ASSERT_EQ(fstat(fd, &file), 0);
      std::atomic<bool> is_under_way{false};
      std::thread other([&] {
        EXPECT_FALSE(is_under_way && is_done(fd, file.st_ino) == after);
      });
      is_under_way = true;
      act(fd);
      is_under_way = false;
      other.join();
      if (IsOpen(fd)) close(fd);
    });
    ASSERT_TRUE(found.failure.has_value()) << what << (after ? " after" : "");
    EXPECT_TRUE(found.failure->replayed) << what;
  }
}

TEST(EventLoops, WhatClosesADescriptorIsAPointBeforeItAndAfterIt) {
  const auto is_done = [](int fd, ino_t file) { return !IsThere(fd, file); };
  ExpectPointsAround(
      "close", [](int fd) { EXPECT_EQ(close(fd), 0); }, is_done);
  ExpectPointsAround(
      "close_range",
      [](int fd) {
        const auto number = static_cast<unsigned>(fd);
        EXPECT_EQ(close_range(number, number, 0), 0);
      },
      is_done);
  ExpectPointsAround(
      "dup2", [](int fd) { EXPECT_EQ(dup2(STDERR_FILENO, fd), fd); }, is_done);
  ExpectPointsAround(
      "dup3", [](int fd) { EXPECT_EQ(dup3(STDERR_FILENO, fd, O_CLOEXEC), fd); },
      is_done);
  ExpectPointsAround(
      "fclose", [](int fd) { EXPECT_EQ(fclose(fdopen(fd, "r")), 0); }, is_done);
  // NOLINTNEXTLINE(clang-analyzer-unix.Stream): its descriptor is closed.
  ExpectPointsAround(
      "freopen",
      [](int fd) {
        EXPECT_NE(freopen("/dev/null", "re", fdopen(fd, "r")), nullptr);
      },
      is_done);
}

// It closes a connection, though not its number.
TEST(EventLoops, ShutdownIsAPointBeforeItAndAfterIt) {
  ExpectPointsAround(
      "shutdown", [](int fd) { EXPECT_EQ(shutdown(fd, SHUT_RD), 0); },
      [](int fd, ino_t) {
        char byte;
        return syscall(SYS_recvfrom, fd, &byte, 1, MSG_DONTWAIT, nullptr,
                       nullptr) == 0;
      });
}

// An event may come before it is known whose it is.
TEST(EventLoops, WhatIsDoneAfterAnEpollIsToldMayBeTooLate) {
  const Exploration found = FindFailure({.runs = 1000}, [] {
    const Pair pipe = MakePipe();
    WriteOne(pipe.second);
    const FileDescriptor epoll(epoll_create1(EPOLL_CLOEXEC));
    bool is_known = false;
    std::thread loop([&] {
      epoll_event event;
      ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, -1), 1);
      EXPECT_TRUE(is_known);
    });
    epoll_event event{};
    event.events = EPOLLIN;
    EXPECT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, pipe.first.get(), &event),
              0);
    is_known = true;
    loop.join();
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_TRUE(found.failure->replayed);
}

// A queue of one has room for two.
TEST(EventLoops, WhoConnectsWaitsForRoomInTheQueue) {
  Everywhere([] {
    const auto make = [] {
      return FileDescriptor(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    };
    const FileDescriptor listener = make();
    sockaddr_storage name{};
    name.ss_family = AF_UNIX;
    auto* const address = reinterpret_cast<sockaddr*>(&name);
    socklen_t size = sizeof(name.ss_family);  // The kernel chooses one.
    ASSERT_EQ(bind(listener.get(), address, size), 0);
    size = sizeof(name);
    ASSERT_EQ(getsockname(listener.get(), address, &size), 0);
    ASSERT_EQ(listen(listener.get(), 1), 0);
    const auto call = [&] {
      const FileDescriptor own = make();
      EXPECT_EQ(connect(own.get(), address, size), 0);
      EXPECT_EQ(fcntl(own.get(), F_GETFL) & O_NONBLOCK, 0);
      ReadOne(own);
    };
    std::vector<std::thread> clients;
    for (int i = 0; i < 4; ++i) clients.emplace_back(call);
    for (int i = 0; i < 4; ++i) {
      const FileDescriptor one(accept(listener.get(), nullptr, nullptr));
      WriteOne(one);
    }
    for (std::thread& client : clients) client.join();
  });
}

// Where the queue is full the kernel asks again after a second.
TEST(EventLoops, WhoConnectsByTcpWaitsInTheSchedule) {
  Explore({.runs = 1}, [] {
    const auto make = [] {
      return FileDescriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    };
    const FileDescriptor listener = make();
    sockaddr_storage name{};
    auto* const address = reinterpret_cast<sockaddr*>(&name);
    socklen_t size = sizeof(name);
    ASSERT_EQ(listen(listener.get(), 0), 0);
    ASSERT_EQ(getsockname(listener.get(), address, &size), 0);
    const auto call = [&] {
      const FileDescriptor own = make();
      EXPECT_EQ(connect(own.get(), address, size), 0);
      EXPECT_EQ(fcntl(own.get(), F_GETFL) & O_NONBLOCK, 0);
      ReadOne(own);
    };
    std::vector<std::thread> clients;
    for (int i = 0; i < 2; ++i) clients.emplace_back(call);
    std::this_thread::sleep_for(std::chrono::seconds(1));
    for (int i = 0; i < 2; ++i) {
      const FileDescriptor one(accept(listener.get(), nullptr, nullptr));
      WriteOne(one);
    }
    for (std::thread& client : clients) client.join();
    const FileDescriptor late = make();
    EXPECT_EQ(shutdown(listener.get(), SHUT_RDWR), 0);
    EXPECT_EQ(connect(late.get(), address, size), -1);
    EXPECT_EQ(errno, ECONNREFUSED);
  });
}

// --- what goes wrong where a search has faults ---

// Whether a run fails in which it may.
bool IsFoundWithFaults(void (*body)(), uint64_t runs = 1000) {
  ExploreOptions options;
  options.runs = runs;
  options.faults = true;
  return FindFailure(options, body).failure.has_value();
}

// Such a loop takes fewer bytes than it has asked for to be all (epoll(7)).
TEST(Faults, WhatIsWatchedForEdgesComesWhole) {
  Explore({.runs = 200, .faults = true}, [] {
    std::array<int, 2> ends;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
                   ends.data()) != 0) {
      return;
    }
    const FileDescriptor reading(ends[0]);
    const FileDescriptor writing(ends[1]);
    const FileDescriptor epoll(epoll_create1(EPOLL_CLOEXEC));
    if (!epoll.is_open()) return;
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, reading.get(), &event), 0);
    const std::string sent(100, 'x');
    std::thread writer([&] {
      EXPECT_EQ(write(writing.get(), sent.data(), sent.size()), 100);
    });
    for (ssize_t got = 0; got < 100;) {
      ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, -1), 1);
      std::array<char, 4096> bytes;
      const ssize_t some = read(reading.get(), bytes.data(), bytes.size());
      ASSERT_GT(some, 0);
      got += some;
    }
    writer.join();
  });
}

// What was seen with MSG_PEEK is there.
TEST(Faults, WhatWasPeekedAtComesWhole) {
  Explore({.runs = 100, .faults = true}, [] {
    std::array<int, 2> ends;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
      return;
    }
    const FileDescriptor reading(ends[0]);
    const FileDescriptor writing(ends[1]);
    std::array<char, 100> bytes{};
    ASSERT_EQ(send(writing.get(), bytes.data(), bytes.size(), 0), 100);
    ASSERT_EQ(recv(reading.get(), bytes.data(), bytes.size(), MSG_PEEK), 100);
    EXPECT_EQ(recv(reading.get(), bytes.data(), 81, 0), 81);
  });
}

// What has come after that may be cut off.
TEST(Faults, WhatWasCountedComesWhole) {
  constexpr size_t kCounted = 80;
  bool (*const is_cut)() = [] {
    std::array<int, 2> ends;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
      return false;
    }
    const FileDescriptor reading(ends[0]);
    const FileDescriptor writing(ends[1]);
    std::array<char, 100> bytes{};
    EXPECT_EQ(send(writing.get(), bytes.data(), kCounted, 0), 80);
    int come = 0;
    EXPECT_EQ(ioctl(reading.get(), FIONREAD, &come), 0);
    EXPECT_EQ(come, 80);
    EXPECT_EQ(recv(reading.get(), bytes.data(), 50, 0), 50);
    EXPECT_EQ(send(writing.get(), bytes.data(), 20, 0), 20);
    const ssize_t got = recv(reading.get(), bytes.data(), bytes.size(), 0);
    EXPECT_GE(got, 30);
    return got < 50;
  };
  Explore({.runs = 100, .faults = true}, [&] { is_cut(); });
  ExploreOptions options;
  options.faults = true;
  EXPECT_TRUE(FindFailure(options, [&] {
                EXPECT_FALSE(is_cut());
              }).failure.has_value());
}

// Nothing that the simulator asks leaves its own error there.
TEST(Faults, WhatSucceedsLeavesErrnoAsItIs) {
  Explore({.runs = 20, .faults = true}, [] {
    errno = 0;
    if (poll(nullptr, 0, 1) == 0) {
      EXPECT_EQ(errno, 0);
    }
    sem_t semaphore;
    sem_init(&semaphore, 0, 0);
    std::thread poster([&] { sem_post(&semaphore); });
    errno = 0;
    if (sem_wait(&semaphore) == 0) {
      EXPECT_EQ(errno, 0);
    }
    poster.join();
    sem_destroy(&semaphore);
  });
}

// Not by a signal that this wait blocks.
TEST(Faults, AWaitIsInterruptedByWhatItsMaskLetsThrough) {
  struct sigaction action {};
  struct sigaction found {};
  action.sa_handler = [](int) {};
  sigaction(SIGUSR1, &action, &found);
  Explore({.runs = 100, .faults = true}, [] {
    std::array<int, 2> ends;
    if (pipe2(ends.data(), O_CLOEXEC) != 0) return;
    const FileDescriptor reading(ends[0]);
    const FileDescriptor writing(ends[1]);
    std::thread writer([&] { WriteOne(writing); });
    pollfd polled{reading.get(), POLLIN, 0};
    sigset_t all;
    sigfillset(&all);
    EXPECT_EQ(ppoll(&polled, 1, nullptr, &all), 1);
    writer.join();
  });
  sigaction(SIGUSR1, &found, nullptr);
}

TEST(Faults, AStreamComesInPieces) {
  EXPECT_TRUE(IsFoundWithFaults([] {
    std::array<int, 2> ends;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
      return;
    }
    const FileDescriptor one(ends[0]);
    const FileDescriptor other(ends[1]);
    EXPECT_EQ(write(one.get(), "word", 4), 4);
    std::array<char, 4> word;
    EXPECT_EQ(read(other.get(), word.data(), word.size()), 4);
  }));
}

// Messages, events and what is written to a pipe at once.
TEST(Faults, WhatIsWholeComesWhole) {
  EXPECT_FALSE(IsFoundWithFaults([] {
    std::array<int, 2> ends;
    std::array<char, 4> word;
    const auto cross = [&] {
      const FileDescriptor from(ends[0]);
      const FileDescriptor to(ends[1]);
      EXPECT_EQ(write(to.get(), "word", 4), 4);
      EXPECT_EQ(read(from.get(), word.data(), word.size()), 4);
    };
    for (const int type : {SOCK_SEQPACKET, SOCK_DGRAM}) {
      if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends.data()) == 0) {
        cross();
      }
    }
    if (pipe2(ends.data(), O_CLOEXEC) == 0) cross();
    const FileDescriptor event(eventfd(0, EFD_CLOEXEC));
    if (!event.is_open()) return;
    EXPECT_EQ(eventfd_write(event.get(), 7), 0);
    eventfd_t value = 0;
    EXPECT_EQ(eventfd_read(event.get(), &value), 0);
    EXPECT_EQ(value, 7u);
  }));
}

TEST(Faults, DescriptorsMayBeExhausted) {
  using Open = int (*)();
  constexpr Open kOpens[] = {
      [] { return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); },
      [] { return eventfd(0, EFD_CLOEXEC); },
      [] { return epoll_create1(EPOLL_CLOEXEC); },
      [] { return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC); },
      [] { return dup(STDERR_FILENO); },
      [] {
        std::array<int, 2> ends = {-1, -1};
        if (pipe2(ends.data(), O_CLOEXEC) == 0) close(ends[1]);
        return ends[0];
      },
  };
  for (const Open open_it : kOpens) {
    ExploreOptions options;
    options.faults = true;
    const Exploration found = FindFailure(options, [open_it] {
      const FileDescriptor opened(open_it());
      EXPECT_TRUE(opened.is_open()) << strerrorname_np(errno);
    });
    ASSERT_TRUE(found.failure.has_value());
    EXPECT_NE(found.failure->what.find("EMFILE"), std::string::npos)
        << found.failure->what;
  }
}

// Waits until somebody writes, with a handler of `flags`, or without one.
template <int flags, bool polls>
void ReadsWithHandler() {
  struct sigaction action {};
  struct sigaction found {};
  action.sa_handler = [](int) {};
  action.sa_flags = flags;
  if (flags >= 0) sigaction(SIGUSR1, &action, &found);
  std::array<int, 2> ends;
  if (pipe2(ends.data(), O_CLOEXEC) == 0) {
    const FileDescriptor from(ends[0]);
    const FileDescriptor to(ends[1]);
    std::thread writer([&] {
      std::this_thread::sleep_for(std::chrono::seconds(1));
      WriteOne(to);
    });
    pollfd polled{from.get(), POLLIN, 0};
    if (polls) {
      EXPECT_EQ(poll(&polled, 1, -1), 1);
    } else {
      ReadOne(from);
    }
    writer.join();
  }
  if (flags >= 0) sigaction(SIGUSR1, &found, nullptr);
}

// signal(7): poll(2) is never started anew.
TEST(Faults, AWaitIsInterruptedWhereThereIsAHandler) {
  EXPECT_TRUE(IsFoundWithFaults(&ReadsWithHandler<0, false>));
  EXPECT_FALSE(IsFoundWithFaults(&ReadsWithHandler<SA_RESTART, false>, 200));
  EXPECT_TRUE(IsFoundWithFaults(&ReadsWithHandler<SA_RESTART, true>));
  EXPECT_FALSE(IsFoundWithFaults(&ReadsWithHandler<-1, true>, 200));
}

TEST(Faults, ALongWriteThatMustNotWaitMayEndBetween) {
  EXPECT_TRUE(IsFoundWithFaults([] {
    std::array<int, 2> ends;
    if (pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) return;
    const FileDescriptor from(ends[0]);
    const FileDescriptor to(ends[1]);
    const std::string sent(10'000, 'x');
    EXPECT_EQ(write(to.get(), sent.data(), sent.size()), 10'000);
  }));
}

TEST(EventLoops, WhatIsUsedAfterAFileIsUnlockedIsFound) {
  for (const Locking lock : {LockWhole, LockPart, LockPart64}) {
    const Exploration found = FindFailure({.runs = 1000}, [lock] {
      int owner = 0;
      const auto work = [&](int number) {
        const FileDescriptor file = OpenLock();
        ASSERT_TRUE(lock(file.get(), true));
        owner = number;
        ASSERT_TRUE(lock(file.get(), false));
        EXPECT_EQ(owner, number);
      };
      std::thread other([&] { work(1); });
      work(2);
      other.join();
    });
    ASSERT_TRUE(found.failure.has_value());
    EXPECT_TRUE(found.failure->replayed);
  }
}

// It has no more room than the one that is closed in its place.
TEST(EventLoops, WhatIsReplacedIsNotLeft) {
  Explore({.runs = 20}, [] {
    const FileDescriptor own(dup(STDERR_FILENO));
    ASSERT_EQ(dup2(STDOUT_FILENO, own.get()), own.get());
    EXPECT_EQ(dup2(-1, own.get()), -1);
    EXPECT_EQ(errno, EBADF);
    EXPECT_EQ(dup3(own.get(), own.get(), 0), -1);
    EXPECT_EQ(errno, EINVAL);
  });
  const Exploration found = FindFailure({.runs = 1}, [] {
    const FileDescriptor own(dup(STDERR_FILENO));
    const int other = own.get() + 1;
    ASSERT_EQ(dup2(STDERR_FILENO, other), other);
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_EQ(found.failure->what.rfind("a descriptor is left open", 0), 0u)
      << found.failure->what;
}

// --- what is closed while a thread waits for it ---

// What waits for the first one of `fds` in the kernel, for as long as nothing
// comes: that another thread closes it is nothing (close(2)).
using WaitFor = void (*)(const Pair& fds);
constexpr WaitFor kWaits[] = {
    [](const Pair& fds) {
      char byte;
      (void)!read(fds.first.get(), &byte, 1);
    },
    [](const Pair& fds) {
      msghdr message{};
      (void)!recvmsg(fds.first.get(), &message, 0);
    },
    [](const Pair& fds) {
      pollfd polled{fds.first.get(), POLLIN, 0};
      poll(&polled, 1, -1);
    },
    [](const Pair& fds) {
      pollfd polled[2] = {{fds.first.get(), POLLIN, 0},
                          {fds.second.get(), POLLPRI, 0}};
      ppoll(polled, 2, nullptr, nullptr);
    },
    [](const Pair& fds) {
      fd_set set;
      FD_ZERO(&set);
      FD_SET(fds.first.get(), &set);
      select(fds.first.get() + 1, &set, nullptr, nullptr, nullptr);
    },
};

void ExpectDeadlock(const char* what, const Exploration& found) {
  ASSERT_TRUE(found.failure.has_value()) << what;
  EXPECT_EQ(found.failure->what.rfind("deadlock", 0), 0u)
      << what << ": " << found.failure->what;
  EXPECT_FALSE(found.failure->hung) << what;
  EXPECT_TRUE(found.failure->replayed) << what;
}

// Whether kcmp(2) is to be had.
bool TellsFilesApart() {
  return syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, STDERR_FILENO,
                 STDERR_FILENO) == 0;
}

// All of these, in one run.
TEST(EventLoops, WhoWaitsForADescriptorIsNotWokenByItsEnd) {
  const Exploration found = FindFailure({.runs = 1}, [] {
    std::vector<std::thread> waiters;
    std::array<Pair, std::size(kWaits)> pairs;
    Pair* own = pairs.data();
    for (const WaitFor wait_for : kWaits) {
      *own = MakeSocketPair();
      waiters.emplace_back([own, wait_for] { wait_for(*own); });
      ++own;
    }
    FileDescriptor epoll(epoll_create1(EPOLL_CLOEXEC));
    waiters.emplace_back([&] {
      epoll_event event;
      epoll_wait(epoll.get(), &event, 1, -1);
    });
    FileDescriptor named = ListenAnywhere(AF_UNIX);
    FileDescriptor numbered = ListenAnywhere(AF_INET);
    waiters.emplace_back([&] { accept(named.get(), nullptr, nullptr); });
    waiters.emplace_back([&] { accept4(numbered.get(), nullptr, nullptr, 0); });
    std::this_thread::sleep_for(std::chrono::seconds(1));
    for (Pair& own : pairs) own.first.Reset();
    for (FileDescriptor* const fd : {&epoll, &named, &numbered}) fd->Reset();
    for (std::thread& waiter : waiters) waiter.join();
  });
  ExpectDeadlock("all", found);
  size_t waiting = 0;
  std::istringstream lines(found.failure->what);
  for (std::string line; std::getline(lines, line);) {
    if (absl::StrContains(line,
                          "it was closed meanwhile, which wakes nobody")) {
      ++waiting;
    }
  }
  EXPECT_EQ(waiting, std::size(kWaits) + 3) << found.failure->what;
}

// What was sent has arrived, and nobody else has the other end.
TEST(EventLoops, ADeadlockOverAConnectionOfTcpIsDecidedAtOnce) {
  ExpectDeadlock(
      "TCP", FindFailure({.runs = 1}, [] {
        const auto make = [] {
          return FileDescriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        };
        const FileDescriptor listener = make();
        sockaddr_storage name{};
        name.ss_family = AF_INET;
        auto* const address = reinterpret_cast<sockaddr*>(&name);
        socklen_t size = sizeof(name);
        ASSERT_EQ(listen(listener.get(), 1), 0);
        ASSERT_EQ(getsockname(listener.get(), address, &size), 0);
        const FileDescriptor client = make();
        ASSERT_EQ(connect(client.get(), address, size), 0);
        const FileDescriptor server(accept(listener.get(), nullptr, nullptr));
        WriteOne(client);
        std::thread other([&] {
          ReadOne(server);
          ReadOne(server);
        });
        ReadOne(client);
        other.join();
      }));
}

// What was open before the run, or is a duplicate of that, may have others
// behind it.
TEST(EventLoops, WhatWasOpenBeforeIsServedFromOutside) {
  const Pair pipe = MakePipe();
  const FileDescriptor event(eventfd(0, EFD_CLOEXEC));
  const pid_t child = fork();
  if (child == 0) {
    const uint64_t word = 1;
    for (int i = 0; i < 2; ++i) {
      usleep(200'000);
      (void)!write(pipe.second.get(), "x", 1);
      (void)!write(event.get(), &word, sizeof(word));
    }
    _exit(7);
  }
  const Exploration found = FindFailure({.runs = 1}, [&] {
    ReadOne(pipe.first);
    ReadOne(FileDescriptor(dup(pipe.first.get())));
    const FileDescriptor same(dup(event.get()));
    const FileDescriptor epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, same.get(), &wanted), 0);
    for (int i = 0; i < 2; ++i) {
      ASSERT_EQ(epoll_wait(epoll.get(), &wanted, 1, -1), 1);
      eventfd_t value = 0;
      ASSERT_EQ(eventfd_read(same.get(), &value), 0);
      if (value == 2) break;
    }
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
  AwaitChild(child);
}

// Who has sent it may serve it, as may who has got it.
TEST(EventLoops, WhatIsExchangedWithOthersIsServedFromOutside) {
  for (const bool is_sent : {false, true}) {
    const Pair line = MakeSocketPair();
    const pid_t child = fork();
    if (child == 0) {
      Pair own = MakePipe();
      if (is_sent) {
        own.second = std::move(Receive(line.second, 1).descriptor);
      } else {
        SendDescriptor(line.second, own.first);
      }
      usleep(100'000);
      WriteOne(own.second);
      _exit(7);
    }
    const Exploration found = FindFailure({.runs = 1}, [&] {
      Pair own = is_sent ? MakePipe() : Pair();
      if (is_sent) {
        SendDescriptor(line.first, own.second);
        own.second.Reset();
      } else {
        own.first = std::move(Receive(line.first, 1).descriptor);
      }
      ReadOne(own.first);
    });
    EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
    AwaitChild(child);
  }
}

// The C library writes by a thread of its own.
TEST(EventLoops, WhatIsWrittenBesideTheScheduleIsWaitedFor) {
  const Exploration found = FindFailure({.runs = 1}, [] {
    const Pair pipe = MakePipe();
    const int room = fcntl(pipe.second.get(), F_SETPIPE_SZ, 4096);
    std::string bytes(static_cast<size_t>(room), 'x');
    ASSERT_EQ(write(pipe.second.get(), bytes.data(), bytes.size()), room);
    aiocb request{};
    request.aio_fildes = pipe.second.get();
    request.aio_buf = bytes.data();
    request.aio_nbytes = 1;
    ASSERT_EQ(aio_write(&request), 0);
    EXPECT_EQ(read(pipe.first.get(), bytes.data(), bytes.size()), room);
    ReadOne(pipe.first);
    while (aio_error(&request) == EINPROGRESS) usleep(1000);
    EXPECT_EQ(aio_return(&request), 1);
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
}

// Whatever has become of the numbers by which it was asked to.
TEST(EventLoops, AnEpollWatchesFilesThatOthersMayServe) {
  const Pair pipe = MakePipe();
  const FileDescriptor event(eventfd(0, EFD_CLOEXEC));
  const pid_t child = fork();
  if (child == 0) {
    usleep(100'000);
    WriteOne(pipe.second);
    usleep(100'000);
    (void)eventfd_write(event.get(), 1);
    _exit(7);
  }
  const auto watch = [](int epoll, int fd) {
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    EXPECT_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted), 0);
  };
  const Exploration found = FindFailure({.runs = 1}, [&] {
    for (const FileDescriptor* const fd : {&pipe.first, &event}) {
      const FileDescriptor epoll(epoll_create1(EPOLL_CLOEXEC));
      FileDescriptor same(dup(fd->get()));
      watch(epoll.get(), same.get());
      same.Reset();
      // That has its number, and nobody serves it.
      const FileDescriptor other(eventfd(0, EFD_CLOEXEC));
      epoll_event found_event;
      EXPECT_EQ(epoll_wait(epoll.get(), &found_event, 1, -1), 1);
    }
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
  AwaitChild(child);
  ExpectDeadlock("an epoll", FindFailure({.runs = 1}, [&] {
                   const Pair own = MakePipe();
                   const FileDescriptor epoll(epoll_create1(EPOLL_CLOEXEC));
                   FileDescriptor same(dup(own.first.get()));
                   watch(epoll.get(), same.get());
                   same.Reset();
                   epoll_event found_event;
                   epoll_wait(epoll.get(), &found_event, 1, -1);
                 }));
}

// Of files that have no inode of their own, as where a container's filter of
// system calls has none of kcmp(2).
TEST(EventLoops, ADeadlockIsToldWhereTheKernelTellsNoFilesApart) {
  ExpectDeadlock(
      "epolls", FindFailure({.runs = 1}, [] {
        std::array<sock_filter, 4> filter = {
            {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
             BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_kcmp, 0, 1),
             BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
             BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}};
        const sock_fprog program{filter.size(), filter.data()};
        ASSERT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        ASSERT_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
        ASSERT_FALSE(TellsFilesApart());
        const FileDescriptor event(eventfd(0, EFD_CLOEXEC));
        const FileDescriptor first(epoll_create1(EPOLL_CLOEXEC));
        const FileDescriptor second(epoll_create1(EPOLL_CLOEXEC));
        epoll_event wanted{};
        wanted.events = EPOLLIN;
        for (const auto& [epoll, fd] : {std::pair(first.get(), event.get()),
                                        std::pair(second.get(), first.get())}) {
          ASSERT_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted), 0);
        }
        epoll_wait(second.get(), &wanted, 1, -1);
      }));
}

// Where it cannot be looked for who has what, somebody may.
TEST(EventLoops, AFullTableOfDescriptorsIsNoDeadlock) {
  const Pair pipe = MakePipe();
  const pid_t child = fork();
  if (child == 0) {
    usleep(100'000);
    WriteOne(pipe.second);
    _exit(7);
  }
  const Exploration found = FindFailure({.runs = 1}, [&] {
    rlimit limit;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    const FileDescriptor next(dup(pipe.first.get()));
    rlimit less = limit;
    less.rlim_cur = static_cast<rlim_t>(next.get()) + 1;
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &less), 0);
    ReadOne(next);
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  });
  EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
  AwaitChild(child);
  const Exploration left = FindFailure({.runs = 1}, [] {
    const int next = dup(STDERR_FILENO);
    rlimit limit;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = static_cast<rlim_t>(next) + 1;
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  });
  ASSERT_TRUE(left.failure.has_value());
  EXPECT_EQ(left.failure->what.rfind("descriptors are left open", 0), 0u)
      << left.failure->what;
}

// Nobody else can unlock what the run has locked.
TEST(EventLoops, ADeadlockOverLocksOfFilesIsDecidedAtOnce) {
  if (!TellsFilesApart()) GTEST_SKIP() << "kcmp(2) is denied";
  for (const Locking lock : {LockWhole, LockPart}) {
    ExpectDeadlock("locks", FindFailure({.runs = 1}, [lock] {
                     const auto take = [lock](const char* one,
                                              const char* other) {
                       const FileDescriptor first = OpenLock(one);
                       const FileDescriptor second = OpenLock(other);
                       ASSERT_TRUE(lock(first.get(), true));
                       std::this_thread::sleep_for(std::chrono::seconds(1));
                       ASSERT_TRUE(lock(second.get(), true));
                     };
                     std::thread thread([&] { take("one", "other"); });
                     take("other", "one");
                     thread.join();
                   }));
  }
}

// A part of it, for this process.
bool LockForProcess(int file, bool lock) {
  struct flock part {};
  part.l_type = static_cast<short>(lock ? F_WRLCK : F_UNLCK);
  part.l_len = 1;
  return fcntl(file, F_SETLKW, &part) == 0;
}

TEST(EventLoops, ALockThatOthersHaveIsWaitedFor) {
  const auto self = static_cast<int>(getpid());
  for (const Locking lock : {LockWhole, LockPart, LockForProcess}) {
    const Pair ready = MakePipe();
    const pid_t child = fork();
    if (child == 0) {
      const FileDescriptor file = OpenLock("others", self);
      lock(file.get(), true);
      WriteOne(ready.second);
      usleep(100'000);
      _exit(7);
    }
    ReadOne(ready.first);
    const Exploration found = FindFailure({.runs = 1}, [&] {
      const FileDescriptor other = OpenLock("others", self);
      const FileDescriptor file = OpenLock("others", self);
      EXPECT_TRUE(lock(file.get(), true));
    });
    EXPECT_FALSE(found.failure.has_value()) << found.failure->what;
    AwaitChild(child);
  }
}

// As the kernel has it, whose order nobody may rely on.
TEST(EventLoops, AnyOfThoseThatWaitAtAnEpollMayBeTold) {
  for (const int first : {1, 2}) {
    const ExploreOptions options{.runs = 100, .early_sleeps = false};
    const Exploration found = FindFailure(options, [first] {
      const Pair pipe = MakePipe();
      const Pair told = MakePipe();
      const FileDescriptor epoll(epoll_create1(EPOLL_CLOEXEC));
      epoll_event wanted{};
      wanted.events = EPOLLIN | EPOLLET;
      ASSERT_EQ(
          epoll_ctl(epoll.get(), EPOLL_CTL_ADD, pipe.first.get(), &wanted), 0);
      std::atomic<int> last{0};
      const auto await = [&](int number) {
        epoll_event event;
        ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, -1), 1);
        ReadOne(pipe.first);
        last = number;
        WriteOne(told.second);
      };
      std::thread one([&] { await(1); });
      std::thread other([&] { await(2); });
      std::this_thread::sleep_for(std::chrono::seconds(1));
      WriteOne(pipe.second);
      ReadOne(told.first);
      EXPECT_EQ(last, first);
      WriteOne(pipe.second);
      one.join();
      other.join();
    });
    ASSERT_TRUE(found.failure.has_value()) << "it is always " << first;
    EXPECT_TRUE(found.failure->replayed);
  }
}

// It is closed as little as before.
TEST(EventLoops, WhatIsShutDownOrStaysOpenIsNotClosed) {
  const Exploration found = FindFailure({.runs = 1}, [] {
    const Pair own = MakeSocketPair();
    const int fd = own.first.get();
    std::thread waiter([fd] {
      char byte;
      (void)!read(fd, &byte, 1);
    });
    std::this_thread::sleep_for(std::chrono::seconds(1));
    EXPECT_EQ(shutdown(fd, SHUT_WR), 0);
    EXPECT_EQ(dup2(fd, fd), fd);
    EXPECT_EQ(dup2(-1, fd), -1);
    EXPECT_EQ(close_range(static_cast<unsigned>(fd), static_cast<unsigned>(fd),
                          CLOSE_RANGE_CLOEXEC),
              0);
    waiter.join();
  });
  ExpectDeadlock("shutdown", found);
  EXPECT_EQ(found.failure->what.find("closed"), std::string::npos)
      << found.failure->what;
}

// With a name as most programs give it: the whole of the structure.
TEST(EventLoops, ADeadlockOverAFullQueueIsDecidedAtOnce) {
  // Not in TEST_TMPDIR, which may be longer than such a name.
  std::string directory = "/tmp/ward-test-XXXXXX";
  ASSERT_NE(mkdtemp(directory.data()), nullptr);
  const std::string path = directory + "/queue";
  ExpectDeadlock(
      "connect", FindFailure({.runs = 1}, [&path] {
        sockaddr_un name{};
        name.sun_family = AF_UNIX;
        path.copy(name.sun_path, sizeof(name.sun_path) - 1);
        const auto* const address = reinterpret_cast<const sockaddr*>(&name);
        unlink(path.c_str());
        const auto make = [] {
          return FileDescriptor(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        };
        const FileDescriptor listener = make();
        ASSERT_EQ(bind(listener.get(), address, sizeof(name)), 0);
        ASSERT_EQ(listen(listener.get(), 0), 0);
        const FileDescriptor one = make();
        const FileDescriptor other = make();
        EXPECT_EQ(connect(one.get(), address, sizeof(name)), 0);
        (void)connect(other.get(), address, sizeof(name));
      }));
  unlink(path.c_str());
  rmdir(directory.c_str());
}

// Whatever closes it.
TEST(EventLoops, WhoWaitsHasTheFileThatItBeganWith) {
  using Close = void (*)(int fd);
  constexpr Close kCloses[] = {
      [](int fd) { EXPECT_EQ(close(fd), 0); },
      [](int fd) { EXPECT_EQ(close_range(fd, ~0U, 0), 0); },
      [](int fd) { closefrom(fd); },
      [](int fd) { EXPECT_EQ(fclose(fdopen(fd, "r")), 0); },
      // Another file has its number, which can be read.
      [](int fd) {
        const Pair other = MakePipe();
        WriteOne(other.second);
        EXPECT_EQ(dup2(other.first.get(), fd), fd);
      },
  };
  for (const Close close_it : kCloses) {
    Explore({.runs = 20, .early_sleeps = false}, [close_it] {
      std::array<int, 2> ends;
      ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()),
                0);
      const int first = fcntl(ends[0], F_DUPFD_CLOEXEC, 100);
      ASSERT_EQ(close(ends[0]), 0);
      bool is_read = false;
      std::thread reader([&] {
        char byte = 0;
        EXPECT_EQ(read(first, &byte, 1), 1);
        EXPECT_EQ(byte, 'y');
        is_read = true;
      });
      std::this_thread::sleep_for(std::chrono::seconds(1));
      close_it(first);
      std::this_thread::sleep_for(std::chrono::seconds(1));
      EXPECT_FALSE(is_read);
      EXPECT_EQ(send(ends[1], "y", 1, MSG_NOSIGNAL), 1);
      reader.join();
      // It has not gone on to have it.
      EXPECT_EQ(send(ends[1], "y", 1, MSG_NOSIGNAL), -1);
      EXPECT_EQ(errno, EPIPE);
      close(first);
      close(ends[1]);
    });
  }
}

// poll(2) looks at the numbers anew when it is woken, and at its end.
TEST(EventLoops, APollTellsOfWhatWasClosedOnceItIsWoken) {
  Explore({.runs = 20, .early_sleeps = false}, [] {
    for (const int limit : {-1, 3000}) {
      Pair one = MakePipe();
      const Pair other = MakePipe();
      const absl::Time start = Scheduler::Current()->now();
      std::thread waiter([&] {
        pollfd polled[2] = {{one.first.get(), POLLIN, 0},
                            {other.first.get(), POLLIN, 0}};
        EXPECT_EQ(poll(polled, 2, limit), limit < 0 ? 2 : 1);
        EXPECT_EQ(polled[0].revents, POLLNVAL);
        EXPECT_EQ(polled[1].revents, limit < 0 ? POLLIN : 0);
      });
      std::this_thread::sleep_for(std::chrono::seconds(1));
      one.first.Reset();
      std::this_thread::sleep_for(std::chrono::seconds(1));
      if (limit < 0) WriteOne(other.second);
      waiter.join();
      EXPECT_EQ(Scheduler::Current()->now() - start,
                absl::Seconds(limit < 0 ? 2 : 3));
    }
    Pair one = MakePipe();
    const Pair other = MakePipe();
    std::thread waiter([&] {
      const int most = std::max(one.first.get(), other.first.get());
      fd_set set;
      FD_ZERO(&set);
      FD_SET(one.first.get(), &set);
      FD_SET(other.first.get(), &set);
      EXPECT_EQ(select(most + 1, &set, nullptr, nullptr, nullptr), 1);
      EXPECT_TRUE(FD_ISSET(other.first.get(), &set));
    });
    std::this_thread::sleep_for(std::chrono::seconds(1));
    one.first.Reset();
    WriteOne(one.second);
    std::this_thread::sleep_for(std::chrono::seconds(1));
    WriteOne(other.second);
    waiter.join();
  });
}

TEST(EventLoops, WhoWaitsForALockHasItOfTheFileThatItBeganWith) {
  Explore({.runs = 20, .early_sleeps = false}, [] {
    const FileDescriptor held = OpenLock();
    ASSERT_TRUE(LockWhole(held.get(), true));
    FileDescriptor own = OpenLock();
    bool has_it = false;
    std::thread waiter([&] {
      EXPECT_TRUE(LockWhole(own.get(), true)) << errno;
      has_it = true;
    });
    std::this_thread::sleep_for(std::chrono::seconds(1));
    own.Reset();
    std::this_thread::sleep_for(std::chrono::seconds(1));
    EXPECT_FALSE(has_it);
    ASSERT_TRUE(LockWhole(held.get(), false));
    waiter.join();
  });
}

// Several processes make runs at once.
std::string MakeFifo(const char* name) {
  std::string path =
      absl::StrCat(std::getenv("TEST_TMPDIR"), "/", name, ".", int{getpid()});
  unlink(path.c_str());
  EXPECT_EQ(mkfifo(path.c_str(), 0600), 0);
  return path;
}

// Two of each may be on their way, and who comes later goes on at once.
TEST(EventLoops, WhoOpensAFifoWaitsForTheOtherEnd) {
  for (const bool has_writer_first : {false, true}) {
    Explore({.runs = 200, .early_sleeps = false}, [has_writer_first] {
      const std::string path = MakeFifo("fifo");
      const auto open_it = [&](int flags) {
        FileDescriptor opened(open(path.c_str(), flags | O_CLOEXEC));
        EXPECT_TRUE(opened.is_open()) << strerrorname_np(errno);
        EXPECT_EQ(fcntl(opened.get(), F_GETFL) & O_NONBLOCK, 0);
        return opened;
      };
      const auto pause = [](bool is_later) {
        if (is_later) std::this_thread::sleep_for(std::chrono::seconds(1));
      };
      std::thread writer([&] {
        pause(!has_writer_first);
        const FileDescriptor to = open_it(O_WRONLY);
        pause(true);
        WriteOne(to);
      });
      pause(has_writer_first);
      const FileDescriptor from = open_it(O_RDONLY);
      std::thread other([&] { WriteOne(open_it(O_WRONLY)); });
      char byte;
      EXPECT_EQ(read(from.get(), &byte, 1), 1);
      other.join();
      writer.join();
      EXPECT_EQ(read(from.get(), &byte, 1), 1);
      EXPECT_EQ(read(from.get(), &byte, 1), 0) << "an end";
      EXPECT_EQ(open((path + "/none").c_str(), O_RDONLY), -1);
      EXPECT_EQ(errno, ENOTDIR);
      unlink(path.c_str());
    });
  }
}

// So many descriptors more than there are, as long as this exists.
class Room {
 public:
  explicit Room(rlim_t more) {
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
    const FileDescriptor next(dup(STDERR_FILENO));
    rlimit less = before_;
    less.rlim_cur = static_cast<rlim_t>(next.get()) + more;
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &less), 0);
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  ~Room() { EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before_), 0); }

 private:
  rlimit before_;
};

// Who opens one end is seen though it has written nothing.
TEST(EventLoops, AFifoIsOpenedWithFewDescriptors) {
  Explore({.runs = 20, .early_sleeps = false}, [] {
    const std::string request = MakeFifo("request");
    const std::string reply = MakeFifo("reply");
    const auto open_it = [](const std::string& path, int flags) {
      FileDescriptor opened(open(path.c_str(), flags | O_CLOEXEC));
      EXPECT_TRUE(opened.is_open()) << strerrorname_np(errno);
      return opened;
    };
    {
      const Room room(12);
      std::thread server([&] {
        const FileDescriptor from = open_it(request, O_RDONLY);
        const FileDescriptor to = open_it(reply, O_WRONLY);
        ReadOne(from);
        WriteOne(to);
      });
      const FileDescriptor to = open_it(request, O_WRONLY);
      const FileDescriptor from = open_it(reply, O_RDONLY);
      WriteOne(to);
      ReadOne(from);
      server.join();
    }
    {
      const Room room(1);
      EXPECT_EQ(open(request.c_str(), O_RDONLY), -1);
      EXPECT_EQ(errno, EMFILE);
    }
    unlink(request.c_str());
    unlink(reply.c_str());
  });
}

// Who opens it has it once open() has returned.
TEST(EventLoops, AChildHasNoPartInAFifoThatItsParentOpens) {
  Explore({.runs = 5, .early_sleeps = false}, [] {
    const std::string path = MakeFifo("fifo");
    std::thread reader([&] { close(open(path.c_str(), O_RDONLY)); });
    std::this_thread::sleep_for(std::chrono::seconds(1));
    const Pair forked = MakePipe();
    const pid_t child = fork();
    if (child == 0) {
      WriteOne(forked.second);
      pause();
      _exit(1);
    }
    ReadOne(forked.first);
    const FileDescriptor to(open(path.c_str(), O_WRONLY | O_CLOEXEC));
    reader.join();
    ASSERT_NE(signal(SIGPIPE, SIG_IGN), SIG_ERR);
    EXPECT_EQ(write(to.get(), "x", 1), -1);
    EXPECT_EQ(errno, EPIPE);
    EXPECT_EQ(kill(child, SIGKILL), 0);
    EXPECT_EQ(waitpid(child, nullptr, 0), child);
    unlink(path.c_str());
  });
}

TEST(EventLoops, ADescriptorThatIsClosedTooEarlyIsFound) {
  const Exploration found = FindFailure({.runs = 1000}, [] {
    Pair pipe = MakePipe();
    std::thread reader([&] { WriteOne(pipe.second); });
    pipe.second.Reset();
    reader.join();
  });
  ASSERT_TRUE(found.failure.has_value());
  EXPECT_TRUE(found.failure->replayed);
}

}  // namespace
}  // namespace ward::testing
