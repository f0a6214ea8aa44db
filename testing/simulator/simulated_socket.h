// Connected Unix stream sockets, as Linux keeps them (unix(7), af_unix.c), in
// memory. No call blocks: what would, returns EAGAIN. Parity with the kernel
// is tested by parity_test.

#ifndef WARD_TESTING_SIMULATOR_SIMULATED_SOCKET_H_
#define WARD_TESTING_SIMULATOR_SIMULATED_SOCKET_H_

#include <sys/types.h>

#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/types/span.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/transport.h"

namespace ward::testing {

// One end. Not thread-safe: the schedule lets one thread run at a time.
class SimulatedSocket {
 public:
  // What may be on its way from one end (SO_SNDBUF): net.core.wmem_default. As
  // in the kernel, it is not the bytes that count, but the memory they take.
  static constexpr size_t kCapacity = 212992;

  // What `bytes` of one segment take, and the most that one has, as of Linux 6
  // on 64 bits: other kernels differ by a few in a hundred.
  static constexpr size_t kMostOfSegment = 36544;
  static size_t Charge(size_t bytes);

  static std::pair<std::shared_ptr<SimulatedSocket>,
                   std::shared_ptr<SimulatedSocket>>
  CreatePair(const PeerCredentials& first, const PeerCredentials& second);

  struct Result {
    // 0, or what errno would be.
    int error = 0;
    size_t bytes = 0;
    bool end_of_stream = false;
    bool descriptors_truncated = false;
  };

  // `descriptors` are duplicated.
  Result Send(std::string_view bytes, absl::Span<const int> descriptors);
  Result Receive(absl::Span<char> buffer, size_t max_descriptors,
                 std::vector<FileDescriptor>& descriptors);
  void ShutDown();
  void ShutDownReceiving();

  // Closes this end: what was not read is lost, and the other end learns that
  // it was (ECONNRESET).
  void Close();

  // As when the peer had closed its end with something unread. To the peer it
  // is this end that was closed.
  void Reset();

  // Whether a sender that waits is woken: it is not worth while before three
  // quarters are free (unix_writable), or sending fails.
  bool Writable() const;
  bool Readable() const;
  // Both directions have ended.
  bool HungUp() const { return receive_shut_ && send_shut_; }
  bool closed() const { return closed_; }
  const PeerCredentials& peer() const { return peer_credentials_; }
  const std::shared_ptr<SimulatedSocket>& other() const { return other_; }
  // The same of both ends, for as long as there is one, and no other's.
  const void* connection() const { return connection_.get(); }
  // For reports: its users number the connection, 0 until then; and which end
  // this is.
  int& connection_number() const { return *connection_; }
  bool is_second() const { return is_second_; }

  // How often each process has this end open; maintained by its users.
  absl::btree_map<pid_t, int> holders;
  // Where it came from, for reports.
  std::string origin;
  // Neither it nor its peer has the name of a listener.
  bool of_pair = false;
  // Who will accept it, most likely, for reports.
  pid_t acceptor = 0;

 private:
  struct Segment {
    std::string bytes;
    size_t read = 0;
    std::vector<FileDescriptor> descriptors;
  };

  std::shared_ptr<SimulatedSocket> other_;  // Until one of the two is closed.
  std::shared_ptr<int> connection_;
  PeerCredentials peer_credentials_;
  std::deque<Segment> received_;
  // For what was sent, until it is read.
  size_t charged_ = 0;
  bool is_second_ = false;
  bool receive_shut_ = false;
  bool send_shut_ = false;
  bool reset_ = false;
  bool closed_ = false;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_SIMULATOR_SIMULATED_SOCKET_H_
