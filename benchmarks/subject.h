// The two that are measured: a server of ward's, and the floor, which is one
// that was written by hand (benchmarks/floor). Both do the same for whoever
// measures.

#ifndef WARD_BENCHMARKS_SUBJECT_H_
#define WARD_BENCHMARKS_SUBJECT_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ward::benchmarks {

// What is asked for, and what the answer must be.
inline constexpr std::string_view kFirstName = "Joe";
inline constexpr std::string_view kLastName = "Dalton";
inline constexpr std::string_view kGreeting = "Hello Joe Dalton, how are you?";
inline constexpr int32_t kNumber = 1234;

// What a scalar consists of.
inline constexpr char kScalarByte = 'x';

struct Greeting {
  std::string text;
  int32_t number = 0;
};

// A server, and its clients: in this process, on as many threads as call.
class Subject {
 public:
  struct Options {
    // At the same time, at most.
    int clients = 64;
    size_t scalar_bytes = 0;
  };

  // A connection that stays open between two requests, for one thread at a
  // time. It ends before the subject.
  class Caller {
   public:
    virtual ~Caller() = default;
    virtual absl::Status Hello(Greeting& greeting) = 0;
  };
  class Conversation : public Caller {
   public:
    // The server gives a descriptor, which is closed here.
    virtual absl::Status Descriptor() = 0;
    // The server sends its scalar, into memory that is used again.
    virtual absl::Status Scalar(std::string& bytes) = 0;
  };

  virtual ~Subject() = default;

  // Before there are threads.
  virtual absl::Status Start() = 0;
  virtual absl::Status Stop() = 0;
  virtual pid_t server_pid() const = 0;

  // Connects, says the password, asks, reads the answer, closes.
  virtual absl::Status Hello(Greeting& greeting) = 0;

  // Connects. Of ward: one handler's conversation; and calls, one after the
  // other, over a connection that is kept. For the floor they are the same.
  virtual absl::StatusOr<std::unique_ptr<Conversation>> Converse() = 0;
  virtual absl::StatusOr<std::unique_ptr<Caller>> Keep() = 0;
};

std::unique_ptr<Subject> MakeWard(Subject::Options options);
std::unique_ptr<Subject> MakeFloor(Subject::Options options);

}  // namespace ward::benchmarks

#endif  // WARD_BENCHMARKS_SUBJECT_H_
