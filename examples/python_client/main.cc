// A server with a method of each kind, for programs in other languages, which
// start it: given a Unix socket as standard input, it writes its owner's share
// there, and what it is run by ends. Whoever reads that is the server's owner.
//
// A server of your own differs in its class alone: see Give.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <iostream>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/channel/bulk.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/examples/python_client/demo.pb.h"
#include "ward/server/abstract_server.h"
#include "ward/server/call_context.h"
#include "ward/server/method.h"
#include "ward/server/owner_handle.h"
#include "ward/server/stream.h"

namespace {

using ::ward::demo::Greeting;
using ::ward::demo::Person;

constexpr ward::Reason kNoSuchDevice{"NoSuchDevice",
                                     absl::StatusCode::kNotFound};

using Values = ward::Arguments<std::string, int64_t, double, bool>;
constexpr ward::Method<Values, Values> kSame{"same"};
constexpr ward::Method<Person, Greeting> kGreet{"greet"};
constexpr ward::Method<std::string, void> kFail{"fail"};

constexpr ward::Method<std::string, ward::Stream<std::string>> kWords{"words"};
constexpr ward::Method<ward::Stream<int64_t>, int64_t> kSum{"sum"};
constexpr ward::Method<ward::Stream<Person>, ward::Stream<Greeting>> kGreetAll{
    "greet_all"};

constexpr ward::Method<std::string, ward::FileDescriptor> kFile{"file"};
constexpr ward::Method<ward::Descriptors, int64_t> kCopy{"copy"};
constexpr ward::Method<int64_t, ward::Bulk> kPicture{"picture"};
constexpr ward::Method<ward::Bulk, int64_t> kCount{"count"};

// Never returns before it is cancelled. And: return when so many calls of it
// have begun; were cancelled.
constexpr ward::Method<void, void> kWait{"wait"};
constexpr ward::Method<int64_t, void> kWaiting{"waiting"};
constexpr ward::Method<int64_t, void> kCancelled{"cancelled"};
// The microseconds that the call has left, and its trace id.
constexpr ward::Method<void, ward::Arguments<int64_t, std::string>> kContext{
    "context"};
// Ends the server in the middle of the call.
constexpr ward::Method<void, void> kDie{"die"};

absl::StatusOr<ward::FileDescriptor> MemoryFile(const std::string& content) {
  ward::FileDescriptor file =
      ward::FileDescriptor::Opened(memfd_create("demo", MFD_CLOEXEC));
  if (!file.is_open()) return ward::SystemError(errno, "make a file in memory");
  if (pwrite(file.get(), content.data(), content.size(), 0) !=
      static_cast<ssize_t>(content.size())) {
    return absl::ResourceExhaustedError("no memory for a file in memory");
  }
  return file;
}

Greeting Greet(const Person& person) {
  Greeting greeting;
  greeting.set_text(absl::StrCat("Hello ", person.name(), ", born in ",
                                 person.born(), ", how are you?"));
  return greeting;
}

class DemoServer : public ward::AbstractServer {
 public:
  DemoServer() {
    Define(
        kSame,
        [](const std::string& text, int64_t integer, double number, bool flag)
            -> absl::StatusOr<std::tuple<std::string, int64_t, double, bool>> {
          return std::make_tuple(text, integer, number, flag);
        });
    Define(kGreet, [](const Person& person) -> absl::StatusOr<Greeting> {
      return Greet(person);
    });
    Define(kFail, [](const std::string& device) {
      return ward::MakeError(kNoSuchDevice, absl::StrCat("no ", device));
    });
    Define(kWords, &DemoServer::Words);
    Define(kSum, &DemoServer::Sum);
    Define(kGreetAll, &DemoServer::GreetAll);
    Define(kFile, &MemoryFile);
    Define(kCopy, &DemoServer::Copy);
    Define(kPicture, &DemoServer::Picture);
    Define(kCount, [](const ward::Bulk& bulk) -> absl::StatusOr<int64_t> {
      int64_t sum = 0;
      for (const char byte : bulk.bytes()) sum += byte;
      return sum;
    });
    Define(kWait, &DemoServer::Wait);
    Define(kWaiting, [this](const ward::CallContext& context, int64_t count) {
      return Await(context, waiting_, count);
    });
    Define(kCancelled, [this](const ward::CallContext& context, int64_t count) {
      return Await(context, cancelled_, count);
    });
    Define(kContext,
           [](const ward::CallContext& context)
               -> absl::StatusOr<std::tuple<int64_t, std::string>> {
             return std::make_tuple(
                 absl::ToInt64Microseconds(context.time_left()),
                 std::string(context.trace_id()));
           });
    Define(kDie, []() -> absl::Status { _exit(3); });
  }

