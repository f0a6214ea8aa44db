// Calls of methods, over connections that are kept, in every mode.

#include <signal.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
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
#include "ward/channel/transport.h"
#include "ward/proto/frame.pb.h"
#include "ward/server/abstract_server.h"
#include "ward/server/client.h"
#include "ward/server/listener.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/owner_handle.h"
#include "ward/server/process.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using ::testing::ElementsAre;
using ::testing::FieldsAre;
using testing::HasProcesses;
using ::testing::HasSubstr;
using testing::MovesClock;
using testing::RepliesWith;
using testing::SharesMemory;

inline constexpr Method<std::string, std::string> kEcho{"echo text"};
inline constexpr Method<Arguments<std::string, int>, std::string> kRepeat{
    "repeat"};
inline constexpr Method<void, Arguments<int, bool>> kBoth{"both"};
inline constexpr Method<proto::Error, proto::Error> kProto{"proto"};
inline constexpr Method<FileDescriptor, FileDescriptor> kSameFile{"same file"};
// Under other names, with what is said put before them.
inline constexpr Method<Arguments<std::string, Descriptors>, Descriptors>
    kRename{"rename"};
// What it was given, and the server's own, which it keeps.
inline constexpr Method<Arguments<std::string, Bulk>, Arguments<Bulk, Bulk>>
    kBulks{"bulks"};
inline constexpr Method<std::string, void> kFail{"fail"};
inline constexpr Method<void, void> kNothing{"nothing"};
inline constexpr Method<void, void> kWait{"wait"};
inline constexpr Method<int64_t, int64_t> kTimeLeft{"time left"};
inline constexpr Method<void, std::string> kNone{"none such"};
// As old handlers are.
inline constexpr Method<void, std::string> kSilent{"silent"};
inline constexpr Method<void, void> kTalkative{"talkative"};

// Streams.
inline constexpr Method<int, Stream<int>> kCount{"count"};
inline constexpr Method<Stream<int>, int> kSum{"sum"};
inline constexpr Method<Stream<Arguments<std::string, int>>,
                        Stream<std::string>>
    kRepeatAll{"repeat all"};
inline constexpr Method<Stream<FileDescriptor>, Stream<FileDescriptor>> kFiles{
    "files"};
inline constexpr Method<Stream<Descriptors>, Stream<Descriptors>> kRenameAll{
    "rename all"};
inline constexpr Method<Stream<Bulk>, Stream<Bulk>> kPassBulks{"pass bulks"};
inline constexpr Method<Stream<int>, void> kFirst{"first"};
inline constexpr Method<void, void> kPassesAnEndOn{"passes an end on"};
inline constexpr Method<void, Stream<int>> kPassesAnEndOnFirst{
    "passes an end on first"};
inline constexpr Method<int, Stream<int>> kCountAndFail{"count and fail"};

// What a handler and a call of a method look like is checked when compiling.
template <typename Handler, typename Request, typename Reply>
constexpr bool Handles(const Method<Request, Reply>& /*method*/,
                       const Handler& /*handler*/) {
  return internal::kHandles<Handler, Request, Reply>;
}
constexpr auto kEchoes = [](std::string_view) -> absl::StatusOr<std::string> {
  return "";
};
constexpr auto kRepeats = [](const CallContext&, const std::string&,
                             int) -> absl::StatusOr<std::string> { return ""; };
constexpr auto kAnswersOtherwise = [](std::string_view) -> absl::StatusOr<int> {
  return 1;
};
constexpr auto kDoes = []() -> absl::Status { return absl::OkStatus(); };
static_assert(Handles(kEcho, kEchoes));
static_assert(Handles(kRepeat, kRepeats));
static_assert(Handles(kNothing, kDoes));
static_assert(!Handles(kEcho, kRepeats));
static_assert(!Handles(kEcho, kAnswersOtherwise));
static_assert(!Handles(kEcho, kDoes));
static_assert(!Handles(kNothing, kEchoes));
constexpr auto kStreams = [](int, StreamWriter<int>&) -> absl::Status {
  return absl::OkStatus();
};
constexpr auto kReads = [](const CallContext&,
                           StreamReader<int>&) -> absl::StatusOr<int> {
  return 1;
};
static_assert(Handles(kCount, kStreams) && !Handles(kSum, kStreams));
static_assert(Handles(kSum, kReads) && !Handles(kCount, kReads));
static_assert(!Handles(kRepeatAll, kStreams) && !Handles(kNothing, kReads));
static_assert(internal::kCalls<Arguments<std::string, int>, const char*, long>);
static_assert(internal::kCalls<double, float> && internal::kCalls<double, int>);
static_assert(!internal::kCalls<int, double> && !internal::kCalls<int, bool>);
static_assert(!internal::kCalls<bool, int> && !internal::kCalls<int, char>);
static_assert(!internal::kCalls<int, std::string> && !internal::kCalls<int>);
static_assert(!internal::kCalls<proto::Error, std::string>);

constexpr size_t kKeptBytes = Bulk::kMostBytesInMessage + 1;

Bulk MakeBulk(size_t size, char byte) {
  absl::StatusOr<BulkBuffer> buffer = AllocateBulk(size);
  EXPECT_THAT(buffer, IsOk());
  std::fill(buffer->bytes().begin(), buffer->bytes().end(), byte);
  absl::StatusOr<Bulk> bulk = std::move(*buffer).Seal();
  EXPECT_THAT(bulk, IsOk());
  return *std::move(bulk);
}

