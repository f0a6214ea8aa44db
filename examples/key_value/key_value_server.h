// A store of values by key: see key_value.h.

#ifndef WARD_EXAMPLES_KEY_VALUE_KEY_VALUE_SERVER_H_
#define WARD_EXAMPLES_KEY_VALUE_KEY_VALUE_SERVER_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "ward/channel/file_descriptor.h"
#include "ward/server/abstract_server.h"
#include "ward/server/call_context.h"
#include "ward/server/stream.h"

class KeyValueServer : public ward::AbstractServer {
 public:
  explicit KeyValueServer(ward::ServerOptions options = {});

 private:
  absl::Status Put(const std::string& key, const std::string& value);
  absl::StatusOr<std::string> Get(const std::string& key);
  absl::Status Watch(const ward::CallContext& context, const std::string& key,
                     ward::StreamWriter<std::string>& values);
  absl::StatusOr<ward::FileDescriptor> File(const std::string& key);

  struct Entry {
    std::string value;
    int64_t revision = 0;  // 0: it is watched, and was never put.
  };
  absl::Mutex mutex_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

#endif  // WARD_EXAMPLES_KEY_VALUE_KEY_VALUE_SERVER_H_