 private:
  absl::Status Words(const std::string& text,
                     ward::StreamWriter<std::string>& words) {
    for (const std::string& word :
         std::vector<std::string>(absl::StrSplit(text, ' '))) {
      if (word == "eth7") return ward::MakeError(kNoSuchDevice, "no eth7");
      WARD_RETURN_IF_ERROR(words.Write(word));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> Sum(ward::StreamReader<int64_t>& numbers) {
    int64_t sum = 0;
    while (const std::optional<int64_t> number = numbers.Next()) {
      if (*number < 0) return ward::MakeError(kNoSuchDevice, "no debts");
      sum += *number;
    }
    WARD_RETURN_IF_ERROR(numbers.status());
    return sum;
  }

  absl::Status GreetAll(ward::StreamReader<Person>& people,
                        ward::StreamWriter<Greeting>& greetings) {
    while (const std::optional<Person> person = people.Next()) {
      WARD_RETURN_IF_ERROR(greetings.Write(Greet(*person)));
    }
    return people.status();
  }

  absl::StatusOr<int64_t> Copy(ward::Descriptors files) {
    WARD_ASSIGN_OR_RETURN(const ward::FileDescriptor from, files.Take("from"));
    WARD_ASSIGN_OR_RETURN(const ward::FileDescriptor to, files.Take("to"));
    off_t start = 0;
    const ssize_t copied =
        copy_file_range(from.get(), &start, to.get(), nullptr, 1 << 20, 0);
    if (copied < 0) return ward::SystemError(errno, "copy");
    return copied;
  }

  absl::StatusOr<ward::Bulk> Picture(int64_t size) {
    WARD_ASSIGN_OR_RETURN(ward::BulkBuffer pixels, ward::AllocateBulk(size));
    for (char& pixel : pixels.bytes()) pixel = 1;
    return std::move(pixels).Seal();
  }

  absl::Status Wait(const ward::CallContext& context) {
    absl::MutexLock lock(&mutex_);
    ++waiting_;
    const bool never = false;
    context.Await(mutex_, absl::Condition(&never));
    ++cancelled_;
    return absl::CancelledError("nobody waits");
  }

  absl::Status Await(const ward::CallContext& context, const int64_t& counter,
                     int64_t count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&] { return counter >= count; };
    return context.Await(mutex_, absl::Condition(&enough))
               ? absl::OkStatus()
               : absl::CancelledError("nobody waits");
  }

  absl::Mutex mutex_;
  // With it.
  int64_t waiting_ = 0;
  int64_t cancelled_ = 0;
};

// Starts `server`, and gives it to whoever has the other end of `channel`: an
// error, if it does not start.
absl::Status Give(ward::AbstractServer& server, ward::MessageChannel& channel) {
  WARD_RETURN_IF_ERROR(server.Start());
  WARD_ASSIGN_OR_RETURN(const ward::OwnerHandle handle,
                        server.ShareOwnership());
  WARD_RETURN_IF_ERROR(handle.WriteTo(channel));
  return server.Disown().status();
}

}  // namespace

int main() {
  ward::MessageChannel channel{ward::FileDescriptor(STDIN_FILENO)};
  DemoServer server;
  absl::Status status = Give(server, channel);
  if (status.ok()) return 0;
  status.Update(channel.WriteError(status));
  std::cerr << "demo_server: " << status << "\n";
  return 1;
}
