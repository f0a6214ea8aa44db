// The examples of the headers in server/, docs/confinement.md and
// docs/names.md, so that they compile.

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/abstract_server.h"
#include "ward/server/abstract_server_collection.h"
#include "ward/server/async_client.h"
#include "ward/server/call_context.h"
#include "ward/server/cancellation.h"
#include "ward/server/client.h"
#include "ward/server/confinement.h"
#include "ward/server/environment.h"
#include "ward/server/interceptor.h"
#include "ward/server/method.h"
#include "ward/server/owner_handle.h"
#include "ward/server/publisher.h"
#include "ward/server/signals.h"
#include "ward/server/stream.h"
#include "ward/server/supervisor.h"

namespace server_headers {

// In the place of protobuf messages.
using FindRequest = std::string;
using FindReply = std::string;

// --- abstract_server.h ---

class HelloServer : public ward::AbstractServer {
 public:
  HelloServer() { DefineMessageHandler("hello", &HelloServer::HandleHello); }

  absl::Status Hello(std::string_view name) {
    return Connect([&](ward::MessageChannel& channel) -> absl::Status {
      WARD_RETURN_IF_ERROR(channel.Write("hello", name));
      WARD_ASSIGN_OR_RETURN(ward::Message reply, channel.Read());
      return absl::OkStatus();
    });
  }

 private:
  absl::Status HandleHello(ward::MessageChannel& channel,
                           std::string_view name) {
    return channel.Write(absl::StrCat("Hello ", name, ", how are you?"));
  }
};

absl::Status StartAndStop() {
  HelloServer server;
  WARD_RETURN_IF_ERROR(server.Start());  // forks
  WARD_RETURN_IF_ERROR(server.Hello("Joe"));
  WARD_RETURN_IF_ERROR(server.Stop());
  return absl::OkStatus();
}

// --- abstract_server_collection.h ---

absl::Status LookUp(const std::string& path) {
  ward::AbstractServerCollection<std::string, HelloServer> servers;

  WARD_ASSIGN_OR_RETURN(
      std::shared_ptr<HelloServer> server,
      servers.LookupOrAdd(
          path, [&]() -> absl::StatusOr<std::unique_ptr<HelloServer>> {
            auto made = std::make_unique<HelloServer>();
            made->set_max_idle_time(absl::Minutes(5));
            WARD_RETURN_IF_ERROR(made->Start());
            return made;
          }));
  WARD_RETURN_IF_ERROR(server->Hello("Joe"));
  return absl::OkStatus();
}

// --- call_context.h ---

namespace call_context {

class Store {
 public:
  absl::Status Watch(const ward::CallContext& context,
                     ward::MessageChannel& channel) {
    absl::MutexLock lock(&mutex_);
    if (!context.Await(mutex_, absl::Condition(this, &Store::Changed))) {
      return absl::CancelledError("given up");
    }
    return channel.Write("changed");
  }

 private:
  bool Changed() const { return changed_; }

  absl::Mutex mutex_;
  bool changed_ = false;
};

}  // namespace call_context

// --- cancellation.h ---

constexpr ward::Method<std::string, int64_t> kCompute{"compute"};

absl::Status Cancel(ward::Client& store, const std::string& request) {
  ward::Cancellation cancellation;
  ward::CallOptions options;
  options.cancellation = &cancellation;
  auto result = store.Call(kCompute, options, request);  // on one thread
  cancellation.Cancel();  // on another: the call returns
  return result.status();
}

// --- confinement.h ---

constexpr uid_t kBrokerUser = 1234;
constexpr gid_t kBrokerGroup = 5678;

void Confine(ward::ServerOptions& options) {
  ward::Confinement confinement;
  confinement.user = {kBrokerUser, kBrokerGroup, {}};
  confinement.paths.emplace().readable = {"/srv/files"};
  confinement.system_calls.emplace().also = {SYS_openat2};
  options.confinement = std::move(confinement);  // ServerOptions
}

// --- docs/confinement.md ---

class Broker : public ward::AbstractServer {
 public:
  explicit Broker(ward::ServerOptions options)
      : AbstractServer(Confined(std::move(options))) {}

