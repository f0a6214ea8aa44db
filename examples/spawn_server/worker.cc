#include "ward/examples/spawn_server/worker.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "absl/status/statusor.h"
#include "ward/channel/secret.h"
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

Worker::Worker(std::shared_ptr<const Application> application)
    : application_(std::move(application)) {
  Define(kIsPrime, [this](uint32_t number) {
    return absl::StatusOr<bool>(application_->IsPrime(number));
  });
  Define(kIdentify, [this]() -> absl::StatusOr<std::tuple<std::string, int>> {
    return std::make_tuple(application_->load_id(),
                           static_cast<int>(server_pid()));
  });
}
