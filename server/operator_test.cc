// What the operator of a server sees of it: its log, and its threads' names.

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/log_severity.h"
#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/error.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"
#include "ward/server/log.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"

namespace ward {
namespace {

using testing::CallServer;
using testing::FailsWith;
using testing::IsOk;

using ::testing::HasSubstr;
using ::testing::SizeIs;

int log_end = -1;

void WriteToLogEnd(absl::LogSeverity severity, std::string_view line) {
  WriteAll(log_end, absl::StrCat(absl::LogSeverityName(severity), " ", line));
}

TEST(SetLogFunction, GetsTheLinesOfThisProcessAndItsForks) {
  const Pipe pipe = MakePipe();
  log_end = pipe.write.get();
  SetLogFunction(&WriteToLogEnd);
  const absl::Cleanup restore = [] { SetLogFunction(nullptr); };
  Environment::Posix().Log(absl::LogSeverity::kError, "of this process");
  EXPECT_EQ(ReadSome(pipe.read.get()), "ERROR of this process");

  ServerOptions options;
  options.launch.fork.keep_open = {log_end};
  TestServer server(std::move(options));
  ASSERT_THAT(server.Start(), IsOk());
  ServerOptions others;
  others.socket_filename = server.socket_filename();
  others.password = Secret("another password");
  TestServer stranger(std::move(others));
  EXPECT_THAT(CallServer(stranger, "echo", "x"),
              FailsWith(reason::kInvalidPassword));
  EXPECT_EQ(ReadSome(pipe.read.get()),
            absl::StrCat("WARNING wrong password from process ", getpid(),
                         " of user ", geteuid(), " (number 1)"));
  EXPECT_THAT(server.Stop(), IsOk());
}

// As gdb, top and ps show them.
std::string ThreadNames() {
  std::vector<std::string> names;
  for (const auto& thread :
       std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(thread.path() / "comm");
    names.emplace_back();
    std::getline(file, names.back());
  }
  return absl::StrCat(absl::StrJoin(names, ";"), ";");
}

TEST(NameThread, ThreadsHaveTheNamesOfTheirClientsProcesses) {
  TestServer server;
  server.DefineMessageHandler("names", [](MessageChannel& channel) {
    return channel.Write(ThreadNames());
  });
  ASSERT_THAT(server.Start(), IsOk());
  const std::string own = absl::StrCat("ward ", getpid(), ";");
  EXPECT_THAT(server.Connect([&](MessageChannel& holder) -> absl::Status {
    WARD_RETURN_IF_ERROR(holder.Write("hold"));
    WARD_RETURN_IF_ERROR(holder.Read().status());
    WARD_ASSIGN_OR_RETURN(const Message reply, CallServer(server, "names"));
    // The holder's, and that of who asks.
    const std::vector<std::string> around = absl::StrSplit(reply[0], own);
    EXPECT_THAT(around, SizeIs(3)) << reply[0];
    return absl::OkStatus();
  }),
              IsOk());
  Child other([&] {
    const absl::StatusOr<Message> reply = CallServer(server, "names");
    EXPECT_THAT(reply, IsOk());
    EXPECT_THAT((*reply)[0], HasSubstr(absl::StrCat("ward ", getpid(), ";")));
    return HasFailure() ? 1 : 0;
  });
  EXPECT_EQ(other.Wait(), 0);
  EXPECT_THAT(server.Stop(), IsOk());
}

}  // namespace
}  // namespace ward
