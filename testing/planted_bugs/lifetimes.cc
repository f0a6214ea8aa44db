// Something is used before it is there, or after it has gone.

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/types/span.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/status_macros.h"
#include "ward/server/environment.h"
#include "ward/testing/planted_bugs/planted_bugs.h"
#include "ward/testing/planted_bugs/planted_server.h"

namespace ward::testing {
namespace {

// --- use after free: of a desk that has the next guest's things by then ---

class Desks : public PlantedServer {
 public:
  explicit Desks(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("enter", &Desks::Enter);
    DefineMessageHandler("leave", &Desks::Leave);
    DefineMessageHandler("write", &Desks::Write);
    DefineMessageHandler("written", &Desks::Written);
  }

 private:
  struct Desk {
    std::string guest;
    std::string text;
  };

  absl::StatusOr<int> Enter(std::string guest) {
    absl::MutexLock lock(&mutex_);
    Desk* const desk = Find("");
    if (desk == nullptr) return absl::ResourceExhaustedError("no desk");
    *desk = {std::move(guest), ""};
    return 1;
  }
  absl::StatusOr<int> Leave(std::string_view guest) {
    absl::MutexLock lock(&mutex_);
    Desk* const desk = Find(guest);
    if (desk == nullptr) return absl::NotFoundError("no such guest");
    *desk = {};
    return 1;
  }
  absl::StatusOr<int> Write(std::string_view guest, std::string_view text) {
    if (repaired()) {
      absl::MutexLock lock(&mutex_);
      return Append(Find(guest), text);
    }
    Desk* desk;
    {
      absl::MutexLock lock(&mutex_);
      desk = Find(guest);
    }
    if (desk == nullptr) return absl::NotFoundError("no such guest");
    absl::MutexLock lock(&mutex_);
    return Append(desk, text);
  }
  absl::StatusOr<int> Written(std::string_view guest) {
    absl::MutexLock lock(&mutex_);
    const Desk* const desk = Find(guest);
    if (desk == nullptr) return absl::NotFoundError("no such guest");
    return static_cast<int>(desk->text.size());
  }

  static absl::StatusOr<int> Append(Desk* desk, std::string_view text) {
    if (desk == nullptr) return absl::NotFoundError("no such guest");
    absl::StrAppend(&desk->text, text);
    return 1;
  }
  Desk* Find(std::string_view guest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (Desk& desk : desks_) {
      if (desk.guest == guest) return &desk;
    }
    return nullptr;
  }

  absl::Mutex mutex_;
  std::array<Desk, 1> desks_ ABSL_GUARDED_BY(mutex_);
};

absl::Status UseAfterFree(const Trial& trial) {
  return Drive<Desks>(trial, [](Desks& server) -> absl::Status {
    WARD_RETURN_IF_ERROR(server.Call("enter", {"ann"}).status());
    WARD_RETURN_IF_ERROR(server.AtOnce({
        [&] {
          (void)server.Call("write", {"ann", "secret"});  // She may have left.
          return absl::OkStatus();
        },
        [&]() -> absl::Status {
          WARD_RETURN_IF_ERROR(server.Call("leave", {"ann"}).status());
          return server.Call("enter", {"bob"}).status();
        },
    }));
    WARD_ASSIGN_OR_RETURN(const int written, server.Call("written", {"bob"}));
    return Expect(written == 0, "bob has ann's secret");
  });
}

// --- a number is closed twice, and is another's by then ---

class Rotator : public PlantedServer {
 public:
  explicit Rotator(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("rotate", &Rotator::Rotate);
    DefineMessageHandler("copy", &Rotator::Copy);
  }

 private:
  absl::Status InitializeServer() override {
    log_ = open("/dev/null", O_WRONLY | O_CLOEXEC);
    return absl::OkStatus();
  }
  absl::Status FinalizeServer() override { return Rotate().status(); }

  absl::StatusOr<int> Rotate() {
    if (repaired()) {
      const FileDescriptor closed(log_.exchange(-1));
      return 1;
    }
    const int log = log_;
    if (log < 0) return 0;
    close(log);
    log_ = -1;
    return 1;
  }
  absl::StatusOr<int> Copy() {
    const int copy = open("/dev/null", O_WRONLY | O_CLOEXEC);
    for (int i = 0; i < 3; ++i) {
      if (write(copy, "x", 1) != 1) {
        return absl::InternalError("the copy is closed");
      }
    }
    close(copy);
    return 1;
  }

