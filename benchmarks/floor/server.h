// A server for who needs no library: written by hand, for speed, and without a
// line of ward's. It is what ward is measured against, so whoever can make it
// faster should.
//
//   ward::floor::Server server;
//   if (!server.Start()) perror("start");
//   ward::floor::Connection connection(server.address());
//
// It does for its clients what ward does on the path of a call: a socket that
// only this user can reach, a password, SO_PEERCRED on both sides, a thread
// for each client while it is there, lengths that are checked. Its process ends
// with its owner. It does nothing else: no limits, no deadlines, no errors that
// are sent, nobody else's clients.
//
// How: a fork; threads that wait in accept4(2) themselves, of which the one
// that gets a client serves it; one system call to receive a request, and one
// for its answer.

#ifndef WARD_BENCHMARKS_FLOOR_SERVER_H_
#define WARD_BENCHMARKS_FLOOR_SERVER_H_

#include <sys/types.h>
#include <sys/un.h>

#include <array>
#include <cstddef>
#include <string>

namespace ward::floor {

// 256 random bits as hexadecimal digits.
using Password = std::array<char, 64>;

// What a client has to know.
struct Address {
  sockaddr_un name = {};
  Password password = {};
};

// Not thread-safe. What fails returns false, and errno.
class Server {
 public:
  // A client that asks for the scalar gets `scalar_bytes` times 'x'.
  explicit Server(size_t scalar_bytes = 0) : scalar_(scalar_bytes, 'x') {}
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server() { Stop(); }

  // In a new process. Clients can connect when this returns; that the server
  // serves, the first answer shows.
  bool Start();

  // Ends it, and returns when it has ended.
  bool Stop();

  const Address& address() const { return address_; }
  // 0 if it is not started.
  pid_t pid() const { return pid_; }

 private:
  // In the server's process.
  [[noreturn]] void Serve(int listener, pid_t owner) const;

  const std::string scalar_;
  // Empty, or of the socket's own.
  std::string directory_;
  Address address_;
  pid_t pid_ = 0;
};

}  // namespace ward::floor

#endif  // WARD_BENCHMARKS_FLOOR_SERVER_H_
