#include "ward/tools/wardctl/invocation.h"

#include <poll.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/status_macros.h"
#include "ward/channel/transport.h"
#include "ward/server/outgoing_call.h"
#include "ward/tools/wardctl/access.h"
#include "ward/tools/wardctl/command.h"
#include "ward/tools/wardctl/content.h"
#include "ward/tools/wardctl/failure.h"
#include "ward/tools/wardctl/files.h"
#include "ward/tools/wardctl/messages.h"

namespace ward::ctl {
namespace {

// The elements of a stream, as many words each as an element has values.
absl::Status AddElements(absl::Span<const std::string> words,
                         const Messages& messages, absl::Time deadline,
                         Invocation& invocation) {
  const size_t each = invocation.request.types.size();
  invocation.reads_input = each == 1 && words.size() == 1 && words[0] == "-";
  if (invocation.reads_input) return absl::OkStatus();
  if (each == 0 || words.size() % each != 0) {
    return UsageError(absl::StrCat("each element of the stream has ", each,
                                   " values; there are ", words.size(),
                                   " words"));
  }
  for (; !words.empty(); words.remove_prefix(each)) {
    WARD_ASSIGN_OR_RETURN(Message element,
                          MakeMessage("", invocation.request, words.first(each),
                                      messages, deadline));
    invocation.elements.push_back(std::move(element));
  }
  return absl::OkStatus();
}

// The elements of a request, as they are at hand.
class Elements {
 public:
  Elements(const Invocation& invocation, const Messages& messages)
      : invocation_(invocation),
        messages_(messages),
        may_come_(invocation.reads_input) {}

  // Whether Next() has one.
  bool has_next() const {
    return next_ < invocation_.elements.size() ||
           input_.find('\n') != std::string::npos;
  }
  // Whether, when it has none, standard input may bring one.
  bool may_come() const { return may_come_; }

  // Waits for some of standard input.
  absl::Status ReadSome() {
    std::array<char, 65536> bytes;
    const ssize_t got = read(STDIN_FILENO, bytes.data(), bytes.size());
    if (got < 0 && errno == EINTR) return absl::OkStatus();
    if (got < 0) return SystemError(errno, "read standard input");
    input_.append(bytes.data(), static_cast<size_t>(got));
    may_come_ = got > 0;
    // The last line may be without an end.
    if (!may_come_ && !input_.empty()) input_ += '\n';
    return absl::OkStatus();
  }

  absl::Status Write(MessageChannel& channel) {
    if (next_ < invocation_.elements.size()) {
      return channel.Write(invocation_.elements[next_++]);
    }
    const size_t end = input_.find('\n');
    const std::string line = input_.substr(0, end);
    input_.erase(0, end + 1);
    WARD_ASSIGN_OR_RETURN(const Message element,
                          MakeMessage("", invocation_.request, {line},
                                      messages_, channel.deadline()));
    return channel.Write(element);
  }

 private:
  const Invocation& invocation_;
  const Messages& messages_;
  size_t next_ = 0;
  std::string input_;
  bool may_come_;
};

// Waits until `socket` can be read from or, if `to_write`, be written to, or
// standard input has something, if `input`. False when there is no time left.
absl::StatusOr<bool> WaitFor(const MessageChannel& channel, bool to_write,
                             bool input, std::array<pollfd, 2>& polled) {
  const short events = to_write ? POLLIN | POLLOUT : POLLIN;
  polled = {{{channel.transport()->descriptor(), events, 0},
             {input ? STDIN_FILENO : -1, POLLIN, 0}}};
  while (true) {
    const absl::Duration left =
        channel.deadline() - channel.transport()->TimeNow();
    const int64_t milliseconds = std::clamp<int64_t>(
        absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1))), 0,
        std::numeric_limits<int>::max());
    const int ready = poll(
        polled.data(), polled.size(),
        left == absl::InfiniteDuration() ? -1 : static_cast<int>(milliseconds));
    if (ready >= 0) return ready > 0;
    if (errno != EINTR) return SystemError(errno, "wait for the server (poll)");
  }
}

