#include "ward/examples/key_value/key_value_server.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/examples/key_value/key_value.h"
#include "ward/server/abstract_server.h"
#include "ward/server/call_context.h"
#include "ward/server/stream.h"

namespace {

// Who gets it shares its offset with nobody: it is made for him.
absl::StatusOr<ward::FileDescriptor> MemoryFile(const std::string& content) {
  ward::FileDescriptor file = ward::FileDescriptor::Opened(
      memfd_create("value", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.is_open()) {
    return ward::SystemError(errno, "make a file of a value (memfd_create)");
  }
  if (write(file.get(), content.data(), content.size()) !=
      static_cast<ssize_t>(content.size())) {
    return absl::ResourceExhaustedError("no memory for a file of the value");
  }
  if (fcntl(file.get(), F_ADD_SEALS,
            F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) {
    return ward::SystemError(errno, "seal the file of a value");
  }
  return file;
}

}  // namespace

WARD_REGISTER_SERVER(KeyValueServer);

KeyValueServer::KeyValueServer(ward::ServerOptions options)
    : AbstractServer(std::move(options)) {
  Define(kPut, &KeyValueServer::Put);
  Define(kGet, &KeyValueServer::Get);
  Define(kWatch, &KeyValueServer::Watch);
  Define(kFile, &KeyValueServer::File);
}

absl::Status KeyValueServer::Put(const std::string& key,
                                 const std::string& value) {
  absl::MutexLock lock(&mutex_);
  Entry& entry = entries_[key];
  entry.value = value;
  ++entry.revision;
  return absl::OkStatus();
}

absl::StatusOr<std::string> KeyValueServer::Get(const std::string& key) {
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end() || found->second.revision == 0) {
    return absl::NotFoundError(absl::StrCat("no value of \"", key, "\""));
  }
  return found->second.value;
}

absl::Status KeyValueServer::Watch(const ward::CallContext& context,
                                   const std::string& key,
                                   ward::StreamWriter<std::string>& values) {
  int64_t seen = 0;
  while (true) {
    std::string value;
    {
      absl::MutexLock lock(&mutex_);
      const Entry& entry = entries_[key];
      const auto changed = [&] { return entry.revision != seen; };
      if (!context.Await(mutex_, absl::Condition(&changed))) {
        return absl::CancelledError("the watch has ended");
      }
      seen = entry.revision;
      value = entry.value;
    }
    // Without the lock: it waits for the reader.
    WARD_RETURN_IF_ERROR(values.Write(value));
  }
}

absl::StatusOr<ward::FileDescriptor> KeyValueServer::File(
    const std::string& key) {
  WARD_ASSIGN_OR_RETURN(const std::string value, Get(key));
  return MemoryFile(value);
}
