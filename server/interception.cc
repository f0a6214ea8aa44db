#include "ward/server/interception.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "ward/channel/error.h"
#include "ward/server/environment.h"
#include "ward/server/interceptor.h"
#include "ward/server/user_code.h"

namespace ward {

std::shared_ptr<Interceptors> Interceptors::Make(
    std::vector<std::shared_ptr<Interceptor>> all) {
  if (all.empty()) return nullptr;
  auto interceptors = std::make_shared<Interceptors>();
  interceptors->all = std::move(all);
  return interceptors;
}

Interception::Interception(std::shared_ptr<Interceptors> interceptors,
                           Environment& environment, CallInfo call)
    : interceptors_(std::move(interceptors)),
      environment_(environment),
      begin_(environment.TimeNow()),
      call_(std::move(call)) {}

Interception::~Interception() {
  if (asked_ == 0) return;
  End(MakeError(reason::kCallCancelled, "the call was left before its end"));
}

absl::Status Interception::Begin() {
  for (const std::shared_ptr<Interceptor>& interceptor : interceptors_->all) {
    ++asked_;
    absl::Status status = CallUserCode(
        "Interceptor::Before", [&] { return interceptor->Before(call_); });
    if (status.ok()) continue;
    End(status);
    return status;
  }
  return absl::OkStatus();
}

void Interception::End(const absl::Status& result) {
  if (asked_ == 0) return;
  call_.result = result;
  call_.duration = environment_.TimeNow() - begin_;
  while (asked_ > 0) {
    Interceptor& interceptor = *interceptors_->all[--asked_];
    const absl::Status status = CallUserCode("Interceptor::After", [&] {
      interceptor.After(call_);
      return absl::OkStatus();
    });
    if (!status.ok()) {
      interceptors_->failures.Log(environment_, status.ToString());
    }
  }
}

}  // namespace ward