class MethodServer : public CountsConnections<MethodServer> {
 public:
  explicit MethodServer(ServerOptions options = {})
      : CountsConnections(std::move(options)) {
    Define(kEcho, [](const std::string& text) -> absl::StatusOr<std::string> {
      return text;
    });
    Define(kRepeat, &MethodServer::Repeat);
    Define(kBoth, []() -> absl::StatusOr<std::tuple<int, bool>> {
      return std::make_tuple(7, true);
    });
    Define(kProto,
           [](const proto::Error& error) -> absl::StatusOr<proto::Error> {
             proto::Error reply = error;
             reply.set_code(error.code() + 1);
             return reply;
           });
    Define(kSameFile,
           [](FileDescriptor file) -> absl::StatusOr<FileDescriptor> {
             return file;
           });
    Define(kRename, &MethodServer::Rename);
    Define(kFail, [](const std::string& why) -> absl::Status {
      return absl::DataLossError(why);
    });
    Define(kNothing, [] { return absl::OkStatus(); });
    Define(kWait, [this](const CallContext& context) -> absl::Status {
      WARD_RETURN_IF_ERROR(Note("waits"));
      while (!context.cancelled()) absl::SleepFor(absl::Milliseconds(1));
      return absl::CancelledError("given up");
    });
    Define(kTimeLeft, &MethodServer::TimeLeft);
    Define(kCount, [](int count, StreamWriter<int>& numbers) -> absl::Status {
      for (int i = 0; i < count; ++i) {
        WARD_RETURN_IF_ERROR(numbers.Write(i));
      }
      return absl::OkStatus();
    });
    Define(kCountAndFail,
           [](const CallContext&, int count,
              StreamWriter<int>& numbers) -> absl::Status {
             for (int i = 0; i < count; ++i) {
               WARD_RETURN_IF_ERROR(numbers.Write(i));
             }
             return absl::DataLossError("no more");
           });
    Define(kSum, &MethodServer::Sum);
    Define(kFirst, [](StreamReader<int>& numbers) -> absl::Status {
      if (numbers.Next() == 0) return absl::OutOfRangeError("zero");
      return absl::OkStatus();
    });
    Define(kRepeatAll, &MethodServer::RepeatAll);
    Define(kFiles,
           [](StreamReader<FileDescriptor>& in,
              StreamWriter<FileDescriptor>& out) -> absl::Status {
             while (const std::optional<FileDescriptor> file = in.Next()) {
               WARD_RETURN_IF_ERROR(out.Write(*file));
             }
             return in.status();
           });
    Define(kBulks,
           [this](const std::string& name,
                  const Bulk& bulk) -> absl::StatusOr<std::tuple<Bulk, Bulk>> {
             EXPECT_EQ(name, "name");
             return std::make_tuple(bulk, kept_);
           });
    Define(kPassBulks,
           [](StreamReader<Bulk>& in, StreamWriter<Bulk>& out) -> absl::Status {
             while (const std::optional<Bulk> bulk = in.Next()) {
               WARD_RETURN_IF_ERROR(out.Write(*bulk));
             }
             return in.status();
           });
    Define(kRenameAll,
           [this](StreamReader<Descriptors>& in,
                  StreamWriter<Descriptors>& out) -> absl::Status {
             while (std::optional<Descriptors> files = in.Next()) {
               WARD_ASSIGN_OR_RETURN(const Descriptors renamed,
                                     Rename("all ", *std::move(files)));
               WARD_RETURN_IF_ERROR(out.Write(renamed));
             }
             return in.status();
           });
    Define(kPassesAnEndOn, [] { return EndOfAnother(); });
    Define(kPassesAnEndOnFirst,
           [](StreamWriter<int>&) { return EndOfAnother(); });
    DefineMessageHandler("fails late", [](MessageChannel& channel) {
      EXPECT_THAT(channel.WriteLast("a reply"), IsOk());
      return absl::InternalError("too late");
    });
    DefineMessageHandler("gives up late", [](const CallContext& context,
                                             MessageChannel& channel) {
      EXPECT_THAT(channel.WriteLast("a reply"), IsOk());
      while (!context.cancelled()) absl::SleepFor(absl::Milliseconds(1));
      return absl::CancelledError("too late");
    });
    DefineMessageHandler("silent", [] { return absl::OkStatus(); });
    DefineMessageHandler("talkative", [](MessageChannel& channel) {
      return channel.Write("a reply");
    });
  }

 private:
  absl::Status InitializeServer() override {
    kept_ = MakeBulk(kKeptBytes, 'k');
    return absl::OkStatus();
  }

  static absl::Status EndOfAnother() {
    return MakeError(reason::kEndOfStream, "another stream has ended");
  }

  absl::StatusOr<std::string> Repeat(std::string_view text, int times) const {
    std::string all;
    for (int i = 0; i < times; ++i) all += text;
    return all;
  }

  absl::StatusOr<Descriptors> Rename(const std::string& before,
                                     Descriptors files) const {
    Descriptors renamed;
    while (files.size() > 0) {
      const std::string name = files.names()[0];
      WARD_ASSIGN_OR_RETURN(FileDescriptor file, files.Take(name));
      renamed.Add(before + name, std::move(file));
    }
    return renamed;
  }

  absl::StatusOr<int> Sum(StreamReader<int>& numbers) const {
    int sum = 0;
    while (const std::optional<int> number = numbers.Next()) sum += *number;
    const absl::Status status = numbers.status();
    if (!status.ok()) WARD_RETURN_IF_ERROR(Note(ReasonOf(status)));
    WARD_RETURN_IF_ERROR(status);
    return sum;
  }

  absl::Status RepeatAll(StreamReader<Arguments<std::string, int>>& requests,
                         StreamWriter<std::string>& replies) const {
    while (const auto request = requests.Next()) {
      const auto& [text, times] = *request;
      WARD_ASSIGN_OR_RETURN(const std::string all, Repeat(text, times));
      WARD_RETURN_IF_ERROR(replies.Write(all));
    }
    return requests.status();
  }

  // In milliseconds; in a call of its own, if asked to.
  absl::StatusOr<int64_t> TimeLeft(const CallContext& context, int64_t nested) {
    if (nested == 1) return Call(kTimeLeft, 0);
    if (nested == 2) {
      CallOptions alone;
      alone.inherit = false;
      return Call(kTimeLeft, alone, 0);
    }
    return absl::ToInt64Milliseconds(context.deadline() -
                                     environment().TimeNow());
  }

  Bulk kept_;
};

CallOptions Within(absl::Duration time) {
  CallOptions options;
  options.deadline = absl::Now() + time;
  return options;
}

class CallsTest : public ModesTest {
 protected:
  // Whose call has ended, and which is kept for the next one.
  MessageChannel OpenAndCallOnce(const AbstractServer& server) {
    MessageChannel channel = Open(server);
    channel.ExpectEnd();
    channel.BeginCall({/*keep=*/true});
    EXPECT_THAT(channel.Write("nothing"), IsOk());
    EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
    EXPECT_TRUE(channel.kept());
    return channel;
  }
};