  static ward::ServerOptions Confined(ward::ServerOptions options) {
    ward::Confinement confinement;
    confinement.user = {kBrokerUser, kBrokerGroup, {}};
    confinement.limits = {{RLIMIT_CORE, 0}};
    confinement.paths.emplace().readable = {"/srv/files"};
    confinement.system_calls.emplace().also = {SYS_openat2};
    options.confinement = std::move(confinement);
    return options;
  }
};

// --- docs/names.md ---

void Trust(ward::ServerOptions& options, uid_t camera) {
  options.trust_server = [camera](const ward::PeerCredentials& server) {
    return server.uid == camera;
  };
}

// --- interceptor.h ---

void LogLine(const std::string& method, const absl::Status& result,
             absl::Duration duration);

class Log : public ward::Interceptor {
 public:
  void After(const ward::CallInfo& call) override {
    LogLine(absl::CHexEscape(call.method), call.result, call.duration);
  }
};

void Intercept() {
  ward::ServerOptions options;
  options.interceptors = {std::make_shared<Log>()};
}

// --- message_handler.h ---

namespace message_handler {

using ::ward::FileDescriptor;
using Request = FindRequest;
using Reply = FindReply;

class Handlers : public ward::AbstractServer {
 public:
  Handlers() {
    DefineMessageHandler("hello", &Handlers::Hello);
    DefineMessageHandler("find", &Handlers::Find);
    DefineMessageHandler("log", &Handlers::Log);
    DefineMessageHandler("anything", &Handlers::Anything);
    DefineMessageHandler("watch", &Handlers::Watch);
  }

 private:
  absl::Status Hello(ward::MessageChannel&, std::string_view name, int age);
  absl::StatusOr<Reply> Find(const Request& request);  // protobufs
  absl::Status Log(FileDescriptor where, std::string line);
  absl::Status Anything(ward::MessageChannel&, ward::Message message);

  absl::Status Watch(const ward::CallContext&, ward::MessageChannel&);
};

}  // namespace message_handler

// --- method.h, async_client.h, client.h ---

inline constexpr ward::Method<FindRequest, FindReply> kFind{"find"};
inline constexpr ward::Method<ward::Arguments<std::string, int>, std::string>
    kHello{"hello"};

class Store : public ward::AbstractServer {
 public:
  Store() { Define(kFind, &Store::Find); }

 private:
  absl::StatusOr<FindReply> Find(const FindRequest& request);
};

absl::Status Find(Store& store, const FindRequest& request) {
  absl::StatusOr<FindReply> reply = store.Call(kFind, request);
  return reply.status();
}

void Show(absl::StatusOr<FindReply> reply);

absl::Status FindWithACallback(Store& store, const FindRequest& request) {
  WARD_ASSIGN_OR_RETURN(auto calls, ward::AsyncClient::Create(store));
  calls->StartCall(kFind, request).Then([](absl::StatusOr<FindReply> reply) {
    Show(std::move(reply));
  });
  // Whenever calls->descriptor() is readable (poll(2), epoll(7)):
  calls->Progress();
  return absl::OkStatus();
}

void PollForReading(int descriptor);

absl::Status FindWithout(const std::unique_ptr<ward::AsyncClient>& calls,
                         const FindRequest& request) {
  ward::PendingCall<FindReply> call = calls->StartCall(kFind, request);
  while (!call.Done()) PollForReading(call.descriptor());
  absl::StatusOr<FindReply> reply = call.Result();
  return reply.status();
}

absl::Status FindElsewhere(const std::string& path, ward::Secret password,
                           const FindRequest& request) {
  ward::Client store({path, std::move(password)});
  absl::StatusOr<FindReply> reply = store.Call(kFind, request);
  return reply.status();
}

// --- owner_handle.h ---

inline constexpr ward::Method<void, ward::OwnerHandle> kShare{"share"};

class Owner : public ward::AbstractServer {
 public:
  Owner() {
    // In an owner, which is a server here:
    Define(kShare, [this] { return hello_.ShareOwnership(); });
  }