// Writes all elements and the end, but reads first what there is to be read: a
// server that answers each element would otherwise wait for this side, and this
// side for it. Returns when the rest is to be read; true if that was all.
absl::StatusOr<bool> WriteElements(
    MessageChannel& channel, Elements elements,
    absl::FunctionRef<absl::Status(Message)> use) {
  std::array<pollfd, 2> polled;
  while (elements.has_next() || elements.may_come()) {
    WARD_ASSIGN_OR_RETURN(
        const bool in_time,
        WaitFor(channel, elements.has_next(), !elements.has_next(), polled));
    // Then the read says it.
    if (!in_time) return false;
    if ((polled[0].revents & ~POLLOUT) != 0) {
      // All that was received with it, too: nothing would tell of it later.
      do {
        absl::StatusOr<Message> reply = channel.Read();
        if (IsEnd(channel, reply.status())) return true;
        WARD_RETURN_IF_ERROR(reply.status());
        WARD_RETURN_IF_ERROR(use(*std::move(reply)));
      } while (channel.partly_read());
    } else if (polled[0].revents != 0) {
      const absl::Status written = elements.Write(channel);
      if (HasReason(written, reason::kUsage)) return written;
      // What the server says instead tells why it has not read all.
      if (!written.ok()) return false;
    } else {
      WARD_RETURN_IF_ERROR(elements.ReadSome());
    }
  }
  (void)channel.WriteEnd();
  return false;
}

}  // namespace

absl::Status Learn(Access& access, const CommandLine& line,
                   Messages& messages) {
  if (const std::string* const name = line.Find(kDescriptorSet)) {
    WARD_ASSIGN_OR_RETURN(const FileDescriptor file,
                          OpenWord(*name, access.deadline()));
    WARD_ASSIGN_OR_RETURN(const std::string set,
                          ReadAll(file, access.deadline()));
    const absl::Status added = messages.Add(set);
    return added.ok() ? added
                      : UsageError(absl::StrCat(*name, ": ", added.message()));
  }
  const absl::StatusOr<std::string> set = access.DescriptorSet();
  if (set.ok()) return messages.Add(*set);
  // A server need not have them.
  return HasReason(set.status(), ward::reason::kUnknownMessage)
             ? absl::OkStatus()
             : set.status();
}

absl::StatusOr<Invocation> Prepare(Access& access, const CommandLine& line,
                                   absl::Span<const std::string> words,
                                   Messages& messages) {
  const std::string& name = words.front();
  words.remove_prefix(1);
  WARD_ASSIGN_OR_RETURN(const Access::Method method, access.FindMethod(name));
  Invocation invocation;
  invocation.request = Content::Parse(method.request);
  invocation.reply = Content::Parse(method.reply);
  if (invocation.request.has_protobuf() || invocation.reply.has_protobuf()) {
    WARD_RETURN_IF_ERROR(Learn(access, line, messages));
  }
  if (invocation.request.is_stream) {
    WARD_ASSIGN_OR_RETURN(
        invocation.first,
        MakeMessage(name, Content(), {}, messages, access.deadline()));
    WARD_RETURN_IF_ERROR(
        AddElements(words, messages, access.deadline(), invocation));
  } else {
    WARD_ASSIGN_OR_RETURN(invocation.first,
                          MakeMessage(name, invocation.request, words, messages,
                                      access.deadline()));
  }
  return invocation;
}

absl::Status Invoke(Access& access, absl::Time deadline, bool may_be_kept,
                    const Invocation& invocation, const Messages& messages,
                    absl::FunctionRef<absl::Status(Message)> use) {
  const bool is_stream = invocation.request.is_stream;
  // Who converses is told that there is no more.
  const bool converses = !is_stream && invocation.reply.is_anything();
  return access.Call(
      deadline,
      may_be_kept && !is_stream && !converses ? OutgoingCall::Over::kKeptOrNew
                                              : OutgoingCall::Over::kNew,
      [&](MessageChannel& channel) { return channel.Write(invocation.first); },
      [&](MessageChannel& channel) -> absl::Status {
        if (is_stream) {
          WARD_ASSIGN_OR_RETURN(
              const bool ended,
              WriteElements(channel, Elements(invocation, messages), use));
          if (ended) return absl::OkStatus();
        }
        if (converses) (void)channel.WriteEnd();
        return ReadReplies(channel, use);
      });
}

}  // namespace ward::ctl
