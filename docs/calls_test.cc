// What README.md and docs/calls.md show.

#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <deque>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <streambuf>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/bulk.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/async_client.h"
#include "ward/server/client.h"
#include "ward/server/interceptor.h"
#include "ward/server/publisher.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace {

using ::ward::testing::FailsWith;
using ::ward::testing::IsOk;
using ::ward::testing::IsOkAndHolds;

// --- README.md ---

inline constexpr ward::Method<std::string, std::string> kHello{"hello"};

class HelloServer : public ward::AbstractServer {
 public:
  explicit HelloServer(ward::ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    Define(kHello, &HelloServer::Hello);
  }

 private:
  absl::StatusOr<std::string> Hello(const std::string& name) {
    return absl::StrCat("Hello ", name, ", how are you?");
  }
};
WARD_REGISTER_SERVER(HelloServer);

class HelloServerTest : public ward::testing::ServerTest<HelloServer> {};

TEST_F(HelloServerTest, GreetsByName) {
  EXPECT_THAT(Call(kHello, "Joe"), IsOkAndHolds("Hello Joe, how are you?"));
}

// --- docs/calls.md ---

ward::FileDescriptor MemoryFile(const std::string& content) {
  ward::FileDescriptor file(memfd_create("value", MFD_CLOEXEC));
  EXPECT_EQ(write(file.get(), content.data(), content.size()),
            static_cast<ssize_t>(content.size()));
  return file;
}

struct KeyValue {
  static constexpr ward::Method<std::string, std::string> kGet{"get"};
  static constexpr ward::Method<ward::Arguments<std::string, std::string>, void>
      kPut{"put"};
  static constexpr ward::Method<std::string, ward::FileDescriptor> kFile{
      "file"};
};

class Store : public ward::AbstractServer {
 public:
  explicit Store(ward::ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    Define(KeyValue::kGet, &Store::Get);
    Define(KeyValue::kPut, &Store::Put);
    Define(KeyValue::kFile, &Store::File);
  }

 private:
  absl::StatusOr<std::string> Get(const std::string& key) {
    absl::MutexLock lock(&mutex_);
    const auto found = values_.find(key);
    if (found == values_.end()) return absl::NotFoundError(key);
    return found->second;
  }

  absl::Status Put(const std::string& key, const std::string& value) {
    absl::MutexLock lock(&mutex_);
    values_[key] = value;
    return absl::OkStatus();
  }

  absl::StatusOr<ward::FileDescriptor> File(const std::string& key) {
    WARD_ASSIGN_OR_RETURN(const std::string value, Get(key));
    return MemoryFile(value);
  }

  absl::Mutex mutex_;
  std::map<std::string, std::string> values_ ABSL_GUARDED_BY(mutex_);
};
WARD_REGISTER_SERVER(Store);

absl::Status Use(Store& store) {
  WARD_RETURN_IF_ERROR(store.Start());
  WARD_RETURN_IF_ERROR(store.Call(KeyValue::kPut, "colour", "blue"));
  WARD_ASSIGN_OR_RETURN(const std::string colour,
                        store.Call(KeyValue::kGet, "colour"));
  EXPECT_EQ(colour, "blue");
  return store.Stop();
}

class CallsPageTest : public ward::testing::ServerTestBase {};

TEST_F(CallsPageTest, IsUsed) {
  Store store;
  EXPECT_THAT(Use(store), IsOk());
}

absl::Status Converse(ward::AbstractServer& server) {
  return server.Connect([](ward::MessageChannel& channel) -> absl::Status {
    WARD_RETURN_IF_ERROR(channel.Write("get", "colour"));
    WARD_ASSIGN_OR_RETURN(const ward::Message reply, channel.Read());
    EXPECT_EQ(reply[0], "blue");
    return absl::OkStatus();
  });
}

TEST_F(CallsPageTest, IsCalledByClientsAndTheOldWay) {
  Store store;
  ASSERT_THAT(store.Start(), IsOk());
  ASSERT_THAT(store.Call(KeyValue::kPut, "colour", "blue"), IsOk());
  const std::string path = store.socket_filename();
  ward::Secret password = store.password().Copy();
  ward::Client client({path, std::move(password)});
  EXPECT_THAT(client.Call(KeyValue::kGet, "colour"), IsOkAndHolds("blue"));
  EXPECT_EQ(client.Call(KeyValue::kGet, "size").status(),
            absl::NotFoundError("message \"get\": size"));
  const auto file = client.Call(KeyValue::kFile, "colour");
  ASSERT_THAT(file, IsOk());
  std::string content(10, '\0');
  EXPECT_EQ(pread(file->get(), content.data(), content.size(), 0), 4);
  EXPECT_EQ(content.substr(0, 4), "blue");
  EXPECT_THAT(Converse(store), IsOk());
  EXPECT_THAT(store.Stop(), IsOk());
}

