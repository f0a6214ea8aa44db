// What a test leaves behind in this process and on this machine.

#ifndef WARD_TESTING_LEAK_CHECK_H_
#define WARD_TESTING_LEAK_CHECK_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"

namespace ward::testing {

// From its construction on, private directories of servers appear in
// directory(), and orphans come to this process. The first one stays so until
// the process ends (prctl(2), PR_SET_CHILD_SUBREAPER). One at a time.
class LeakCheck {
 public:
  LeakCheck();
  LeakCheck(const LeakCheck&) = delete;
  LeakCheck& operator=(const LeakCheck&) = delete;

  // Removes all that is in directory(), and kills the children that are left:
  // what the next test finds is its own.
  ~LeakCheck();

  // Empty at first; for the test's files, too. Removed when the process ends.
  const std::string& directory() const { return directory_; }

  // A line for each descriptor (with what it refers to), child process, file in
  // directory(), and changed signal that was not there at the start, and for
  // each descriptor that was, and is no more; and for each thread. `origin_of`
  // tells where a descriptor came from, or nothing.
  std::vector<std::string> Find(
      absl::FunctionRef<std::string(int)> origin_of = NoOrigin) const;

  // The same but for threads: those that a simulation has killed stay.
  std::vector<std::string> FindAllButThreads(
      absl::FunctionRef<std::string(int)> origin_of = NoOrigin) const;

 private:
  static std::string NoOrigin(int /*descriptor*/) { return ""; }

  const std::string directory_;
  // What says where private directories appear, as it was before.
  std::map<const char*, std::optional<std::string>> variables_ = {
      {"TMPDIR", std::nullopt}, {"XDG_RUNTIME_DIR", std::nullopt}};
  std::map<int, std::string> descriptors_;
  std::vector<std::string> threads_;
  std::map<int, std::string> signals_;
};

}  // namespace ward::testing

#endif  // WARD_TESTING_LEAK_CHECK_H_
