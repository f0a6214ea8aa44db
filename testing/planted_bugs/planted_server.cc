#include "ward/testing/planted_bugs/planted_server.h"

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/environment.h"

namespace ward::testing {
namespace {

ServerOptions Options() {
  ServerOptions options;
  // A server that hangs is to be out of the way soon.
  options.drain_time = absl::Milliseconds(100);
  options.stop.kill_after = absl::Milliseconds(600);
  return options;
}

absl::Status Send(MessageChannel& channel, std::string_view name,
                  std::initializer_list<std::string_view> arguments) {
  const std::string_view* const argument = arguments.begin();
  switch (arguments.size()) {
    case 0:
      return channel.Write(name);
    case 1:
      return channel.Write(name, argument[0]);
    default:
      return channel.Write(name, argument[0], argument[1]);
  }
}

}  // namespace

PlantedServer::PlantedServer(const Trial& trial)
    : AbstractServer(Options()), trial_(trial) {
  // Without NDEBUG Abseil would end the process when locks are taken in two
  // orders, whether or not that is a deadlock this time.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

absl::StatusOr<int> PlantedServer::Call(
    std::string_view name, std::initializer_list<std::string_view> arguments) {
  int answer = 0;
  WARD_RETURN_IF_ERROR(Connect([&](MessageChannel& channel) -> absl::Status {
    channel.set_timeout(trial_.patience);
    WARD_RETURN_IF_ERROR(Send(channel, name, arguments));
    WARD_ASSIGN_OR_RETURN(const Message reply, channel.Read());
    if (reply.size() == 1 && absl::SimpleAtoi(reply[0], &answer)) {
      return absl::OkStatus();
    }
    return absl::InternalError(absl::StrCat("no number came from ", name));
  }));
  return answer;
}

absl::Status PlantedServer::AtOnce(
    const std::vector<std::function<absl::Status()>>& calls) {
  std::vector<absl::Status> results(calls.size());
  {
    std::vector<std::unique_ptr<Thread>> threads;
    for (size_t i = 1; i < calls.size(); ++i) {
      WARD_ASSIGN_OR_RETURN(std::unique_ptr<Thread> thread,
                            environment().StartThread([&calls, &results, i] {
                              results[i] = calls[i]();
                            }));
      threads.push_back(std::move(thread));
    }
    results[0] = calls[0]();
  }
  absl::Status status;
  for (const absl::Status& result : results) status.Update(result);
  return status;
}

absl::Status Expect(bool holds, std::string_view otherwise) {
  return holds ? absl::OkStatus() : absl::InternalError(otherwise);
}

}  // namespace ward::testing
