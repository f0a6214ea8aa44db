#include "ward/examples/spawn_server/worker.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"

std::shared_ptr<const Application> Application::Load() {
  constexpr size_t kNumbers = 200'000;
  auto application = std::make_shared<Application>();
  std::vector<bool>& sieve = application->sieve_;
  sieve.assign(kNumbers, true);
  sieve[0] = sieve[1] = false;
  for (size_t i = 2; i * i < kNumbers; ++i) {
    if (!sieve[i]) continue;
    for (size_t j = i * i; j < kNumbers; j += i) sieve[j] = false;
  }
  application->load_id_ =
      std::string(ward::Secret::Generate().value().Expose());
  return application;
}

Worker::Worker(std::shared_ptr<const Application> application, std::string name)
    : application_(std::move(application)), name_(std::move(name)) {
  DefineMessageHandler("is_prime", [this](uint32_t number) {
    return absl::StatusOr<bool>(application_->IsPrime(number));
  });
  DefineMessageHandler("identify", [this](ward::MessageChannel& channel) {
    return channel.Write(name_, application_->load_id(), server_pid());
  });
}

absl::StatusOr<bool> Worker::IsPrime(uint32_t number) {
  bool prime = false;
  WARD_RETURN_IF_ERROR(
      Connect([&](ward::MessageChannel& channel) -> absl::Status {
        WARD_RETURN_IF_ERROR(channel.Write("is_prime", number));
        WARD_ASSIGN_OR_RETURN(ward::Message reply, channel.Read());
        WARD_ASSIGN_OR_RETURN(std::tie(prime), reply.Unpack<bool>());
        return absl::OkStatus();
      }));
  return prime;
}

absl::StatusOr<Worker::Identity> Worker::Identify() {
  Identity identity;
  WARD_RETURN_IF_ERROR(
      Connect([&](ward::MessageChannel& channel) -> absl::Status {
        WARD_RETURN_IF_ERROR(channel.Write("identify"));
        WARD_ASSIGN_OR_RETURN(ward::Message reply, channel.Read());
        WARD_ASSIGN_OR_RETURN(
            std::tie(identity.name, identity.load_id, identity.pid),
            (reply.Unpack<std::string, std::string, int>()));
        return absl::OkStatus();
      }));
  return identity;
}
