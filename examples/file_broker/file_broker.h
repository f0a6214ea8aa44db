// A server that opens files for clients that may not open them themselves, by a
// policy, and passes them the descriptors.
//
//   ward::ServerOptions options;
//   options.arguments = {"/srv/files", "read public/*\nwrite inbox/*\n"};
//   FileBroker broker(std::move(options));
//   WARD_RETURN_IF_ERROR(broker.Start());   // with the rights to open them
//
//   // In a client:
//   WARD_ASSIGN_OR_RETURN(ward::FileDescriptor file,
//                         broker.Call(kOpen, "read", "public/index.html"));
//
// What it keeps out: see the README beside it.

#ifndef WARD_EXAMPLES_FILE_BROKER_FILE_BROKER_H_
#define WARD_EXAMPLES_FILE_BROKER_FILE_BROKER_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/examples/file_broker/policy.h"
#include "ward/server/abstract_server.h"
#include "ward/server/method.h"

// A mode and a path. The mode is "read", "write" (from the start of a file that
// is there) or "create" (a file that is not there yet, mode 0600).
//
// kDenied, kInvalidPath; NotFound and others of open(2) for what the policy
// allows.
inline constexpr ward::Method<ward::Arguments<std::string, std::string>,
                              ward::FileDescriptor>
    kOpen{"open"};

// The policy does not allow it. Of what is denied nobody learns whether it is
// there.
inline constexpr ward::Reason kDenied{"Denied",
                                      absl::StatusCode::kPermissionDenied};
// The path is none that a policy can speak of.
inline constexpr ward::Reason kInvalidPath{"InvalidPath",
                                           absl::StatusCode::kInvalidArgument};

class FileBroker : public ward::AbstractServer {
 public:
  // arguments: the root, an absolute path, and the policy's text. Every process
  // that can reach the socket and knows the password is served. Without a
  // `confinement` it gives up all but its root and its user's rights there: one
  // that is to open files of other users as root does needs one that keeps
  // CAP_DAC_OVERRIDE.
  explicit FileBroker(ward::ServerOptions options);

 protected:
  absl::Status InitializeServer() override;

 private:
  absl::StatusOr<ward::FileDescriptor> Open(std::string_view mode,
                                            const std::string& path);

  // The server's.
  Policy policy_;
  ward::FileDescriptor root_;
};

#endif  // WARD_EXAMPLES_FILE_BROKER_FILE_BROKER_H_