TEST_F(CallsTest, AMethodHasWhatAMessageHas) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Call(kEcho, "some text"), IsOkAndHolds("some text"));
  EXPECT_THAT(server.Call(kEcho, std::string(1 << 20, 'x')),
              IsOkAndHolds(std::string(1 << 20, 'x')));
  EXPECT_THAT(server.Call(kRepeat, std::string_view("ab"), 3),
              IsOkAndHolds("ababab"));
  EXPECT_THAT(server.Call(kBoth), IsOkAndHolds(FieldsAre(7, true)));
  EXPECT_THAT(server.Call(kNothing), IsOk());
  proto::Error error;
  error.set_code(3);
  ASSERT_OK_AND_ASSIGN(error, server.Call(kProto, error));
  EXPECT_EQ(error.code(), 4);
  const Pipe pipe = MakePipe();
  ASSERT_OK_AND_ASSIGN(const FileDescriptor same,
                       server.Call(kSameFile, pipe.write));
  WriteAll(same.get(), "x");
  EXPECT_EQ(ReadSome(pipe.read.get()), "x");
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, DescriptorsHaveNames) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  Pipe pipe = MakePipe();
  Descriptors ends;
  ends.Add("read", std::move(pipe.read));
  ends.Add("write", std::move(pipe.write));
  ASSERT_OK_AND_ASSIGN(Descriptors renamed, server.Call(kRename, "my ", ends));
  EXPECT_THAT(renamed.names(), ElementsAre("my read", "my write"));
  // They were duplicated.
  EXPECT_EQ(ends.size(), 2u);
  ASSERT_OK_AND_ASSIGN(const FileDescriptor write, renamed.Take("my write"));
  WriteAll(write.get(), "x");
  ASSERT_OK_AND_ASSIGN(const FileDescriptor read, ends.Take("read"));
  EXPECT_EQ(ReadSome(read.get()), "x");
  EXPECT_THAT(renamed.Take("my write"),
              FailsWith(reason::kInvalidArguments, "there are \"my read\""));
  EXPECT_THAT(server.Call(kRename, "", Descriptors()), IsOk());
  // Elements of streams have them, too.
  ASSERT_OK_AND_ASSIGN(auto all, server.Call(kRenameAll));
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(all.Write(renamed), IsOk());
    const std::optional<Descriptors> next = all.Next();
    ASSERT_TRUE(next.has_value()) << all.status();
    EXPECT_THAT(next->names(), ElementsAre("all my read"));
  }
  EXPECT_THAT(all.EndWriting(), IsOk());
  EXPECT_FALSE(all.Next().has_value());
  EXPECT_THAT(all.status(), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, BulksArePassedBothWaysWhateverTheirSize) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  for (const size_t size :
       {size_t{0}, size_t{10}, Bulk::kMostBytesInMessage + 1}) {
    SCOPED_TRACE(size);
    const Bulk bulk = MakeBulk(size, 'x');
    for (int i = 0; i < 2; ++i) {
      ASSERT_OK_AND_ASSIGN(const auto both, server.Call(kBulks, "name", bulk));
      EXPECT_TRUE(std::get<0>(both).bytes() == std::string(size, 'x'));
      EXPECT_TRUE(std::get<1>(both).bytes() == std::string(kKeptBytes, 'k'));
    }
    // Elements of streams, too.
    ASSERT_OK_AND_ASSIGN(auto all, server.Call(kPassBulks));
    for (int i = 0; i < 3; ++i) {
      ASSERT_THAT(all.Write(bulk), IsOk());
      const std::optional<Bulk> next = all.Next();
      ASSERT_TRUE(next.has_value()) << all.status();
      EXPECT_TRUE(next->bytes() == bulk.bytes());
    }
    EXPECT_THAT(all.EndWriting(), IsOk());
    EXPECT_FALSE(all.Next().has_value());
    EXPECT_THAT(all.status(), IsOk());
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, BulksThatAreUnfitOrOverTheLimitAreRefusedAndTheServerServes) {
  ServerOptions options = Shared();
  options.first_message_limits.max_bulk_bytes = kKeptBytes;
  options.limits.max_bulk_bytes = kKeptBytes - 1;
  MethodServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  const Pipe pipe = MakePipe();
  EXPECT_THAT(server.Connect([&](MessageChannel& channel) -> absl::Status {
    // A size, as docs/protocol.md has it.
    WARD_RETURN_IF_ERROR(
        channel.Write(kBulks.name, "name", "\x08\x05", pipe.read));
    return channel.Read().status();
  }),
              FailsWith(reason::kInvalidArguments, "it is no memfd"));
  EXPECT_THAT(
      server.Call(kBulks, "name", MakeBulk(kKeptBytes + 1, 'x')),
      FailsWith(reason::kFrameTooLarge, "argument 2: a bulk has 32770 bytes"));
  // So is the reply, in the client.
  EXPECT_THAT(server.Call(kBulks, "name", Bulk()),
              FailsWith(reason::kUnexpectedFrame,
                        "argument 2: a bulk has 32769 bytes, over the 32768"));
  EXPECT_THAT(server.Call(kNothing), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, NamesThatAreNotFitAreNotSentNorTaken) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const Pipe pipe = MakePipe();
  Descriptors twice;
  for (int i = 0; i < 2; ++i) {
    ASSERT_OK_AND_ASSIGN(FileDescriptor copy,
                         FileDescriptor::DuplicateOf(pipe.read.get()));
    twice.Add("read", std::move(copy));
  }
  EXPECT_THAT(server.Call(kRename, "my ", twice),
              FailsWith(reason::kInvalidArguments, "two have the name"));
  // Nor a reply: this handler's names grow too long.
  ASSERT_THAT(twice.Take("read"), IsOk());
  EXPECT_THAT(server.Call(kRename, std::string(252, 'x'), twice),
              FailsWith(reason::kUnexpectedFrame, "256 bytes, over the 255"));
  // A peer that knows no names sends a part, and may get it wrong.
  constexpr std::string_view kNames = "\x0a\x04read";
  EXPECT_THAT(CallServer(server, "rename", "my ", kNames, pipe.read),
              RepliesWith("\x0a\x07my read"));
  for (const std::string_view wrong : {"", "read", "\x0a\x04rea", "\x0a"}) {
    EXPECT_THAT(CallServer(server, "rename", "my ", wrong, pipe.read),
                FailsWith(reason::kInvalidArguments));
  }
  EXPECT_THAT(CallServer(server, "rename", "my ", kNames),
              FailsWith(reason::kInvalidArguments, "2 arguments and 1 desc"));
  EXPECT_THAT(CallServer(server, "rename", "my ", kNames, pipe.read, pipe.read),
              FailsWith(reason::kInvalidArguments));
  EXPECT_THAT(server.Call(kRename, "my ", twice), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
}

// It is the message that handlers and clients of messages speak.
TEST_F(CallsTest, AMethodIsAMessage) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(CallServer(server, "repeat", "ab", 2), RepliesWith("abab"));
  EXPECT_THAT(server.Call(Method<std::string, std::string>{"echo"}, "x"),
              IsOkAndHolds("x"));
  EXPECT_THAT(server.Call(kSilent), FailsWith(reason::kUnexpectedFrame));
  EXPECT_THAT(server.Call(kTalkative), FailsWith(reason::kUnexpectedFrame));
  EXPECT_THAT(server.Call(kNone),
              FailsWith(reason::kUnknownMessage, "it knows: "));
  EXPECT_THAT(server.Call(Method<int, std::string>{"repeat"}, 1),
              FailsWith(reason::kInvalidArguments));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, CallsConnectOnce) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  for (int i = 0; i < 100; ++i) {
    ASSERT_THAT(server.Call(kEcho, std::to_string(i)),
                IsOkAndHolds(std::to_string(i)));
    // Nor does a failure part the two.
    ASSERT_THAT(server.Call(kFail, "no luck").message(), HasSubstr("no luck"));
    ASSERT_THAT(server.Call(kNone), FailsWith(reason::kUnknownMessage));
  }
  EXPECT_THAT(server.Call(kConnections), IsOkAndHolds(1));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, AsManyConnectAsCallAtOnce) {
  constexpr int kThreads = 4;
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<absl::AnyInvocable<void()>> callers;
  for (int i = 0; i < kThreads; ++i) {
    callers.emplace_back([&] {
      for (int call = 0; call < 10; ++call) {
        ASSERT_THAT(server.Call(kRepeat, "x", call),
                    IsOkAndHolds(std::string(call, 'x')));
      }
    });
  }
  RunAtOnce(std::move(callers));
  ASSERT_OK_AND_ASSIGN(const int connections, server.Call(kConnections));
  EXPECT_LE(connections, kThreads);
  EXPECT_THAT(server.Stop(), IsOk());
}

