#include "ward/benchmarks/workloads.h"

#include <sys/types.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/benchmarks/subject.h"
#include "ward/channel/status_macros.h"

namespace ward::benchmarks {
namespace {

using Clock = std::chrono::steady_clock;
using Make = std::function<std::unique_ptr<Subject>(Subject::Options)>;

// For who is not counted: one that leaves may have its place still.
constexpr int kSparePlaces = 64;

// What runs before is not measured: caches, threads and memory come to be.
constexpr int kWarmUpShare = 5;

int Places(size_t clients) { return static_cast<int>(clients) + kSparePlaces; }

absl::Status Check(const absl::Status& status, const Greeting& greeting) {
  WARD_RETURN_IF_ERROR(status);
  if (greeting.text == kGreeting && greeting.number == kNumber) {
    return absl::OkStatus();
  }
  return absl::DataLossError(
      absl::StrCat("greeted with: ", greeting.text, ", ", greeting.number));
}

template <typename Caller>
absl::Status CheckedHello(Caller& caller, Greeting& greeting) {
  return Check(caller.Hello(greeting), greeting);
}

// Calls for about `time`, at least once.
absl::StatusOr<Measurement> CallFor(absl::Duration time,
                                    absl::FunctionRef<absl::Status()> call) {
  const Clock::time_point start = Clock::now();
  const Clock::time_point end = start + absl::ToChronoNanoseconds(time);
  Measurement measured;
  Clock::time_point now;
  do {
    WARD_RETURN_IF_ERROR(call());
    ++measured.calls;
    now = Clock::now();
  } while (now < end);
  measured.value =
      std::chrono::duration<double, std::micro>(now - start).count() /
      static_cast<double>(measured.calls);
  return measured;
}

absl::StatusOr<Measurement> WarmUpAndCallFor(
    absl::Duration time, absl::FunctionRef<absl::Status()> call) {
  WARD_RETURN_IF_ERROR(CallFor(time / kWarmUpShare, call).status());
  return CallFor(time, call);
}

// So many clients that have been greeted once, and stay.
absl::StatusOr<std::vector<std::unique_ptr<Subject::Caller>>> Keep(
    Subject& subject, size_t number) {
  std::vector<std::unique_ptr<Subject::Caller>> callers;
  callers.reserve(number);
  Greeting greeting;
  while (callers.size() < number) {
    WARD_ASSIGN_OR_RETURN(auto caller, subject.Keep());
    WARD_RETURN_IF_ERROR(CheckedHello(*caller, greeting));
    callers.push_back(std::move(caller));
  }
  return callers;
}

absl::StatusOr<Measurement> MeasureHello(const Make& make, size_t idle,
                                         absl::Duration time) {
  const auto subject = make({Places(idle)});
  WARD_RETURN_IF_ERROR(subject->Start());
  WARD_ASSIGN_OR_RETURN(const auto callers, Keep(*subject, idle));
  Greeting greeting;
  return WarmUpAndCallFor(time,
                          [&] { return CheckedHello(*subject, greeting); });
}

// One request to each, in turn.
template <typename Caller>
absl::StatusOr<Measurement> InTurn(
    const std::vector<std::unique_ptr<Caller>>& callers, absl::Duration time) {
  Greeting greeting;
  // Once round, at least.
  for (const auto& caller : callers) {
    WARD_RETURN_IF_ERROR(CheckedHello(*caller, greeting));
  }
  size_t next = 0;
  return WarmUpAndCallFor(time, [&] {
    Caller& caller = *callers[next];
    next = next + 1 == callers.size() ? 0 : next + 1;
    return CheckedHello(caller, greeting);
  });
}

absl::StatusOr<Measurement> MeasureOpen(const Make& make, size_t connections,
                                        absl::Duration time) {
  const auto subject = make({Places(connections)});
  WARD_RETURN_IF_ERROR(subject->Start());
  std::vector<std::unique_ptr<Subject::Conversation>> conversations;
  while (conversations.size() < connections) {
    WARD_ASSIGN_OR_RETURN(auto conversation, subject->Converse());
    // One after the other: the queue is not for all of them.
    Greeting greeting;
    WARD_RETURN_IF_ERROR(CheckedHello(*conversation, greeting));
    conversations.push_back(std::move(conversation));
  }
  return InTurn(conversations, time);
}

absl::StatusOr<Measurement> MeasureKept(const Make& make, size_t connections,
                                        absl::Duration time) {
  const auto subject = make({Places(connections)});
  WARD_RETURN_IF_ERROR(subject->Start());
  WARD_ASSIGN_OR_RETURN(const auto callers, Keep(*subject, connections));
  return InTurn(callers, time);
}

absl::StatusOr<Measurement> MeasureDescriptor(const Make& make, size_t /*none*/,
                                              absl::Duration time) {
  const auto subject = make({});
  WARD_RETURN_IF_ERROR(subject->Start());
  WARD_ASSIGN_OR_RETURN(const auto conversation, subject->Converse());
  return WarmUpAndCallFor(time, [&] { return conversation->Descriptor(); });
}

absl::StatusOr<Measurement> MeasureScalar(const Make& make, size_t bytes,
                                          absl::Duration time) {
  Subject::Options options;
  options.scalar_bytes = bytes;
  const auto subject = make(options);
  WARD_RETURN_IF_ERROR(subject->Start());
  WARD_ASSIGN_OR_RETURN(const auto conversation, subject->Converse());
  std::string scalar;
  // All bytes once: to look at them takes longer than to receive them.
  WARD_RETURN_IF_ERROR(conversation->Scalar(scalar));
  if (scalar != std::string(bytes, kScalarByte)) {
    return absl::DataLossError("another scalar");
  }
  return WarmUpAndCallFor(time, [&]() -> absl::Status {
    WARD_RETURN_IF_ERROR(conversation->Scalar(scalar));
    if (scalar.size() == bytes && scalar.front() == kScalarByte &&
        scalar.back() == kScalarByte) {
      return absl::OkStatus();
    }
    return absl::DataLossError("another scalar");
  });
}

absl::StatusOr<Measurement> MeasureClients(const Make& make, size_t clients,
                                           absl::Duration time) {
  const auto subject = make({Places(clients)});
  WARD_RETURN_IF_ERROR(subject->Start());
  std::vector<absl::StatusOr<Measurement>> measured(clients);
  std::atomic<size_t> ready = 0;
  std::atomic<bool> begun = false;
  std::vector<std::thread> threads;
  threads.reserve(clients);
  for (absl::StatusOr<Measurement>& mine : measured) {
    threads.emplace_back([&] {
      Greeting greeting;
      const auto call = [&] { return CheckedHello(*subject, greeting); };
      mine = CallFor(time / kWarmUpShare, call);
      ++ready;
      while (!begun) std::this_thread::yield();
      if (mine.ok()) mine = CallFor(time, call);
    });
  }
  while (ready < clients) std::this_thread::yield();
  begun = true;
  for (std::thread& thread : threads) thread.join();
  Measurement all;
  std::vector<double> rates;
  double sum = 0;
  for (const absl::StatusOr<Measurement>& one : measured) {
    WARD_RETURN_IF_ERROR(one.status());
    all.calls += one->calls;
    rates.push_back(1 / one->value);
    sum += rates.back();
  }
  std::sort(rates.begin(), rates.end());
  all.value = 1 / sum;
  all.slowest = rates.front() / rates[rates.size() / 2];
  return all;
}

absl::StatusOr<Measurement> MeasureLife(const Make& make, size_t megabytes,
                                        absl::Duration time) {
  // What a fork has to copy the page tables of.
  const std::vector<char> memory(megabytes << 20, ' ');
  Greeting greeting;
  return WarmUpAndCallFor(time, [&]() -> absl::Status {
    const auto subject = make({});
    WARD_RETURN_IF_ERROR(subject->Start());
    WARD_RETURN_IF_ERROR(CheckedHello(*subject, greeting));
    return subject->Stop();
  });
}

// What a process has that is nobody else's, and its page tables.
absl::StatusOr<double> MemoryOf(pid_t process) {
  std::ifstream status(absl::StrCat("/proc/", process, "/status"));
  double bytes = 0;
  int found = 0;
  for (std::string key; status >> key;) {
    if (key != "RssAnon:" && key != "VmPTE:") continue;
    double kilobytes = 0;
    status >> kilobytes;
    bytes += kilobytes * 1024;
    ++found;
  }
  if (found != 2) return absl::NotFoundError("the server's memory");
  return bytes;
}

absl::StatusOr<Measurement> MeasureMemory(const Make& make, size_t idle,
                                          absl::Duration /*time*/) {
  const auto subject = make({Places(idle + 1)});
  WARD_RETURN_IF_ERROR(subject->Start());
  WARD_ASSIGN_OR_RETURN(const auto first, Keep(*subject, 1));
  WARD_ASSIGN_OR_RETURN(const double before, MemoryOf(subject->server_pid()));
  WARD_ASSIGN_OR_RETURN(const auto callers, Keep(*subject, idle));
  WARD_ASSIGN_OR_RETURN(const double after, MemoryOf(subject->server_pid()));
  return Measurement{(after - before) / static_cast<double>(idle),
                     static_cast<int64_t>(idle)};
}

constexpr std::array<Workload, 8> kWorkloads = {{
    {"hello", "idle clients beside it", &MeasureHello},
    {"open", "connections", &MeasureOpen},
    {"kept", "connections", &MeasureKept},
    {"descriptor", "", &MeasureDescriptor},
    {"scalar", "bytes", &MeasureScalar},
    {"clients", "threads", &MeasureClients},
    {"life", "MiB in the owner", &MeasureLife},
    {"memory", "idle clients", &MeasureMemory},
}};

}  // namespace

absl::Span<const Workload> Workloads() { return kWorkloads; }

}  // namespace ward::benchmarks
