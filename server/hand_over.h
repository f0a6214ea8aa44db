// What an owner tells a server that it starts by exec: see hand_over.proto.

#ifndef WARD_SERVER_HAND_OVER_H_
#define WARD_SERVER_HAND_OVER_H_

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/message_channel.h"
#include "ward/server/lifecycle.h"
#include "ward/server/listener.h"
#include "ward/server/server_options.h"

namespace ward {

// The message's name; a transcript shows no more of it.
inline constexpr std::string_view kHandOverName = "ward.hand_over";

struct HandOver {
  ServerOptions options;
  bool admits_peers = false;
  bool has_interceptors = false;
  bool ignore_password_errors = false;
  ListenerParts listener;
  // Environment::SocketId of the owner's end.
  uint64_t owners_end = 0;
};

absl::Status WriteHandOver(MessageChannel& channel,
                           const ServerOptions& options,
                           bool ignore_password_errors,
                           const ListenerParts& listener, uint64_t owners_end);

absl::StatusOr<HandOver> ReadHandOver(MessageChannel& channel);

}  // namespace ward

#endif  // WARD_SERVER_HAND_OVER_H_