// The only place is one's who is between two calls: it is had at once, and that
// one's next call is made all the same.
TEST_F(CallsTest, WhoIsBetweenTwoCallsHoldsNoPlaceThatIsWaitedFor) {
  ServerOptions options = Shared();
  options.max_clients = 1;
  MethodServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  MethodServer other(Shared());
  for (int i = 0; i < 20; ++i) {
    ASSERT_THAT(server.Call(kEcho, "mine"), IsOkAndHolds("mine"));
    ASSERT_THAT(other.Call(kEcho, "theirs"), IsOkAndHolds("theirs"));
  }
  // Nor while both call all the time.
  const auto call = [](AbstractServer& from) {
    for (int i = 0; i < 50; ++i) {
      ASSERT_THAT(from.Call(kEcho, std::to_string(i)),
                  IsOkAndHolds(std::to_string(i)));
    }
  };
  RunAtOnce([&] { call(server); }, [&] { call(other); });
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, NorOneOfItsProcesssShare) {
  // Elsewhere nobody can tell when the server knows that a call has ended.
  if (!MovesClock()) GTEST_SKIP();
  ServerOptions options = Shared();
  options.max_clients_per_process = 1;
  MethodServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  MethodServer other(Shared());
  for (int i = 0; i < 20; ++i) {
    ASSERT_THAT(server.Call(kEcho, "mine"), IsOkAndHolds("mine"));
    absl::SleepFor(absl::Milliseconds(1));
    ASSERT_THAT(other.Call(kEcho, "theirs"), IsOkAndHolds("theirs"));
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, AServerIsCalledThatWasStartedAgain) {
  MethodServer server(Shared());
  MethodServer other(Shared());
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(server.Start(), IsOk());
    ASSERT_THAT(other.Call(kEcho, "x"), IsOkAndHolds("x"));
    ASSERT_THAT(server.Call(kEcho, "x"), IsOkAndHolds("x"));
    ASSERT_THAT(server.Stop(), IsOk());
    EXPECT_THAT(other.Call(kEcho, "x"), FailsWith(reason::kServerUnreachable));
    EXPECT_THAT(server.Call(kEcho, "x"), FailsWith(reason::kServerUnreachable));
  }
}

TEST_F(CallsTest, ADeathIsTold) {
  if (!HasProcesses()) GTEST_SKIP() << "its server has no process of its own";
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_THAT(server.Call(kNothing), IsOk());
  RunAtOnce(
      [&] {
        EXPECT_THAT(server.Call(kWait),
                    FailsWith(reason::kCallCut, "killed by signal 9"));
      },
      [&] {
        // Once the other one waits.
        while (AwaitNotes() != "waits\n") continue;
        Raise(server, SIGKILL);
      });
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_THAT(server.Call(kNothing), IsOk());
  Kill(server);
  EXPECT_THAT(server.Call(kNothing), FailsWith(reason::kServerDied));
  EXPECT_THAT(server.Stop(), FailsWith(reason::kServerDied));
}

// --- without the server's object ---

