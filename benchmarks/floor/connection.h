// A client of the server that is written by hand: see server.h.

#ifndef WARD_BENCHMARKS_FLOOR_CONNECTION_H_
#define WARD_BENCHMARKS_FLOOR_CONNECTION_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "ward/benchmarks/floor/server.h"
#include "ward/benchmarks/floor/wire.h"

namespace ward::floor {

// For one thread at a time. What fails returns false, and errno; then the
// connection is of no use any more.
class Connection {
 public:
  // `keep`: for more than one request. The address is borrowed.
  explicit Connection(const Address& address, bool keep = false);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  // The server greets, and says a number.
  bool Hello(std::string_view first, std::string_view last, std::string& text,
             int32_t& number);

  // The server gives a descriptor, which is the caller's then.
  bool Descriptor(int& descriptor);

  // The server sends its scalar, into memory that is used again.
  bool Scalar(std::string& bytes);

 private:
  // Begins a request.
  void Begin(Writer& writer, Request::Kind kind);

  const Address& address_;
  const bool keep_;
  int socket_ = -1;
  // Until the first request.
  bool is_new_ = true;
};

}  // namespace ward::floor

#endif  // WARD_BENCHMARKS_FLOOR_CONNECTION_H_
