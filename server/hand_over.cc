#include "ward/server/hand_over.h"

#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ward/channel/channel_limits.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/server/confinement.h"
#include "ward/server/hand_over.pb.h"
#include "ward/server/lifecycle.h"
#include "ward/server/listener.h"
#include "ward/server/server_options.h"

namespace ward {
namespace {

// ToInt64Nanoseconds makes the most of what is infinite.
absl::Duration FromNumber(int64_t nanoseconds) {
  return nanoseconds == std::numeric_limits<int64_t>::max()
             ? absl::InfiniteDuration()
             : absl::Nanoseconds(nanoseconds);
}

void Put(const ChannelLimits& limits, proto::Limits& out) {
  out.set_max_frame_bytes(limits.max_frame_bytes);
  out.set_max_parts(limits.max_parts);
  out.set_max_descriptors(limits.max_descriptors);
  out.set_max_bulk_bytes(limits.max_bulk_bytes);
}

ChannelLimits Get(const proto::Limits& limits) {
  return {limits.max_frame_bytes(), limits.max_parts(),
          limits.max_descriptors(), limits.max_bulk_bytes()};
}

void Put(const Confinement& confinement, proto::Confinement& out) {
  if (confinement.user.has_value()) {
    proto::Confinement::User& user = *out.mutable_user();
    user.set_user(confinement.user->user);
    user.set_group(confinement.user->group);
    for (const gid_t group : confinement.user->groups) user.add_groups(group);
  }
  for (const int capability : confinement.capabilities) {
    out.add_capabilities(capability);
  }
  for (const ResourceLimit& limit : confinement.limits) {
    proto::Confinement::ResourceLimit& added = *out.add_limits();
    added.set_resource(limit.resource);
    added.set_most(limit.most);
  }
  if (confinement.paths.has_value()) {
    const AllowedPaths& given = *confinement.paths;
    proto::Confinement::Paths& paths = *out.mutable_paths();
    for (const std::string& path : given.readable) paths.add_readable(path);
    for (const std::string& path : given.writable) paths.add_writable(path);
    for (const std::string& path : given.executable) paths.add_executable(path);
    paths.set_least_landlock_abi(given.least_landlock_abi);
  }
  if (confinement.system_calls.has_value()) {
    proto::Confinement::SystemCalls& calls = *out.mutable_system_calls();
    for (const long number : confinement.system_calls->also) {
      calls.add_also(number);
    }
    calls.set_when_denied(
        static_cast<int32_t>(confinement.system_calls->when_denied));
  }
}

Confinement Get(const proto::Confinement& in) {
  Confinement confinement;
  if (in.has_user()) {
    confinement.user = {in.user().user(),
                        in.user().group(),
                        {in.user().groups().begin(), in.user().groups().end()}};
  }
  confinement.capabilities = {in.capabilities().begin(),
                              in.capabilities().end()};
  for (const proto::Confinement::ResourceLimit& limit : in.limits()) {
    confinement.limits.push_back({limit.resource(), limit.most()});
  }
  if (in.has_paths()) {
    const proto::Confinement::Paths& paths = in.paths();
    confinement.paths = {{paths.readable().begin(), paths.readable().end()},
                         {paths.writable().begin(), paths.writable().end()},
                         {paths.executable().begin(), paths.executable().end()},
                         paths.least_landlock_abi()};
  }
  if (in.has_system_calls()) {
    const proto::Confinement::SystemCalls& calls = in.system_calls();
    confinement.system_calls = {
        {calls.also().begin(), calls.also().end()},
        static_cast<AllowedSystemCalls::WhenDenied>(calls.when_denied())};
  }
  return confinement;
}

}  // namespace

absl::Status WriteHandOver(MessageChannel& channel,
                           const ServerOptions& options,
                           bool ignore_password_errors,
                           const ListenerParts& listener, uint64_t owners_end) {
  proto::HandOver out;
  out.set_path(listener.path);
  out.set_private_directory(listener.private_directory);
  out.set_owners_end(owners_end);
  out.set_max_clients(options.max_clients);
  out.set_max_waiting_clients(options.max_waiting_clients);
  out.set_queue_timeout(absl::ToInt64Nanoseconds(options.queue_timeout));
  out.set_max_clients_per_process(options.max_clients_per_process);
  out.set_max_clients_per_user(options.max_clients_per_user);
  out.set_call_timeout(absl::ToInt64Nanoseconds(options.call_timeout));
  out.set_idle_timeout(absl::ToInt64Nanoseconds(options.idle_timeout));
  out.set_spin_time(absl::ToInt64Nanoseconds(options.spin_time));
  out.set_authentication_timeout(
      absl::ToInt64Nanoseconds(options.authentication_timeout));
  out.set_drain_time(absl::ToInt64Nanoseconds(options.drain_time));
  out.set_start_timeout(absl::ToInt64Nanoseconds(options.launch.start_timeout));
  out.set_kill_after(absl::ToInt64Nanoseconds(options.stop.kill_after));
  Put(options.first_message_limits, *out.mutable_first_message_limits());
  Put(options.limits, *out.mutable_limits());
  out.set_max_buffered_bytes(options.max_buffered_bytes);
  for (const std::string& argument : options.arguments) {
    out.add_arguments(argument);
  }
  if (options.confinement.has_value()) {
    Put(*options.confinement, *out.mutable_confinement());
  }
  out.set_admits_peers(options.admit_peer != nullptr);
  out.set_has_interceptors(!options.interceptors.empty());
  out.set_ignore_password_errors(ignore_password_errors);
  WARD_ASSIGN_OR_RETURN(const FileDescriptor password,
                        options.password.Share());
  return channel.Write(kHandOverName, out, listener.name, listener.socket,
                       password);
}

absl::StatusOr<HandOver> ReadHandOver(MessageChannel& channel) {
  WARD_ASSIGN_OR_RETURN(Message message, channel.Read());
  WARD_ASSIGN_OR_RETURN(
      auto parts, (message.UnpackArguments<proto::HandOver, FileDescriptor,
                                           FileDescriptor, FileDescriptor>()));
  auto& [in, name, socket, password] = parts;
  HandOver given;
  WARD_ASSIGN_OR_RETURN(given.options.password, Secret::Adopt(password));
  given.owners_end = in.owners_end();
  given.listener = {in.path(), in.private_directory(), std::move(name),
                    std::move(socket)};
  given.admits_peers = in.admits_peers();
  given.has_interceptors = in.has_interceptors();
  given.ignore_password_errors = in.ignore_password_errors();
  ServerOptions& options = given.options;
  options.socket_filename = in.path();
  options.max_clients = in.max_clients();
  options.max_waiting_clients = in.max_waiting_clients();
  options.queue_timeout = FromNumber(in.queue_timeout());
  options.max_clients_per_process = in.max_clients_per_process();
  options.max_clients_per_user = in.max_clients_per_user();
  options.call_timeout = FromNumber(in.call_timeout());
  options.idle_timeout = FromNumber(in.idle_timeout());
  options.spin_time = FromNumber(in.spin_time());
  options.authentication_timeout = FromNumber(in.authentication_timeout());
  options.drain_time = FromNumber(in.drain_time());
  options.launch.start_timeout = FromNumber(in.start_timeout());
  options.stop.kill_after = FromNumber(in.kill_after());
  options.first_message_limits = Get(in.first_message_limits());
  options.limits = Get(in.limits());
  options.max_buffered_bytes = in.max_buffered_bytes();
  options.arguments = {in.arguments().begin(), in.arguments().end()};
  if (in.has_confinement()) options.confinement = Get(in.confinement());
  return given;
}

}  // namespace ward