TEST_F(CallsTest, AClientNeedsNoMoreThanThePathAndThePassword) {
  MethodServer server(Shared());
  server.set_ignore_password_errors(true);
  ASSERT_THAT(server.Start(), IsOk());
  Client client({path(), Secret("the right password")});
  for (int i = 0; i < 10; ++i) {
    EXPECT_THAT(client.Call(kRepeat, "ab", 2), IsOkAndHolds("abab"));
  }
  EXPECT_THAT(client.Call(kConnections), IsOkAndHolds(1));
  EXPECT_THAT(client.Call(kWait, Within(absl::Milliseconds(1))),
              FailsWith(reason::kTimedOut));
  EXPECT_THAT(client.Connect([](MessageChannel& channel) {
    return channel.Write("nothing");
  }),
              IsOk());
  Client stranger({path(), Secret("another password")});
  EXPECT_THAT(stranger.Call(kNothing), FailsWith(reason::kInvalidPassword));
  Client nobodys({path() + "2", Secret("a password")});
  EXPECT_THAT(nobodys.Call(kNothing), FailsWith(reason::kServerUnreachable));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, AClientMayBeOfTheServersObject) {
  MethodServer server(Shared());
  Client client(server);
  Client moved = std::move(client);
  EXPECT_THAT(moved.Call(kNothing), FailsWith(reason::kServerUnreachable));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(moved.Call(kEcho, "x"), IsOkAndHolds("x"));
  // Over the same connections.
  EXPECT_THAT(server.Call(kConnections), IsOkAndHolds(1));
  EXPECT_THAT(server.Stop(), IsOk());
}

// It neither says how a call ends, nor keeps a connection.
TEST_F(CallsTest, AServerFromBeforeThereWereMethodsIsCalled) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Listener> listener,
                       environment().Listen({path(), 0600}));
  proto::Frame reply;
  reply.mutable_array()->add_part("an old reply");
  const std::string body = reply.SerializeAsString();
  const std::string bytes = static_cast<char>(body.size()) + body;
  constexpr int kCalls = 3;
  RunAtOnce(
      [&] {
        for (int i = 0; i < kCalls; ++i) {
          absl::StatusOr<Listener::Accepted> client = listener->Accept();
          ASSERT_THAT(client, IsOk());
          // Whatever it is, whole: closed before, it would be a reset.
          size_t came = 0;
          for (size_t size = 1; came < size;) {
            std::string some(1000, ' ');
            std::vector<FileDescriptor> none;
            const auto received = client->transport->Receive(
                absl::MakeSpan(some), 0, none, absl::InfiniteFuture());
            ASSERT_THAT(received, IsOk());
            if (came == 0 && received->bytes > 0) {
              size = 1 + static_cast<unsigned char>(some[0]);
            }
            came += received->bytes;
          }
          ASSERT_THAT(
              client->transport->Send(bytes, {}, absl::InfiniteFuture()),
              IsOkAndHolds(bytes.size()));
        }
      },
      [&] {
        Client client({path(), Secret("the right password")});
        EXPECT_THAT(client.Call(kEcho, "x"), IsOkAndHolds("an old reply"));
        EXPECT_THAT(client.Call(kEcho, "x"), IsOkAndHolds("an old reply"));
        // What it has not is said.
        auto words = client.Call(Method<void, Stream<std::string>>{"words"});
        ASSERT_THAT(words, IsOk());
        EXPECT_EQ(words->Next(), "an old reply");
        EXPECT_EQ(words->Next(), std::nullopt);
        EXPECT_THAT(words->status(), FailsWith(reason::kConnectionLost,
                                               "without saying that it was"));
      });
  listener->RemovePath();
}

TEST_F(CallsTest, AClientMayBeAnOwner) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_OK_AND_ASSIGN(OwnerHandle handle, server.ShareOwnership());
  ASSERT_OK_AND_ASSIGN(Client client, Client::Own(std::move(handle)));
  EXPECT_THAT(client.Call(kEcho, "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_THAT(client.Call(kEcho, "x"), FailsWith(reason::kServerDied));
}

// --- streams ---

TEST_F(CallsTest, AReplyMayBeAStream) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  for (const int count : {0, 1, 100}) {
    ASSERT_OK_AND_ASSIGN(auto numbers, server.Call(kCount, count));
    int next = 0;
    while (const std::optional<int> number = numbers.Next()) {
      ASSERT_EQ(*number, next++);
    }
    EXPECT_THAT(numbers.status(), IsOk());
    EXPECT_EQ(next, count);
    EXPECT_EQ(numbers.Next(), std::nullopt);
  }
  ASSERT_OK_AND_ASSIGN(auto numbers, server.Call(kCountAndFail, 5));
  int count = 0;
  while (numbers.Next().has_value()) ++count;
  EXPECT_EQ(count, 5);
  EXPECT_EQ(numbers.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(server.Call(kConnections), IsOkAndHolds(1));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, ARequestMayBeAStream) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  for (const int count : {0, 1, 100}) {
    ASSERT_OK_AND_ASSIGN(auto numbers, server.Call(kSum));
    for (int i = 0; i < count; ++i) ASSERT_THAT(numbers.Write(i), IsOk());
    EXPECT_THAT(numbers.Finish(), IsOkAndHolds(count * (count - 1) / 2));
  }
  // The handler need not read all of it; what is written then may fail.
  for (const int first : {0, 1}) {
    ASSERT_OK_AND_ASSIGN(auto numbers, server.Call(kFirst));
    for (int i = first; i < 10; ++i) (void)numbers.Write(i);
    EXPECT_EQ(numbers.Finish().code(), first == 0
                                           ? absl::StatusCode::kOutOfRange
                                           : absl::StatusCode::kOk);
  }
  // What is no number.
  ASSERT_OK_AND_ASSIGN(auto texts,
                       server.Call(Method<Stream<std::string>, int>{"sum"}));
  ASSERT_THAT(texts.Write("x"), IsOk());
  EXPECT_THAT(texts.Finish(), FailsWith(reason::kInvalidArguments));
  EXPECT_EQ(TakeNotes(), "InvalidArguments\n");
  // Each has a connection of its own.
  EXPECT_THAT(server.Call(kConnections), IsOkAndHolds(6));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, BothMayBeStreams) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_OK_AND_ASSIGN(auto texts, server.Call(kRepeatAll));
  for (int i = 0; i < 10; ++i) {
    ASSERT_THAT(texts.Write(std::make_tuple("x", i)), IsOk());
    EXPECT_EQ(texts.Next(), std::string(static_cast<size_t>(i), 'x'));
  }
  EXPECT_THAT(texts.EndWriting(), IsOk());
  EXPECT_EQ(texts.Next(), std::nullopt);
  EXPECT_THAT(texts.status(), IsOk());

  ASSERT_OK_AND_ASSIGN(auto files, server.Call(kFiles));
  const Pipe pipe = MakePipe();
  ASSERT_THAT(files.Write(pipe.write), IsOk());
  const std::optional<FileDescriptor> same = files.Next();
  ASSERT_TRUE(same.has_value());
  WriteAll(same->get(), "x");
  EXPECT_EQ(ReadSome(pipe.read.get()), "x");
  EXPECT_THAT(files.EndWriting(), IsOk());
  EXPECT_EQ(files.Next(), std::nullopt);
  EXPECT_THAT(server.Call(kConnections), IsOkAndHolds(2));
  EXPECT_THAT(server.Stop(), IsOk());
}

