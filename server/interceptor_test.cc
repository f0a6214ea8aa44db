// What is around every call, on either side, and the trace id that goes with
// it; in every mode.

#include "ward/server/interceptor.h"

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/async_client.h"
#include "ward/server/client.h"
#include "ward/server/environment.h"
#include "ward/server/modes_for_test.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"
#include "ward/testing/server_test.h"

namespace ward {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MovesClock;
using ::testing::Not;
using testing::RepliesWith;
using ::testing::SizeIs;

inline constexpr Method<std::string, std::string> kEcho{"echo text"};
inline constexpr Method<void, void> kFail{"fail"};
inline constexpr Method<void, void> kSleep{"sleep"};
// Until nobody waits for it.
inline constexpr Method<void, void> kStay{"stay"};
inline constexpr Method<void, int> kSilent{"silent"};
inline constexpr Method<int, Stream<int>> kCount{"count"};
inline constexpr Method<Stream<int>, int> kSum{"sum"};
// What the handler is told of its method and its trace id.
inline constexpr Method<std::string, std::string> kWho{"who"};
// That of a call that the handler makes, of another server.
inline constexpr Method<Arguments<std::string, bool>, std::string> kNested{
    "nested"};

constexpr std::string_view kTraceparent =
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

// One of functions.
struct Around : Interceptor {
  absl::Status Before(CallInfo& call) override {
    return before == nullptr ? absl::OkStatus() : before(call);
  }
  void After(const CallInfo& call) override {
    if (after != nullptr) after(call);
  }

  std::function<absl::Status(CallInfo&)> before;
  std::function<void(const CallInfo&)> after;
};

std::string Outcome(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason.empty() ? absl::StatusCodeToString(status.code()) : reason;
}

using NoteLine = std::function<void(std::string_view)>;

std::shared_ptr<Around> Noting(const std::string& name, const NoteLine& note) {
  auto around = std::make_shared<Around>();
  around->before = [=](CallInfo& call) {
    note(absl::StrCat(name, " before ", call.method));
    return absl::OkStatus();
  };
  around->after = [=](const CallInfo& call) {
    note(
        absl::StrCat(name, " after ", call.method, ": ", Outcome(call.result)));
  };
  return around;
}

// In the middle: as `how` says.
std::shared_ptr<Around> Other(std::string_view how, const NoteLine& note) {
  auto around = Noting("other", note);
  if (how == "refuses") {
    around->before = [](CallInfo& call) {
      return call.method == "echo text" ? absl::PermissionDeniedError("not you")
                                        : absl::OkStatus();
    };
  } else if (how == "throws before") {
    around->before = [](CallInfo&) -> absl::Status {
      throw std::runtime_error("not today");
    };
  } else if (how == "throws after") {
    around->after = [](const CallInfo&) {
      throw std::runtime_error("too late");
    };
  }
  return around;
}

// Its second argument says what its interceptors do.
class InterceptedServer : public Registered<InterceptedServer> {
 public:
  explicit InterceptedServer(ServerOptions options = {})
      : Registered(Intercepted(std::move(options))) {
    Define(kEcho,
           [this](const std::string& text) -> absl::StatusOr<std::string> {
             WARD_RETURN_IF_ERROR(Note("handler"));
             return text;
           });
    Define(kFail, [] { return absl::DataLossError("no luck"); });
    Define(kSleep, [] {
      absl::SleepFor(absl::Milliseconds(50));
      return absl::OkStatus();
    });
    Define(kStay, [](const CallContext& context) -> absl::Status {
      while (!context.cancelled()) absl::SleepFor(absl::Milliseconds(1));
      return absl::CancelledError("given up");
    });
    DefineMessageHandler("silent", [] { return absl::OkStatus(); });
    Define(kCount, [](int count, StreamWriter<int>& numbers) -> absl::Status {
      for (int i = 0; i < count; ++i) WARD_RETURN_IF_ERROR(numbers.Write(i));
      return absl::OkStatus();
    });
    Define(kSum, [](StreamReader<int>& numbers) -> absl::StatusOr<int> {
      int sum = 0;
      while (const std::optional<int> number = numbers.Next()) sum += *number;
      WARD_RETURN_IF_ERROR(numbers.status());
      return sum;
    });
    Define(kWho,
           [](const CallContext& context,
              std::string_view) -> absl::StatusOr<std::string> {
             return absl::StrCat(context.method(), ": ", context.trace_id());
           });
    Define(kNested,
           [this](const std::string& trace_id,
                  bool inherit) -> absl::StatusOr<std::string> {
             Client other({this->options().arguments.at(2),
                           Secret("the right password")});
             CallOptions call;
             call.trace_id = trace_id;
             call.inherit = inherit;
             return other.Call(kWho, call, "");
           });
    DefineMessageHandler(
        "takes all", [this](const CallContext& context, MessageChannel& channel,
                            Message message) {
          message = Message();
          WARD_RETURN_IF_ERROR(channel.WriteEnd());
          MessageChannel(std::move(channel)).Close();
          return Note(absl::StrCat(context.method(), ": ", context.trace_id()));
        });
  }

