// What happened between the processes of a test, as a sequence diagram.

#ifndef WARD_TESTING_REPORT_TRANSCRIPT_H_
#define WARD_TESTING_REPORT_TRANSCRIPT_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/time/time.h"

namespace ward::testing {

// Records frames as they are sent. Of what it tells, their passwords are left
// out, and parts are cut to a length that fits on a line. Most are never told:
// until then it keeps the bytes, up to a megabyte. Not thread-safe.
class Transcript {
 public:
  // Who takes part, in order of appearance.
  void Name(pid_t process, std::string_view name);

  // Something that a process did, or that befell it.
  void Event(absl::Time time, pid_t process, std::string_view what);

  // That a signal has come to `process`.
  void Signal(absl::Time time, pid_t process, int signal);

  // An arrow.
  void Arrow(absl::Time time, pid_t from, pid_t to, std::string_view what);

  // Bytes of the stream from `from` to `to`, which the number `stream` tells
  // from all others; an arrow for each frame that is whole now.
  void Bytes(absl::Time time, int stream, pid_t from, pid_t to,
             std::string_view bytes, size_t descriptors);

  // Told of each entry as soon as it is whole; `to` is `from` for what is no
  // arrow, and `stream` -1 for what is no frame. Of names, of those that there
  // are already, too.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void IsNamed(pid_t process, std::string_view name) = 0;
    virtual void Says(pid_t from, pid_t to, int stream,
                      std::string_view what) = 0;
  };
  // Borrowed.
  void SetListener(Listener& listener);

  // What is shown of a failed test.
  static constexpr size_t kMostShown = 500;

  // A diagram in plain text: a column for each process, time running down. Of
  // more than `most` entries it has the last ones, and says so.
  std::string ToText(size_t most = std::numeric_limits<size_t>::max()) const;

  // The same for Mermaid.
  std::string ToMermaid() const;

  // Different for different runs, most likely.
  uint64_t Fingerprint() const;

 private:
  struct Entry {
    absl::Time time;
    pid_t from;
    pid_t to;  // The same as `from`: an event.
    std::string what;
  };
  // What is no entry yet: of a stream, `what` is bytes.
  struct Heard {
    Entry entry;
    int stream = kNone;
    size_t descriptors = 0;
  };
  struct Stream {
    std::string bytes;
    size_t descriptors = 0;
  };

  static constexpr int kNone = -1;

  const std::vector<Entry>& Entries() const;
  void Understand(const Heard& sent) const;
  void Add(Entry entry, int stream) const;

  std::vector<std::pair<pid_t, std::string>> names_;
  Listener* listener_ = nullptr;
  mutable std::vector<Heard> heard_;
  mutable size_t heard_bytes_ = 0;
  mutable std::vector<Entry> entries_;
  mutable absl::btree_map<std::pair<int, pid_t>, Stream> streams_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_REPORT_TRANSCRIPT_H_
