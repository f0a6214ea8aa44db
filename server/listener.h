// A listening Unix socket.

#ifndef WARD_SERVER_LISTENER_H_
#define WARD_SERVER_LISTENER_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/transport.h"

namespace ward {

// Where a server is found, and by whom.
struct ListenOptions {
  // Where the socket appears. A relative path counts from the working
  // directory at this moment. Empty: "socket" in a new directory that only
  // this user may enter (mkdtemp(3), mode 0700), under XDG_RUNTIME_DIR, if that
  // is this user's, TMPDIR or /tmp, whichever is the first that can be used.
  std::string path;

  // Who may connect (unix(7): write permission). The name never appears with
  // more than this. Where the path, without links, is longer than 107 bytes the
  // file gets the sticky bit, too: see docs/names.md.
  mode_t mode = 0600;
};

// A listener on its way from one process to another, in descriptors that can be
// attached to a message.
struct ListenerParts {
  std::string path;
  // The socket is alone in a directory that was made for it.
  bool private_directory = false;
  // What the name stands for. None: the name is somebody else's to remove.
  FileDescriptor name;
  // None: for who only cares for the name.
  FileDescriptor socket;
};

// A listening socket with a name in the file system. The destructor closes it
// and leaves the name. Accept, StopAccepting, CheckPath, RemovePath and Share
// may be called from any thread.
//
// The socket may be shared: by a service manager, which has it before and after
// this process, or by siblings that accept at it, too. Whoever serves at one
// that is not its own has a listener without the name (see ListenerParts): the
// first that stops would take it from all.
class Listener : public Pollable {
 public:
  // A client that has come.
  struct Accepted {
    std::unique_ptr<Transport> transport;

    // The process's descriptor table is full, and this connection uses the
    // slot that was kept for that case: tell the client, and close it.
    bool on_reserve = false;
  };

  // Waits for a client. kServerStopping after StopAccepting;
  // kDescriptorTableFull when not even the reserve is left, which another
  // thread of the process that opens something may take in the moment in which
  // it is free: wait until something was closed. On a thread that does not
  // block SIGURG, as those of Environment::StartThread do not.
  virtual absl::StatusOr<Accepted> Accept() = 0;

  // Ends every Accept of this process, and returns when none is left; then
  // closes the socket, as Close() does. Where the name is somebody else's,
  // clients in its queue wait for whoever else accepts at it. Otherwise nobody
  // does: no more can come, and each of those in the queue is given to `refuse`
  // before. To close the socket over them would keep this thread for as long as
  // it takes to close what they have sent along.
  virtual void StopAccepting(
      absl::FunctionRef<void(std::unique_ptr<Transport>)> refuse) = 0;

  // Closes the socket in this process; path() and RemovePath() go on working.
  // Not while an Accept is under way.
  virtual void Close() = 0;

  // Absolute.
  virtual const std::string& path() const = 0;

  // OK while path() leads to this socket. Otherwise kServerUnreachable, and
  // what has become of the name.
  virtual absl::Status CheckPath() const = 0;

  // Removes the socket's name, and the directory that was made for it. A name
  // that is not this socket's any more, since another server has replaced it,
  // is left alone. Calling it again does nothing.
  virtual void RemovePath() = 0;

  // Everything that must stay open in a forked child that is to accept.
  virtual std::vector<int> descriptors() const = 0;

  // What another process needs to have this listener, too; without the socket
  // after Close(). See Environment::AdoptListener.
  virtual absl::StatusOr<ListenerParts> Share() const = 0;
};

}  // namespace ward

#endif  // WARD_SERVER_LISTENER_H_
