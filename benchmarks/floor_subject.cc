#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/benchmarks/floor/connection.h"
#include "ward/benchmarks/floor/server.h"
#include "ward/benchmarks/subject.h"

namespace ward::benchmarks {
namespace {

absl::Status ToStatus(bool ok) {
  return ok ? absl::OkStatus() : absl::ErrnoToStatus(errno, "by hand");
}

class FloorConversation : public Subject::Conversation {
 public:
  explicit FloorConversation(const floor::Address& address)
      : connection_(address, /*keep=*/true) {}

  absl::Status Hello(Greeting& greeting) override {
    return ToStatus(connection_.Hello(kFirstName, kLastName, greeting.text,
                                      greeting.number));
  }

  absl::Status Descriptor() override {
    int descriptor = -1;
    if (!connection_.Descriptor(descriptor)) return ToStatus(false);
    return ToStatus(close(descriptor) == 0);
  }

  absl::Status Scalar(std::string& bytes) override {
    return ToStatus(connection_.Scalar(bytes));
  }

 private:
  floor::Connection connection_;
};

class FloorSubject : public Subject {
 public:
  explicit FloorSubject(Options options) : server_(options.scalar_bytes) {}

  absl::Status Start() override { return ToStatus(server_.Start()); }
  absl::Status Stop() override { return ToStatus(server_.Stop()); }
  pid_t server_pid() const override { return server_.pid(); }

  absl::Status Hello(Greeting& greeting) override {
    floor::Connection connection(server_.address());
    return ToStatus(connection.Hello(kFirstName, kLastName, greeting.text,
                                     greeting.number));
  }

  absl::StatusOr<std::unique_ptr<Conversation>> Converse() override {
    return std::make_unique<FloorConversation>(server_.address());
  }

  absl::StatusOr<std::unique_ptr<Caller>> Keep() override { return Converse(); }

 private:
  floor::Server server_;
};

}  // namespace

std::unique_ptr<Subject> MakeFloor(Subject::Options options) {
  return std::make_unique<FloorSubject>(options);
}

}  // namespace ward::benchmarks