// A reply, and a request, that nobody reads waits in the socket, and no
// further.
TEST_F(CallsTest, AnElementOfAnotherTypeIsNotTheReply) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_OK_AND_ASSIGN(auto truths,
                       server.Call(Method<int, Stream<bool>>{"count"}, 3));
  EXPECT_EQ(truths.Next(), std::nullopt);
  EXPECT_THAT(truths.status(),
              FailsWith(reason::kUnexpectedFrame, "true or false"));
  // What the server says of the request is another thing.
  ASSERT_OK_AND_ASSIGN(
      auto numbers,
      server.Call(Method<std::string, Stream<int>>{"count"}, "x"));
  EXPECT_EQ(numbers.Next(), std::nullopt);
  EXPECT_THAT(numbers.status(), FailsWith(reason::kInvalidArguments));
  EXPECT_THAT(server.Stop(), IsOk());
}

// Its handler has failed, has had enough, or is none.
TEST_F(CallsTest, WhoWritesToACallThatHasEndedIsTold) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_OK_AND_ASSIGN(auto failed, server.Call(kFirst));
  absl::Status status = failed.Write(0);
  while (status.ok()) status = failed.Write(1);
  EXPECT_EQ(failed.Finish(), absl::OutOfRangeError("message \"first\": zero"));
  ASSERT_OK_AND_ASSIGN(auto ended, server.Call(kFirst));
  status = ended.Write(1);
  while (status.ok()) status = ended.Write(1);
  EXPECT_THAT(ended.Finish(), IsOk());
  ASSERT_OK_AND_ASSIGN(
      auto unknown, server.Call(Method<Stream<std::string>, int>{"none such"}));
  const std::string element(10'000, 'x');
  status = unknown.Write(element);
  while (status.ok()) status = unknown.Write(element);
  EXPECT_THAT(unknown.Finish(), FailsWith(reason::kUnknownMessage));
  // What was read to its end is kept.
  ASSERT_OK_AND_ASSIGN(auto sum, server.Call(kSum));
  EXPECT_THAT(sum.Write(1), IsOk());
  EXPECT_THAT(sum.Finish(), IsOkAndHolds(1));
  EXPECT_THAT(server.Call(kConnections), IsOkAndHolds(4));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, AStreamWaitsForItsReader) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  constexpr int kMany = 20'000;
  ASSERT_OK_AND_ASSIGN(auto numbers, server.Call(kCount, kMany));
  absl::SleepFor(absl::Milliseconds(50));
  int next = 0;
  while (const std::optional<int> number = numbers.Next()) {
    ASSERT_EQ(*number, next++);
  }
  EXPECT_EQ(next, kMany);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, WhoLeavesAStreamIsMissed) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  {
    ASSERT_OK_AND_ASSIGN(auto numbers, server.Call(kSum));
    ASSERT_THAT(numbers.Write(1), IsOk());
  }
  // Not as if it had ended.
  EXPECT_EQ(AwaitNotes(), "ConnectionLost\n");
  EXPECT_THAT(server.Stop(), IsOk());
}

// Whatever is written is in the socket, or in vain, before the answer is read.
TEST_F(CallsTest, ARefusedStreamHasNotSucceeded) {
  MethodServer server(Shared());
  server.set_ignore_password_errors(true);
  ASSERT_THAT(server.Start(), IsOk());
  Client stranger({path(), Secret("another password")});
  for (const bool writes : {false, true}) {
    ASSERT_OK_AND_ASSIGN(auto numbers, stranger.Call(kFirst));
    while (writes && numbers.Write(1).ok()) continue;
    absl::SleepFor(absl::Milliseconds(10));
    EXPECT_THAT(numbers.Finish(), FailsWith(reason::kInvalidPassword));
  }
  // Nor is what one call has failed with another one's failure.
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK_AND_ASSIGN(auto numbers, server.Call(kFirst));
    EXPECT_THAT(numbers.Write(0), IsOk());
    absl::SleepFor(absl::Milliseconds(10));
    (void)numbers.Write(0);
    EXPECT_EQ(numbers.Finish().code(), absl::StatusCode::kOutOfRange);
    EXPECT_THAT(server.Call(kEcho, "x"), IsOkAndHolds("x"));
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

// A handler may have met the end of another stream.
TEST_F(CallsTest, AnEndThatAHandlerHasMetIsNotItsOwn) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Call(kPassesAnEndOn),
              FailsWith(reason::kEndOfStream, "another stream"));
  ASSERT_OK_AND_ASSIGN(auto numbers, server.Call(kPassesAnEndOnFirst));
  EXPECT_EQ(numbers.Next(), std::nullopt);
  EXPECT_THAT(numbers.status(),
              FailsWith(reason::kEndOfStream, "another stream"));
  EXPECT_THAT(server.Call(kConnections), IsOkAndHolds(1));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, AnEndedCallRefusesWhatComesLater) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_OK_AND_ASSIGN(auto sum, server.Call(kSum));
  ASSERT_THAT(sum.Write(1), IsOk());
  EXPECT_THAT(sum.Finish(), IsOkAndHolds(1));
  EXPECT_THAT(sum.Write(2), FailsWith(reason::kChannelClosed));
  EXPECT_THAT(sum.EndWriting(), FailsWith(reason::kChannelClosed));
  EXPECT_THAT(sum.Finish(), FailsWith(reason::kChannelClosed));
  ASSERT_OK_AND_ASSIGN(auto fails, server.Call(kCountAndFail, 0));
  EXPECT_EQ(fails.Next(), std::nullopt);
  EXPECT_EQ(fails.EndWriting().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(server.Stop(), IsOk());
}