class Log : public ward::Interceptor {
 public:
  void After(const ward::CallInfo& call) override {
    std::cerr << absl::StrCat(absl::CHexEscape(call.method), " of ",
                              absl::CHexEscape(call.trace_id), ": ",
                              call.result.ToString(), ", in ",
                              absl::FormatDuration(call.duration), "\n");
  }
};

class OnlyRootPuts : public ward::Interceptor {
 public:
  absl::Status Before(ward::CallInfo& call) override {
    if (call.method != KeyValue::kPut.name || call.peer.uid == 0) {
      return absl::OkStatus();
    }
    return absl::PermissionDeniedError("only root puts something here");
  }
};

class GuardedStore : public Store {
 public:
  explicit GuardedStore(ward::ServerOptions options = {})
      : Store(Guarded(std::move(options))) {}

 private:
  static ward::ServerOptions Guarded(ward::ServerOptions options) {
    options.interceptors = {std::make_shared<Log>(),
                            std::make_shared<OnlyRootPuts>()};
    return options;
  }
};
WARD_REGISTER_SERVER(GuardedStore);

// What this process has logged while it is there.
class CerrCapture {
 public:
  CerrCapture() : found_(std::cerr.rdbuf(text_.rdbuf())) {}
  CerrCapture(const CerrCapture&) = delete;
  CerrCapture& operator=(const CerrCapture&) = delete;
  ~CerrCapture() { std::cerr.rdbuf(found_); }

  std::string Text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  std::streambuf* const found_;
};

TEST_F(CallsPageTest, HasInterceptors) {
  GuardedStore store;
  ASSERT_THAT(store.Start(), IsOk());
  const absl::Status put = store.Call(KeyValue::kPut, "colour", "blue");
  if (environment().UserId() == 0) {
    EXPECT_THAT(put, IsOk());
  } else {
    EXPECT_EQ(put,
              absl::PermissionDeniedError("only root puts something here"));
  }
  ward::CallInfo call;
  call.method = "put";
  EXPECT_FALSE(OnlyRootPuts().Before(call).ok());
  call.peer.uid = 0;
  EXPECT_THAT(OnlyRootPuts().Before(call), IsOk());
  EXPECT_THAT(store.Stop(), IsOk());
}

TEST_F(CallsPageTest, HasTraceIds) {
  Store store;
  ASSERT_THAT(store.Start(), IsOk());
  ASSERT_THAT(store.Call(KeyValue::kPut, "colour", "blue"), IsOk());
  ward::ClientOptions of_client = {store.socket_filename(),
                                   store.password().Copy()};
  of_client.interceptors = {std::make_shared<Log>()};
  const CerrCapture log;
  {
    ward::Client store(std::move(of_client));
    ward::CallOptions options;
    options.trace_id =
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    EXPECT_THAT(store.Call(KeyValue::kGet, options, "colour"),
                IsOkAndHolds("blue"));
  }
  EXPECT_TRUE(absl::StartsWith(
      log.Text(),
      "get of 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01: OK, "
      "in "))
      << log.Text();
  EXPECT_THAT(store.Stop(), IsOk());
}

constexpr ward::Method<int64_t, int64_t> kCompute{"compute"};

absl::StatusOr<int64_t> Compute(const ward::CallContext& context,
                                int64_t steps) {
  int64_t sum = 0;
  for (int64_t i = 0; i < steps; ++i) {
    if (i % 1000 == 0 && context.cancelled()) {
      return absl::CancelledError("nobody waits");
    }
    sum += i;
  }
  return sum;
}

class Computer : public ward::AbstractServer {
 public:
  explicit Computer(ward::ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    Define(kCompute, &Compute);
  }
};
WARD_REGISTER_SERVER(Computer);