  std::atomic<int> log_ = -1;
};

absl::Status DoubleClose(const Trial& trial) {
  return Drive<Rotator>(trial, [](Rotator& server) {
    const auto rotate = [&] { return server.Call("rotate").status(); };
    return server.AtOnce(
        {rotate, rotate, [&] { return server.Call("copy").status(); }});
  });
}

// --- a number is used that another thread has closed ---

class LogFile : public PlantedServer {
 public:
  explicit LogFile(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("append", &LogFile::Append);
    DefineMessageHandler("reopen", &LogFile::Reopen);
  }

 private:
  absl::Status InitializeServer() override {
    Open();
    return absl::OkStatus();
  }
  absl::Status FinalizeServer() override {
    close(file_);
    return absl::OkStatus();
  }

  absl::StatusOr<int> Append() {
    if (repaired()) {
      absl::MutexLock lock(&mutex_);
      return Write();
    }
    return Write();
  }
  absl::StatusOr<int> Reopen() {
    absl::MutexLock lock(&mutex_);
    close(file_);
    Open();
    return 1;
  }

  absl::StatusOr<int> Write() {
    if (write(file_, "x", 1) == 1) return 1;
    return absl::InternalError("the log is closed");
  }
  void Open() { file_ = open("/dev/null", O_WRONLY | O_CLOEXEC); }

  absl::Mutex mutex_;
  std::atomic<int> file_ = -1;
};

absl::Status ClosedDescriptor(const Trial& trial) {
  return Drive<LogFile>(trial, [](LogFile& server) {
    return server.AtOnce({[&] { return server.Call("reopen").status(); },
                          [&] { return server.Call("append").status(); }});
  });
}

// --- clients come before what they need ---

class Dictionary : public PlantedServer {
 public:
  explicit Dictionary(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("look up", &Dictionary::LookUp);
  }

 private:
  absl::Status InitializeServer() override {
    WARD_ASSIGN_OR_RETURN(loader_,
                          environment().StartThread([this] { Load(); }));
    return absl::OkStatus();
  }
  absl::Status FinalizeServer() override {
    loader_.reset();
    return absl::OkStatus();
  }

  void Load() {
    for (const char* word : {"one", "two", "three"}) {
      absl::MutexLock lock(&mutex_);
      numbers_.emplace(word, static_cast<int>(numbers_.size()) + 1);
    }
    loaded_.Notify();
  }
  absl::StatusOr<int> LookUp(const std::string& word) {
    if (repaired()) loaded_.WaitForNotification();
    absl::MutexLock lock(&mutex_);
    const auto found = numbers_.find(word);
    if (found == numbers_.end()) return absl::NotFoundError("no such word");
    return found->second;
  }

  std::unique_ptr<Thread> loader_;
  absl::Notification loaded_;
  absl::Mutex mutex_;
  std::map<std::string, int> numbers_ ABSL_GUARDED_BY(mutex_);
};

absl::Status StartOrder(const Trial& trial) {
  return Drive<Dictionary>(trial, [](Dictionary& server) {
    return server.Call("look up", {"three"}).status();
  });
}

// --- the end comes before what was promised ---

class Journal : public PlantedServer {
 public:
  explicit Journal(const Trial& trial) : PlantedServer(trial) {
    DefineMessageHandler("append", &Journal::Append);
  }

 private:
  absl::Status InitializeServer() override {
    WARD_ASSIGN_OR_RETURN(writer_,
                          environment().StartThread([this] { WriteAll(); }));
    return absl::OkStatus();
  }
  absl::Status FinalizeServer() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    writer_.reset();
    absl::MutexLock lock(&mutex_);
    return Expect(written_ == accepted_, "an entry was not written");
  }

  absl::StatusOr<int> Append() {
    absl::MutexLock lock(&mutex_);
    return ++accepted_;
  }
  void WriteAll() {
    absl::MutexLock lock(&mutex_);
    while (true) {
      mutex_.Await(absl::Condition(this, &Journal::HasWork));
      if (stopping_ && (!repaired() || written_ == accepted_)) return;
      ++written_;
    }
  }
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || written_ < accepted_;
  }

  std::unique_ptr<Thread> writer_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  int accepted_ ABSL_GUARDED_BY(mutex_) = 0;
  int written_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::Status StopOrder(const Trial& trial) {
  return Drive<Journal>(trial, [](Journal& server) -> absl::Status {
    WARD_RETURN_IF_ERROR(server.Call("append").status());
    return server.Call("append").status();
  });
}

constexpr PlantedBug kBugs[] = {
    {"use after free", UseAfterFree},
    {"double close", DoubleClose},
    {"closed descriptor", ClosedDescriptor},
    {"order at start", StartOrder},
    {"order at stop", StopOrder},
};

}  // namespace

absl::Span<const PlantedBug> LifetimeBugs() { return kBugs; }

}  // namespace ward::testing