 private:
  HelloServer hello_;
};

absl::Status Adopt(ward::Client& owner) {
  // In the other process:
  WARD_ASSIGN_OR_RETURN(ward::OwnerHandle handle, owner.Call(kShare));
  HelloServer server;
  WARD_RETURN_IF_ERROR(server.Adopt(std::move(handle)));
  WARD_RETURN_IF_ERROR(server.Hello("Joe"));  // a client, and an owner
  return absl::OkStatus();
}

// --- publisher.h ---

namespace publisher {

using Door = std::string;

inline constexpr ward::Method<void, ward::Stream<Door>> kWatch{"watch"};

class Doors : public ward::AbstractServer {
 public:
  Doors() { Define(kWatch, &Doors::Watch); }

 private:
  absl::Status Watch(const ward::CallContext& context,
                     ward::StreamWriter<Door>& doors) {
    return opened_.Serve(context, doors);
  }
  void Opens(const Door& door) { opened_.Publish(door); }  // Any thread.

  ward::Publisher<Door> opened_;
};

}  // namespace publisher

// --- signals.h ---

std::array<pollfd, 1> Readable(int descriptor);
void Handle(int signal);

absl::Status Receive(ward::Environment& environment) {
  WARD_ASSIGN_OR_RETURN(
      auto signals, environment.TakeSignals({{SIGTERM, SIGUSR1}, {SIGHUP}}));
  poll(Readable(signals->descriptor()).data(), 1, /*timeout=*/-1);
  while (const int signal = signals->Next()) {
    Handle(signal);
  }  // ordinary code
  return absl::OkStatus();
}

// --- stream.h ---

namespace stream {

using Event = std::string;

void Use(const Event& event);

inline constexpr ward::Method<std::string, ward::Stream<Event>> kWatch{"watch"};
inline constexpr ward::Method<ward::Stream<int64_t>, int64_t> kSum{"sum"};

// The handlers:
absl::Status Watch(const std::string& what, ward::StreamWriter<Event>& events);
absl::StatusOr<int64_t> Sum(ward::StreamReader<int64_t>& numbers) {
  int64_t sum = 0;
  while (const std::optional<int64_t> number = numbers.Next()) {
    sum += *number;
  }
  WARD_RETURN_IF_ERROR(numbers.status());
  return sum;
}

absl::StatusOr<int64_t> CallBoth(ward::Client& server,
                                 const std::vector<int64_t>& all) {
  // The calls:
  WARD_ASSIGN_OR_RETURN(auto events, server.Call(kWatch, "doors"));
  while (const std::optional<Event> event = events.Next()) {
    Use(*event);
  }
  WARD_RETURN_IF_ERROR(events.status());

  WARD_ASSIGN_OR_RETURN(auto numbers, server.Call(kSum));
  for (const int64_t number : all) {
    WARD_RETURN_IF_ERROR(numbers.Write(number));
  }
  WARD_ASSIGN_OR_RETURN(const int64_t sum, numbers.Finish());
  return sum;
}

}  // namespace stream

// --- supervisor.h ---

void Tell(const absl::Status& how, std::optional<absl::Duration> again_in);

absl::Status Supervise(ward::AbstractServer& server,
                       const ward::Pollable& quit) {
  ward::SupervisorOptions options;
  options.on_exit = [](const absl::Status& how,
                       std::optional<absl::Duration> again_in) {
    Tell(how, again_in);
  };
  ward::Supervisor supervisor(server, std::move(options));
  absl::Status status = supervisor.Run(quit);
  return status;
}

}  // namespace server_headers