 private:
  static ServerOptions Intercepted(ServerOptions options) {
    if (options.arguments.size() < 2) return options;
    const std::string how = options.arguments[1];
    const NoteLine note = [file = options.arguments[0]](std::string_view line) {
      ward::Note(file, line);
    };
    if (how == "tells") {
      // What is true of the two in all modes.
      auto tells = std::make_shared<Around>();
      tells->after = [note](const CallInfo& call) {
        const absl::Duration left =
            call.deadline - Environment::Default().TimeNow();
        note(absl::StrCat(
            call.peer.pid, " ", call.peer.uid, " ", call.trace_id, " ",
            left > absl::ZeroDuration() && left <= absl::Minutes(1)));
        note(absl::StrCat(absl::ToInt64Milliseconds(call.duration)));
      };
      options.interceptors = {tells};
    } else if (how != "none") {
      options.interceptors = {Noting("outer", note), Other(how, note),
                              Noting("inner", note)};
    }
    return options;
  }
};

class InterceptorTest : public ModesTest {
 protected:
  // Where `client` has interceptors, their notes.
  std::vector<std::string> calls_;

  // Options for a client of what runs with Shared().
  ServerOptions Calling(std::vector<std::shared_ptr<Interceptor>> around) {
    ServerOptions options = Shared();
    options.client_interceptors = std::move(around);
    return options;
  }
  NoteLine Keep() {
    return [this](std::string_view line) { calls_.emplace_back(line); };
  }
  std::vector<std::string> Take() { return std::exchange(calls_, {}); }
};

// --- in the server ---

TEST_F(InterceptorTest, TheFirstIsTheOutermost) {
  InterceptedServer server(Shared({"nested"}));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(server.Call(kEcho, "x"), IsOkAndHolds("x"));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(TakeNotes(), R"(outer before echo text
other before echo text
inner before echo text
handler
inner after echo text: OK
other after echo text: OK
outer after echo text: OK
)");
}

TEST_F(InterceptorTest, ARefusedCallIsNotServed) {
  InterceptedServer server(Shared({"refuses"}));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_EQ(server.Call(kEcho, "x").status(),
            absl::PermissionDeniedError("not you"));
  // Nor is what else it would have sent.
  EXPECT_THAT(CallServer(server, "echo text", "x").status().message(),
              "not you");
  EXPECT_THAT(server.Call(kSleep), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_THAT(TakeNotes(), AllOf(HasSubstr(R"(outer before echo text
other after echo text: PERMISSION_DENIED
outer after echo text: PERMISSION_DENIED
)"),
                                 HasSubstr("inner before sleep\n"),
                                 Not(HasSubstr("handler"))));
}

TEST_F(InterceptorTest, EveryCallIsSeen) {
  InterceptedServer server(Shared({"nested"}));
  ASSERT_THAT(server.Start(), IsOk());
  // Each call's three lines of the outermost.
  const auto seen = [&](std::string_view what) {
    std::string notes;
    const std::string last = absl::StrCat("outer after ", what, "\n");
    // It may be written when the client has its answer.
    while (notes.find(last) == std::string::npos) notes += AwaitNotes();
    EXPECT_EQ(notes.find("outer before"), 0u) << notes;
  };
  EXPECT_THAT(server.Call(kFail), Not(IsOk()));
  seen("fail: DATA_LOSS");
  EXPECT_THAT(CallServer(server, "echo", "x"), RepliesWith("x"));
  seen("echo: OK");
  EXPECT_THAT(server.Methods(), IsOk());
  seen("ward.methods: OK");
  EXPECT_THAT(server.Call(Method<void, void>{"no such"}),
              FailsWith(reason::kUnknownMessage, "\"no such\""));
  seen("no such: UnknownMessage");
  const std::string name(100'000, 'x');
  EXPECT_THAT(server.Call(Method<void, void>{name}),
              FailsWith(reason::kUnknownMessage));
  seen(absl::StrCat(name.substr(0, 64), ": UnknownMessage"));
  EXPECT_THAT(server.Call(Method<int, void>{"sleep"}, 1),
              FailsWith(reason::kInvalidArguments));
  seen("sleep: InvalidArguments");
  // A stream is one call, until it has ended,
  ASSERT_OK_AND_ASSIGN(auto numbers, server.Call(kCount, 5));
  while (numbers.Next().has_value()) continue;
  EXPECT_THAT(numbers.status(), IsOk());
  seen("count: OK");
  // or was left.
  { EXPECT_THAT(server.Call(kSum), IsOk()); }
  seen("sum: ConnectionLost");
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(InterceptorTest, WhatATroubledOneThrowsEndsNothingElse) {
  const StderrCapture log;
  for (const std::string when : {"throws before", "throws after"}) {
    InterceptedServer server(Shared({when}));
    ASSERT_THAT(server.Start(), IsOk());
    const bool before = when == "throws before";
    for (int i = 0; i < 2; ++i) {
      const absl::StatusOr<std::string> reply = server.Call(kEcho, "x");
      if (before) {
        EXPECT_THAT(reply, FailsWith(reason::kUserCodeThrew, "not today"));
      } else {
        EXPECT_THAT(reply, IsOkAndHolds("x"));
      }
    }
    EXPECT_THAT(server.Stop(), IsOk());
    const std::string notes = TakeNotes();
    EXPECT_THAT(notes, HasSubstr(before ? "outer after echo text: UserCodeThrew"
                                        : "outer after echo text: OK"));
    EXPECT_EQ(before, notes.find("handler") == std::string::npos);
  }
  if (!MovesClock()) {
    EXPECT_THAT(log.Text(), HasSubstr("Interceptor::After threw: too late"));
  }
}

TEST_F(InterceptorTest, OneIsToldWhoCallsUntilWhenAndHowLong) {
  InterceptedServer server(Shared({"tells"}));
  ASSERT_THAT(server.Start(), IsOk());
  CallOptions options;
  options.deadline = absl::Now() + absl::Minutes(1);
  options.trace_id = kTraceparent;
  EXPECT_THAT(server.Call(kSleep, options), IsOk());
  EXPECT_THAT(server.Stop(), IsOk());
  const std::string first =
      absl::StrCat(environment().ProcessId(), " ", environment().UserId(), " ",
                   kTraceparent, " 1\n");
  const std::string notes = TakeNotes();
  EXPECT_EQ(notes.substr(0, first.size()), first);
  int milliseconds = 0;
  EXPECT_TRUE(absl::SimpleAtoi(notes.substr(first.size()), &milliseconds));
  if (MovesClock()) {
    EXPECT_EQ(milliseconds, 50);
  } else {
    EXPECT_GE(milliseconds, 50);
  }
}

// --- in the client ---

TEST_F(InterceptorTest, AClientHasItsOwn) {
  InterceptedServer server(Shared());
  ASSERT_THAT(server.Start(), IsOk());
  InterceptedServer other(
      Calling({Noting("outer", Keep()), Noting("inner", Keep())}));
  EXPECT_THAT(other.Call(kEcho, "x"), IsOkAndHolds("x"));
  EXPECT_THAT(
      Take(),
      ElementsAre("outer before echo text", "inner before echo text",
                  "inner after echo text: OK", "outer after echo text: OK"));
  Client client({path(), Secret("the right password")});
  EXPECT_THAT(client.Call(kEcho, "x"), IsOkAndHolds("x"));
  EXPECT_THAT(Take(), IsEmpty());
  ClientOptions options = {path(), Secret("the right password")};
  options.interceptors = {Noting("client's", Keep())};
  Client intercepted(std::move(options));
  EXPECT_THAT(intercepted.Call(kFail), Not(IsOk()));
  EXPECT_THAT(Take(), ElementsAre("client's before fail",
                                  "client's after fail: DATA_LOSS"));
  // Not around what else goes over a connection.
  EXPECT_THAT(CallServer(other, "echo", "x"), RepliesWith("x"));
  EXPECT_THAT(Take(), IsEmpty());
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(InterceptorTest, ACallThatIsRefusedInTheClientIsNotMade) {
  InterceptedServer server(Shared({"nested"}));
  ASSERT_THAT(server.Start(), IsOk());
  InterceptedServer other(
      Calling({Noting("outer", Keep()), Other("refuses", Keep()),
               Other("throws after", Keep())}));
  EXPECT_EQ(other.Call(kEcho, "x").status(),
            absl::PermissionDeniedError("not you"));
  EXPECT_THAT(Take(), ElementsAre("outer before echo text",
                                  "other after echo text: PERMISSION_DENIED",
                                  "outer after echo text: PERMISSION_DENIED"));
  // A stream, too, and one that throws.
  const auto refuse = std::make_shared<Around>();
  refuse->before = [](CallInfo&) -> absl::Status { throw 1; };
  InterceptedServer throwing(Calling({refuse}));
  EXPECT_THAT(throwing.Call(kSum), FailsWith(reason::kUserCodeThrew));
  EXPECT_THAT(server.Stop(), IsOk());
  EXPECT_EQ(TakeNotes(), "");
}

TEST_F(InterceptorTest, TheResultIsWhatTheCallerGets) {
  InterceptedServer other(Calling({Noting("", Keep())}));
  const auto result_of = [&](std::string_view method) {
    const std::vector<std::string> lines = Take();
    EXPECT_THAT(lines, SizeIs(2));
    const std::string expected = absl::StrCat(" after ", method, ": ");
    EXPECT_EQ(lines.back().substr(0, expected.size()), expected);
    return lines.back().substr(expected.size());
  };
  EXPECT_THAT(other.Call(kSleep), FailsWith(reason::kServerUnreachable));
  EXPECT_EQ(result_of("sleep"), "ServerUnreachable");
  InterceptedServer server(Shared({"none"}));
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(other.Call(kSilent), FailsWith(reason::kUnexpectedFrame));
  EXPECT_EQ(result_of("silent"), "UnexpectedFrame");
  // A reply that is another method's.
  EXPECT_THAT(other.Call(Method<std::string, int>{"echo text"}, "x"),
              FailsWith(reason::kUnexpectedFrame));
  EXPECT_EQ(result_of("echo text"), "UnexpectedFrame");
  CallOptions options;
  options.deadline = absl::Now() + absl::Milliseconds(10);
  EXPECT_THAT(other.Call(kSleep, options), FailsWith(reason::kTimedOut));
  EXPECT_EQ(result_of("sleep"), "TimedOut");
  // Over a connection that the server has closed meanwhile: it is one call.
  EXPECT_THAT(other.Call(kEcho, "x"), IsOkAndHolds("x"));
  EXPECT_EQ(result_of("echo text"), "OK");
  EXPECT_THAT(server.Stop(), IsOk());
  ASSERT_THAT(server.Start(), IsOk());
  EXPECT_THAT(other.Call(kEcho, "x"), IsOkAndHolds("x"));
  EXPECT_EQ(result_of("echo text"), "OK");
  EXPECT_THAT(server.Stop(), IsOk());
  // Of a server that was never started.
  ServerOptions nowhere;
  nowhere.client_interceptors = {Noting("", Keep())};
  InterceptedServer unstarted(std::move(nowhere));
  EXPECT_THAT(unstarted.Call(kSum), FailsWith(reason::kServerNotStarted));
  EXPECT_EQ(result_of("sum"), "ServerNotStarted");
}

TEST_F(InterceptorTest, AStreamIsOneCallInTheClientToo) {
  InterceptedServer server(Shared({"none"}));
  ASSERT_THAT(server.Start(), IsOk());
  InterceptedServer other(Calling({Noting("", Keep())}));
  {
    ASSERT_OK_AND_ASSIGN(auto numbers, other.Call(kSum));
    EXPECT_THAT(numbers.Write(7), IsOk());
    EXPECT_THAT(Take(), ElementsAre(" before sum"));
    EXPECT_THAT(numbers.Finish(), IsOkAndHolds(7));
    EXPECT_THAT(Take(), ElementsAre(" after sum: OK"));
    EXPECT_THAT(numbers.Finish(), Not(IsOk()));
  }
  {
    // The name is not there as long as the call.
    ASSERT_OK_AND_ASSIGN(
        auto numbers,
        other.Call(Method<int, Stream<int>>{std::string("count")}, 3));
    while (numbers.Next().has_value()) EXPECT_THAT(calls_, SizeIs(1));
    EXPECT_THAT(numbers.status(), IsOk());
    EXPECT_THAT(Take(), ElementsAre(" before count", " after count: OK"));
  }
  // Nor does an end of another kind end it twice.
  { EXPECT_THAT(other.Call(kSum), IsOk()); }
  EXPECT_THAT(Take(), ElementsAre(" before sum", " after sum: CallCancelled"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(InterceptorTest, ACallThatIsNotWaitedForIsOneToo) {
  InterceptedServer other(
      Calling({Noting("outer", Keep()), Other("refuses", Keep())}));
  ASSERT_OK_AND_ASSIGN(const auto calls, AsyncClient::Create(other));
  EXPECT_THAT(calls->StartCall(kFail).Result(),
              FailsWith(reason::kServerUnreachable));
  EXPECT_THAT(Take(), ElementsAre("outer before fail",
                                  "other after fail: ServerUnreachable",
                                  "outer after fail: ServerUnreachable"));
  InterceptedServer server(Shared({"none"}));
  ASSERT_THAT(server.Start(), IsOk());
  CallOptions options;
  options.trace_id = kTraceparent;
  EXPECT_THAT(calls->StartCall(kWho, options, "").Result(),
              IsOkAndHolds(absl::StrCat("who: ", kTraceparent)));
  EXPECT_THAT(Take(), ElementsAre("outer before who", "other after who: OK",
                                  "outer after who: OK"));
  EXPECT_EQ(calls->StartCall(kEcho, "x").Result().status(),
            absl::PermissionDeniedError("not you"));
  EXPECT_THAT(Take(), ElementsAre("outer before echo text",
                                  "other after echo text: PERMISSION_DENIED",
                                  "outer after echo text: PERMISSION_DENIED"));
  { const PendingCall<void> call = calls->StartCall(kStay); }
  EXPECT_THAT(Take(), ElementsAre("outer before stay",
                                  "other after stay: CallCancelled",
                                  "outer after stay: CallCancelled"));
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(InterceptorTest, EachBeforeHasItsAfterOnManyThreads) {
  constexpr int kThreads = 4;
  constexpr int kCalls = 10;
  InterceptedServer server(Shared({"none"}));
  ASSERT_THAT(server.Start(), IsOk());
  std::atomic<int> under_way{0};
  std::atomic<int> calls{0};
  const auto count = std::make_shared<Around>();
  count->before = [&](CallInfo&) {
    ++under_way;
    return absl::OkStatus();
  };
  count->after = [&](const CallInfo&) {
    EXPECT_LE(under_way--, kThreads);
    ++calls;
  };
  InterceptedServer other(Calling({count}));
  std::vector<absl::AnyInvocable<void()>> callers;
  for (int i = 0; i < kThreads; ++i) {
    callers.emplace_back([&] {
      for (int call = 0; call < kCalls; ++call) {
        EXPECT_THAT(other.Call(kEcho, "x"), IsOkAndHolds("x"));
      }
    });
  }
  RunAtOnce(std::move(callers));
  EXPECT_EQ(under_way, 0);
  EXPECT_EQ(calls, kThreads * kCalls);
  EXPECT_THAT(server.Stop(), IsOk());
}

TEST_F(InterceptorTest, NobodyIsRootInAClient) {
  InterceptedServer server(Shared({"none"}));
  ASSERT_THAT(server.Start(), IsOk());
  std::vector<CallInfo> seen;
  const auto keep = std::make_shared<Around>();
  keep->after = [&](const CallInfo& call) { seen.push_back(call); };
  InterceptedServer other(Calling({keep}));
  CallOptions options;
  options.deadline = absl::Now() + absl::Minutes(1);
  const absl::Time now = environment().TimeNow();
  EXPECT_THAT(other.Call(kSleep, options), IsOk());
  EXPECT_THAT(other.Call(kEcho, "x"), IsOk());
  ASSERT_THAT(seen, SizeIs(2));
  EXPECT_EQ(seen[0].peer.uid, static_cast<uid_t>(-1));
  EXPECT_GT(seen[0].deadline, now);
  EXPECT_LE(seen[0].deadline, environment().TimeNow() + absl::Minutes(1));
  EXPECT_GE(seen[0].duration, absl::Milliseconds(50));
  EXPECT_EQ(seen[1].deadline, absl::InfiniteFuture());
  if (MovesClock()) {
    EXPECT_LT(seen[0].duration, absl::Milliseconds(51));
  }
  EXPECT_THAT(server.Stop(), IsOk());
}

// --- the trace id ---

TEST_F(InterceptorTest, ATraceIdGoesThroughServers) {
  ServerOptions options = Shared({"none"});
  options.socket_filename = directory() + "/back";
  const std::string back_path = options.socket_filename;
  InterceptedServer back(std::move(options));
  ASSERT_THAT(back.Start(), IsOk());
  InterceptedServer front(Shared({"none", back_path}));
  ASSERT_THAT(front.Start(), IsOk());
  EXPECT_THAT(front.Call(kWho, ""), IsOkAndHolds("who: "));
  CallOptions traced;
  traced.trace_id = kTraceparent;
  const std::string its_own = absl::StrCat("who: ", kTraceparent);
  EXPECT_THAT(front.Call(kWho, traced, ""), IsOkAndHolds(its_own));
  // The next call on the connection has none of it.
  EXPECT_THAT(front.Call(kWho, ""), IsOkAndHolds("who: "));
  EXPECT_THAT(front.Call(kNested, traced, "", true), IsOkAndHolds(its_own));
  EXPECT_THAT(front.Call(kNested, traced, "", false), IsOkAndHolds("who: "));
  EXPECT_THAT(front.Call(kNested, traced, "another", true),
              IsOkAndHolds("who: another"));
  EXPECT_THAT(front.Call(kNested, "", true), IsOkAndHolds("who: "));
  EXPECT_THAT(front.Stop(), IsOk());
  EXPECT_THAT(back.Stop(), IsOk());
}

TEST_F(InterceptorTest, ATraceIdHas128BytesAtMost) {
  InterceptedServer server(Shared({"none"}));
  ASSERT_THAT(server.Start(), IsOk());
  CallOptions options;
  options.trace_id = std::string(128, '\0');
  EXPECT_THAT(server.Call(kWho, options, ""),
              IsOkAndHolds("who: " + options.trace_id));
  // Behind a large message, too.
  EXPECT_THAT(server.Call(kWho, options, std::string(1'000'000, 'x')),
              IsOkAndHolds("who: " + options.trace_id));
  options.trace_id += 'x';
  EXPECT_THAT(server.Call(kWho, options, ""),
              FailsWith(reason::kInvalidArguments, "128 bytes, not 129"));
  EXPECT_THAT(server.Call(kSum, options), FailsWith(reason::kInvalidArguments));
  EXPECT_THAT(server.Call(kWho, ""), IsOkAndHolds("who: "));
  EXPECT_THAT(server.Stop(), IsOk());
}

// By the client's interceptors, where its caller has given none.
TEST_F(InterceptorTest, ATraceMayBeginBeforeACall) {
  InterceptedServer server(Shared({"none"}));
  ASSERT_THAT(server.Start(), IsOk());
  const auto trace = std::make_shared<Around>();
  trace->before = [](CallInfo& call) {
    if (call.trace_id.empty()) call.trace_id = "begun here";
    return absl::OkStatus();
  };
  InterceptedServer other(Calling({trace}));
  EXPECT_THAT(other.Call(kWho, ""), IsOkAndHolds("who: begun here"));
  CallOptions options;
  options.trace_id = "before";
  EXPECT_THAT(other.Call(kWho, options, ""), IsOkAndHolds("who: before"));
  EXPECT_THAT(server.Stop(), IsOk());
}

// Its context says what it said, when the request and the channel are gone.
TEST_F(InterceptorTest, AHandlerMayDoAwayWithAllThatItIsGiven) {
  InterceptedServer server(Shared({"none"}));
  ASSERT_THAT(server.Start(), IsOk());
  CallOptions options;
  options.trace_id = kTraceparent;
  EXPECT_THAT(server.Call(Method<std::string, void>{"takes all"}, options,
                          std::string(1'000'000, 'x')),
              IsOk());
  EXPECT_EQ(AwaitNotes(), absl::StrCat("takes all: ", kTraceparent, "\n"));
  EXPECT_THAT(server.Stop(), IsOk());
}

}  // namespace
}  // namespace ward
