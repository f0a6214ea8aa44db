// A share in a server's ownership, as a value.
//
//   inline constexpr ward::Method<void, ward::OwnerHandle> kShare{"share"};
//
//   // In an owner, which is a server here:
//   Define(kShare, [this] { return hello_.ShareOwnership(); });
//
//   // In the other process:
//   WARD_ASSIGN_OR_RETURN(ward::OwnerHandle handle, owner.Call(kShare));
//   HelloServer server;
//   WARD_RETURN_IF_ERROR(server.Adopt(std::move(handle)));
//   WARD_RETURN_IF_ERROR(server.Hello("Joe"));   // a client, and an owner
//
// It holds an owner's end of the server's socket pair: while it exists, the
// server runs. With it are the server's address and password, and what it takes
// to wait for the server's end and to remove its socket's name after that.
//
// Misuse:
// - Sending it to somebody who shall not stop the server: an owner may.
// - Taking one from somebody who is not trusted: whoever has made the server
//   can answer as he likes. He cannot reach beyond what is his own user's (see
//   Environment::AdoptProcess).

#ifndef WARD_SERVER_OWNER_HANDLE_H_
#define WARD_SERVER_OWNER_HANDLE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/server/listener.h"

namespace ward {

// Move-only; destroying it gives the share up.
class OwnerHandle {
 public:
  // A share in nothing.
  OwnerHandle() = default;

  // One more share. kDescriptorTableFull.
  absl::StatusOr<OwnerHandle> Duplicate() const;

  // Sends one more share; the receiver's, whatever becomes of this one, from
  // the moment this returns.
  absl::Status WriteTo(MessageChannel& channel) const;

  // kInvalidArguments if what came is no handle. See MessageChannel::Read.
  static absl::StatusOr<OwnerHandle> ReadFrom(MessageChannel& channel);

  // The same of a message that was read. It is then as it was, or its
  // descriptors belong to the result.
  static absl::StatusOr<OwnerHandle> FromMessage(Message& message);

  // Where the server listens.
  const std::string& socket_filename() const { return listener_.path; }

 private:
  friend class AbstractServer;

  FileDescriptor owners_end_;
  FileDescriptor process_;
  ListenerParts listener_;  // Without the socket.
  Secret password_;
};

}  // namespace ward

#endif  // WARD_SERVER_OWNER_HANDLE_H_
