// That a running server has the descriptors that docs/architecture.md lists.

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/server/abstract_server.h"
#include "ward/server/method.h"
#include "ward/server/server_for_test.h"
#include "ward/testing/matchers.h"

namespace {

using ::ward::testing::IsOk;

inline constexpr ward::Method<void, std::string> kDescriptors{"descriptors"};

std::string KindOfSocket(int descriptor) {
  int listens = 0;
  socklen_t size = sizeof(listens);
  getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
  if (listens != 0) return "socket that listens";
  sockaddr_un name{};
  size = sizeof(name);
  getsockname(descriptor, reinterpret_cast<sockaddr*>(&name), &size);
  // An accepted one has the name of the one that listens.
  return size > sizeof(name.sun_family) ? "client's socket"
                                        : "end of a socket pair";
}

// As /proc has it, of all but 0, 1 and 2: "anon_inode:[eventfd]", ...
std::string KindOf(int descriptor, const std::string& link) {
  if (absl::StartsWith(link, "socket:")) return KindOfSocket(descriptor);
  if (absl::StartsWith(link, "/") && link != "/dev/null") {
    return "name of the socket";
  }
  std::string_view kind = link;
  if (absl::ConsumePrefix(&kind, "anon_inode:[")) {
    absl::ConsumeSuffix(&kind, "]");
  }
  return std::string(kind);
}

class ObservedServer : public ward::AbstractServer {
 public:
  ObservedServer() {
    Define(kDescriptors, []() -> absl::StatusOr<std::string> {
      std::vector<std::string> kinds;
      for (const auto& [number, link] : ward::DescriptorsOf(getpid())) {
        if (number > 2) kinds.push_back(KindOf(number, link));
      }
      return absl::StrJoin(kinds, "\n");
    });
  }
};

// The table's rows: | kind | how many | what for |
std::map<std::string, int> OnThePage() {
  const std::ifstream file("docs/architecture.md");
  std::ostringstream page;
  page << file.rdbuf();
  const std::string text = page.str();
  std::map<std::string, int> counts;
  for (const std::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<std::string> cells = absl::StrSplit(line, " | ");
    int count = 0;
    if (cells.size() == 3 && absl::SimpleAtoi(cells[1], &count)) {
      counts[std::string(absl::StripPrefix(cells[0], "| "))] = count;
    }
  }
  return counts;
}

std::map<std::string, int> Descriptors(ObservedServer& server) {
  EXPECT_THAT(server.Start(), IsOk());
  const absl::StatusOr<std::string> kinds = server.Call(kDescriptors);
  EXPECT_THAT(kinds, IsOk());
  std::map<std::string, int> counts;
  for (const std::string_view kind : absl::StrSplit(kinds.value_or(""), '\n')) {
    // What the owner had open under these numbers (SECURITY.md).
    if (kind != "/dev/null") ++counts[std::string(kind)];
  }
  // There once a client has been slow, as this one may be.
  counts.erase("timerfd");
  EXPECT_THAT(server.Stop(), IsOk());
  return counts;
}

TEST(RunningServer, HasTheDescriptorsOfThePage) {
  ObservedServer server;
  EXPECT_EQ(Descriptors(server), OnThePage());
}

TEST(RunningServer, HasTwoMoreWhereItHandlesSignals) {
  struct SignalledServer : ObservedServer {
    SignalledServer() {
      DefineSignalHandler(SIGUSR1, [] {});
    }
  } server;
  std::map<std::string, int> expected = OnThePage();
  ++expected["eventpoll"];
  ++expected["eventfd"];
  EXPECT_EQ(Descriptors(server), expected);
}

}  // namespace