// Its connections are those of the server that they were made to.
TEST_F(CallsTest, WhoHasGivenUpAServerDoesNotCallIt) {
  if (!HasProcesses()) GTEST_SKIP() << "its server has no process of its own";
  MethodServer server;
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_OK_AND_ASSIGN(auto open, server.Call(kCount, 1));
  ASSERT_THAT(server.Call(kNothing), IsOk());
  ASSERT_OK_AND_ASSIGN(OwnerHandle handle, server.ShareOwnership());
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Process> first, server.Disown());
  ASSERT_THAT(server.Start(), IsOk());
  // Two were to the first one.
  const int connections = SharesMemory() ? 3 : 1;
  EXPECT_THAT(server.Call(kConnections), IsOkAndHolds(connections));
  EXPECT_EQ(open.Next(), 0);
  EXPECT_EQ(open.Next(), std::nullopt);
  handle = OwnerHandle();
  EXPECT_THAT(first->Wait(absl::InfiniteFuture()), IsOk());
  EXPECT_THAT(server.Call(kConnections), IsOkAndHolds(connections));
  EXPECT_THAT(server.Stop(), IsOk());
}

// --- what a server has ---

TEST_F(CallsTest, AServerTellsItsMethods) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_OK_AND_ASSIGN(const std::vector<MethodInfo> methods, server.Methods());
  std::string told;
  for (const MethodInfo& method : methods) {
    absl::StrAppend(&told, method.name, ": ", method.request, " -> ",
                    method.reply, "\n");
  }
  EXPECT_EQ(told, R"(both:  -> int32, bool
bulks: string, bulk -> bulk, bulk
connections:  -> int32
count: int32 -> stream of int32
count and fail: int32 -> stream of int32
echo: string -> conversation
echo text: string -> string
fail: string -> 
fails late:  -> conversation
files: stream of descriptor -> stream of descriptor
first: stream of int32 -> 
gives up late:  -> conversation
hold:  -> conversation
nothing:  -> 
pass bulks: stream of bulk -> stream of bulk
passes an end on:  -> 
passes an end on first:  -> stream of int32
proto: ward.proto.Error -> ward.proto.Error
rename: string, descriptors -> descriptors
rename all: stream of descriptors -> stream of descriptors
repeat: string, int32 -> string
repeat all: stream of string, int32 -> stream of string
same file: descriptor -> descriptor
silent:  -> 
sum: stream of int32 -> int32
talkative:  -> conversation
time left: int64 -> int64
wait:  -> 
ward.descriptor_set:  -> stream of string
ward.methods:  -> stream of string, string, string
ward.owners:  -> message
ward.stats: bool -> ward.proto.ServerStats
)");
  EXPECT_THAT(server.Call(Method<void, void>{"nothin"}),
              FailsWith(reason::kUnknownMessage, "did you mean nothing;"));
  // descriptor_set_test.cc is of a program that has it.
  EXPECT_THAT(server.DescriptorSet(),
              FailsWith(reason::kUnknownMessage, "//server:descriptor_set"));
  EXPECT_THAT(server.Stop(), IsOk());
}

// --- deadlines ---

TEST_F(CallsTest, ACallEndsAtItsDeadline) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  ASSERT_THAT(server.Call(kNothing), IsOk());
  const Stopwatch watch;
  EXPECT_THAT(server.Call(kWait, Within(absl::Milliseconds(50))),
              FailsWith(reason::kTimedOut));
  EXPECT_GE(watch.Elapsed(), absl::Milliseconds(50));
  EXPECT_LT(watch.Elapsed(), MovesClock() ? absl::Milliseconds(51) : kSurely);
  // Not over the connection whose call may still be under way.
  EXPECT_THAT(server.Call(kConnections), IsOkAndHolds(2));
  // One that has passed already is not even begun.
  EXPECT_THAT(server.Call(kNothing, Within(absl::ZeroDuration())),
              FailsWith(reason::kTimedOut));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, AHandlerKnowsItsDeadlineAndPassesItOn) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  const CallOptions minute = Within(absl::Minutes(1));
  for (const int nested : {0, 1}) {
    ASSERT_OK_AND_ASSIGN(const int64_t left,
                         server.Call(kTimeLeft, minute, nested));
    EXPECT_LE(left, 60'000);
    EXPECT_GT(left, MovesClock() ? 59'998 : 0);
  }
  constexpr int64_t kForEver = std::numeric_limits<int64_t>::max();
  EXPECT_THAT(server.Call(kTimeLeft, minute, 2), IsOkAndHolds(kForEver));
  EXPECT_THAT(server.Call(kTimeLeft, 1), IsOkAndHolds(kForEver));
  EXPECT_THAT(server.Stop(), IsOk());
}

// A server may call itself, wherever it serves.
TEST_F(CallsTest, AHandlerCallsItsOwnServer) {
  ServerOptions options = Shared();
  options.socket_filename.clear();
  MethodServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(server.Call(kTimeLeft, 1).status(), IsOk());
  }
  // Over a connection that it keeps, as its client does.
  EXPECT_THAT(server.Call(kConnections), IsOkAndHolds(2));
  EXPECT_THAT(server.Stop(), IsOk());
}

// --- by hand ---

TEST_F(CallsTest, WhatIsLeftOfACallIsNotTheNextOne) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = Open(server);
  channel.ExpectEnd();
  const Pipe pipe = MakePipe();
  for (int i = 0; i < 3; ++i) {
    channel.BeginCall({/*keep=*/true});
    ASSERT_THAT(channel.Write("echo text", i), IsOk());
    EXPECT_THAT(channel.Read(), RepliesWith(std::to_string(i)));
    EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
    EXPECT_TRUE(channel.kept());
    // Late.
    ASSERT_THAT(channel.Write("echo text", "late"), IsOk());
    ASSERT_THAT(channel.Write("late", pipe.read), IsOk());
    ASSERT_THAT(channel.WriteError(absl::InternalError("late")), IsOk());
    ASSERT_THAT(channel.WriteScalar("late"), IsOk());
  }
  // Without keep it is the last one.
  channel.BeginCall({/*keep=*/false});
  ASSERT_THAT(channel.Write("echo text", "x"), IsOk());
  EXPECT_THAT(channel.Read(), RepliesWith("x"));
  EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  EXPECT_FALSE(channel.kept());
  EXPECT_THAT(server.Stop(), IsOk());
}