TEST_F(CallsPageTest, HasDeadlines) {
  // Simulated, no time passes while a handler computes.
  if (ward::testing::MovesClock()) GTEST_SKIP() << "its clock stands";
  Computer store;
  ASSERT_THAT(store.Start(), IsOk());
  EXPECT_THAT(store.Call(kCompute, 4), IsOkAndHolds(6));
  ward::CallOptions options;
  options.deadline = absl::Now() + absl::Milliseconds(100);
  EXPECT_THAT(store.Call(kCompute, options, 1'000'000'000),
              FailsWith(ward::reason::kTimedOut));
  EXPECT_THAT(store.Stop(), IsOk());
}

constexpr ward::Method<void, std::string> kNextEvent{"next event"};

class EventServer : public ward::AbstractServer {
 public:
  explicit EventServer(ward::ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    Define(kNextEvent, &EventServer::NextEvent);
  }

 private:
  absl::StatusOr<std::string> NextEvent(const ward::CallContext& context) {
    absl::MutexLock lock(&mutex_);
    const absl::Condition has_event(this, &EventServer::HasEvent);
    if (!context.Await(mutex_, has_event)) {
      return absl::CancelledError("nobody waits for an event");
    }
    std::string event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

  bool HasEvent() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !events_.empty();
  }

  mutable absl::Mutex mutex_;
  std::deque<std::string> events_ ABSL_GUARDED_BY(mutex_);
};
WARD_REGISTER_SERVER(EventServer);

TEST_F(CallsPageTest, HasCancellation) {
  EventServer server;
  ASSERT_THAT(server.Start(), IsOk());
  ward::Cancellation cancellation;
  ward::CallOptions options;
  options.cancellation = &cancellation;
  std::thread impatient([&] { cancellation.Cancel(); });
  EXPECT_THAT(server.Call(kNextEvent, options),
              FailsWith(ward::reason::kCallCancelled));
  impatient.join();
  EXPECT_THAT(server.Stop(), IsOk());
}

constexpr ward::Method<std::string, ward::Stream<std::string>> kWords{"words"};
constexpr ward::Method<ward::Stream<int64_t>, int64_t> kSum{"sum"};

absl::Status Words(const std::string& text,
                   ward::StreamWriter<std::string>& words) {
  for (const std::string_view word : absl::StrSplit(text, ' ')) {
    WARD_RETURN_IF_ERROR(words.Write(std::string(word)));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Sum(ward::StreamReader<int64_t>& numbers) {
  int64_t sum = 0;
  while (const std::optional<int64_t> number = numbers.Next()) sum += *number;
  WARD_RETURN_IF_ERROR(numbers.status());
  return sum;
}

class Streamer : public ward::AbstractServer {
 public:
  explicit Streamer(ward::ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    Define(kWords, &Words);
    Define(kSum, &Sum);
  }
};
WARD_REGISTER_SERVER(Streamer);

absl::Status UseStreams(Streamer& server) {
  WARD_ASSIGN_OR_RETURN(auto words, server.Call(kWords, "one two three"));
  int count = 0;
  while (const std::optional<std::string> word = words.Next()) ++count;
  WARD_RETURN_IF_ERROR(words.status());
  EXPECT_EQ(count, 3);

  WARD_ASSIGN_OR_RETURN(auto numbers, server.Call(kSum));
  for (int64_t i = 0; i < 10; ++i) WARD_RETURN_IF_ERROR(numbers.Write(i));
  WARD_ASSIGN_OR_RETURN(const int64_t sum, numbers.Finish());
  EXPECT_EQ(sum, 45);
  return absl::OkStatus();
}

TEST_F(CallsPageTest, HasStreams) {
  Streamer server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(UseStreams(server), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

constexpr ward::Method<ward::Descriptors, int64_t> kCopy{"copy"};

absl::StatusOr<int64_t> Copy(ward::Descriptors files) {
  WARD_ASSIGN_OR_RETURN(const ward::FileDescriptor from, files.Take("from"));
  WARD_ASSIGN_OR_RETURN(const ward::FileDescriptor to, files.Take("to"));
  off_t start = 0;
  const ssize_t copied = sendfile(to.get(), from.get(), &start, 1 << 20);
  if (copied < 0) return ward::SystemError(errno, "copy");
  return copied;
}

class Copier : public ward::AbstractServer {
 public:
  explicit Copier(ward::ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    Define(kCopy, &Copy);
  }
};
WARD_REGISTER_SERVER(Copier);

absl::Status UseDescriptors(Copier& server) {
  ward::Descriptors files;
  files.Add("from", MemoryFile("blue"));
  files.Add("to", MemoryFile(""));
  WARD_ASSIGN_OR_RETURN(const int64_t copied, server.Call(kCopy, files));
  EXPECT_EQ(copied, 4);
  return absl::OkStatus();
}

TEST_F(CallsPageTest, HasDescriptors) {
  Copier server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(UseDescriptors(server), IsOk());
  EXPECT_THAT(server.Call(kCopy, ward::Descriptors()),
              FailsWith(ward::reason::kInvalidArguments, "there are none"));
  EXPECT_THAT(server.Stop(), IsOk());
}

constexpr ward::Method<void, ward::Bulk> kPicture{"picture"};

class Painter : public ward::AbstractServer {
 public:
  explicit Painter(ward::ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    Define(kPicture,
           [this]() -> absl::StatusOr<ward::Bulk> { return picture_; });
  }

 private:
  absl::Status InitializeServer() override {
    WARD_ASSIGN_OR_RETURN(ward::BulkBuffer pixels,
                          ward::AllocateBulk(16 << 20));
    std::fill(pixels.bytes().begin(), pixels.bytes().end(), '\xff');
    WARD_ASSIGN_OR_RETURN(picture_, std::move(pixels).Seal());
    return absl::OkStatus();
  }

  ward::Bulk picture_;
};
WARD_REGISTER_SERVER(Painter);

absl::Status Show(Painter& server) {
  WARD_ASSIGN_OR_RETURN(const ward::Bulk picture, server.Call(kPicture));
  EXPECT_EQ(picture.size(), 16 << 20);
  EXPECT_EQ(picture.bytes().back(), '\xff');
  return absl::OkStatus();
}

TEST_F(CallsPageTest, HasLargeValues) {
  Painter server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(Show(server), IsOk());
  EXPECT_THAT(Show(server), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

constexpr ward::Method<void, ward::Stream<double>> kTemperatures{
    "temperatures"};
constexpr ward::Method<double, void> kMeasured{"measured"};

class Thermometer : public ward::AbstractServer {
 public:
  explicit Thermometer(ward::ServerOptions options = {})
      : AbstractServer(std::move(options)) {
    Define(kTemperatures, &Thermometer::Temperatures);
    Define(kMeasured, &Thermometer::Measured);
  }

 private:
  absl::Status Temperatures(const ward::CallContext& context,
                            ward::StreamWriter<double>& temperatures) {
    return publisher_.Serve(context, temperatures);
  }

  absl::Status Measured(double temperature) {
    publisher_.Publish(temperature);
    return absl::OkStatus();
  }

  ward::Publisher<double> publisher_{{/*capacity=*/10, ward::OnFull::kDrop}};
};
WARD_REGISTER_SERVER(Thermometer);

TEST_F(CallsPageTest, HasEvents) {
  Thermometer server;
  ASSERT_THAT(server.Start(), IsOk());
  auto temperatures = server.Call(kTemperatures);
  ASSERT_THAT(temperatures, IsOk());
  // Whether it has subscribed is not known before it is told something.
  std::thread measures([&] {
    while (server.Call(kMeasured, 21.5).ok()) {
      absl::SleepFor(absl::Milliseconds(1));
    }
  });
  EXPECT_EQ(temperatures->Next(), 21.5);
  EXPECT_THAT(server.Stop(), IsOk());
  measures.join();
}

absl::StatusOr<int> GreetAll(HelloServer& server, int count) {
  WARD_ASSIGN_OR_RETURN(auto calls, ward::AsyncClient::Create(server));
  int greeted = 0;
  for (int i = 0; i < count; ++i) {
    calls->StartCall(kHello, absl::StrCat("number ", i))
        .Then([&](const absl::StatusOr<std::string>& greeting) {
          if (greeting.ok()) ++greeted;
        });
  }
  const ward::FileDescriptor loop(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN;
  epoll_ctl(loop.get(), EPOLL_CTL_ADD, calls->descriptor(), &event);
  while (calls->under_way() > 0) {
    epoll_wait(loop.get(), &event, 1, /*timeout=*/-1);
    calls->Progress();
  }
  return greeted;
}

TEST_F(CallsPageTest, HasAnEventLoop) {
  if (ward::testing::MovesClock()) GTEST_SKIP() << "it has no descriptors";
  HelloServer server;
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(GreetAll(server, 100), IsOkAndHolds(100));
  EXPECT_THAT(server.Stop(), IsOk());
}

}  // namespace