// As much as an honest client has under way, and several times that.
TEST_F(CallsTest, WhoSaysWithoutEndWhatNobodyReadsIsCutOff) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = OpenAndCallOnce(server);
  const std::string late(10'000, 'x');
  size_t written = 0;
  absl::Status status;
  while (status.ok() && written < 10 * MessageChannel::kMostLeftOver) {
    status = channel.WriteScalar(late);
    if (status.ok()) written += late.size();
  }
  EXPECT_THAT(status, FailsWith(reason::kConnectionLost));
  EXPECT_GE(written, MessageChannel::kMostLeftOver - late.size());
  // And what the socket holds.
  EXPECT_LE(written, 2 * MessageChannel::kMostLeftOver);
  EXPECT_THAT(server.Call(kEcho, "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
}

// What the server had received when it cut its client off is served.
TEST_F(CallsTest, ACallBehindTooMuchThatIsLeftIsServed) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = OpenAndCallOnce(server);
  ASSERT_THAT(channel.WriteScalar(
                  std::string(MessageChannel::kMostLeftOver - 100, 'x')),
              IsOk());
  proto::Frame late;
  late.set_scalar(std::string(1000, 'x'));
  proto::Frame call;
  call.mutable_array()->add_part("echo text");
  call.mutable_array()->add_part("x");
  call.mutable_call()->set_keep(true);
  std::string bytes;
  for (const proto::Frame& frame : {late, call}) {
    const std::string body = frame.SerializeAsString();
    absl::StrAppend(&bytes, Varint(body.size()), body);
  }
  auto* const connection = const_cast<Transport*>(channel.transport());
  channel.BeginCall({/*keep=*/true});
  EXPECT_THAT(connection->Send(bytes, {}, absl::InfiniteFuture()),
              IsOkAndHolds(bytes.size()));
  EXPECT_THAT(channel.Read(), RepliesWith("x"));
  EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  EXPECT_TRUE(channel.kept());
  // The next one is not read, and can be made on another connection.
  channel.BeginCall({/*keep=*/true});
  EXPECT_THAT(channel.Write("echo text", "x"), FailsWith(reason::kCallCut));
  EXPECT_THAT(server.Stop(), IsOk());
}

// Who has said that it may call again, and a part of what it says then, keeps
// nothing for long.
TEST_F(CallsTest, AHalfSaidCallHasItsTime) {
  ServerOptions options = Shared();
  // It is that of the first message, too, which a real client may be late with.
  const absl::Duration time =
      MovesClock() ? absl::Milliseconds(50) : absl::Seconds(1);
  options.authentication_timeout = time;
  MethodServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = OpenAndCallOnce(server);
  // Between two calls it has all the time.
  absl::SleepFor(2 * time);
  channel.BeginCall({/*keep=*/true});
  ASSERT_THAT(channel.Write("nothing"), IsOk());
  EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  channel.BeginCall({/*keep=*/true});
  auto* const connection = const_cast<Transport*>(channel.transport());
  EXPECT_THAT(connection->Send("\x05", {}, absl::InfiniteFuture()), IsOk());
  EXPECT_THAT(channel.Read(), FailsWith(reason::kTimedOut));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, WhoKnowsNoEndsCallsOnce) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = Open(server);
  channel.BeginCall({/*keep=*/true});
  ASSERT_THAT(channel.Write("echo text", "x"), IsOk());
  EXPECT_THAT(channel.Read(), RepliesWith("x"));
  EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  EXPECT_FALSE(channel.kept());
  EXPECT_THAT(server.Stop(), IsOk());
}

// Its client may have called again by then.
TEST_F(CallsTest, AFailureAfterACallsEndIsNobodys) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  for (int i = 0; i < 10; ++i) {
    EXPECT_THAT(server.Call(Method<void, std::string>{"fails late"}),
                IsOkAndHolds("a reply"));
  }
  // Nor is what comes of the call's time, which is over while the next one
  // waits.
  EXPECT_THAT(server.Call(Method<void, std::string>{"gives up late"},
                          Within(MovesClock() ? absl::Milliseconds(100)
                                              : absl::Seconds(2))),
              IsOkAndHolds("a reply"));
  EXPECT_THAT(server.Call(kConnections), IsOkAndHolds(1));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, ACallDoesNotBeginWithAnError) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = OpenAndCallOnce(server);
  channel.BeginCall({/*keep=*/true});
  // As if the server had found that itself.
  ASSERT_THAT(channel.WriteError(MakeError(reason::kTimedOut, "")), IsOk());
  EXPECT_THAT(channel.Read(), FailsWith(reason::kUnexpectedFrame));
  EXPECT_THAT(server.Stop(), IsOk());
}

// A request's descriptors are closed with its call.
TEST_F(CallsTest, NothingOfACallIsLeftAfterIt) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  MessageChannel channel = Open(server);
  channel.ExpectEnd();
  channel.BeginCall({/*keep=*/true});
  Pipe pipe = MakePipe();
  // Refused, and not taken.
  ASSERT_THAT(channel.Write("nothing", pipe.write), IsOk());
  EXPECT_THAT(channel.Read(), FailsWith(reason::kInvalidArguments));
  EXPECT_THAT(channel.Read(), FailsWith(reason::kEndOfStream));
  EXPECT_TRUE(channel.kept());
  pipe.write.Reset();
  EXPECT_EQ(ReadSome(pipe.read.get()), "");
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(CallsTest, WhoIsBetweenTwoCallsMayLeave) {
  MethodServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  for (int i = 0; i < 3; ++i) {
    const MessageChannel channel = OpenAndCallOnce(server);
  }
  EXPECT_THAT(server.Call(kConnections), IsOkAndHolds(4));
  EXPECT_THAT(server.Stop(), IsOk());
}

}  // namespace
}  // namespace ward
