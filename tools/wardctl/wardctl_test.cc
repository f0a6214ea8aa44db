// wardctl as its users see it: the program itself, in a shell, and a server in
// a process of its own.

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/bulk.h"
#include "ward/channel/descriptors.h"
#include "ward/channel/error.h"
#include "ward/channel/file_descriptor.h"
#include "ward/channel/message.h"
#include "ward/channel/message_channel.h"
#include "ward/channel/secret.h"
#include "ward/channel/status_macros.h"
#include "ward/server/abstract_server.h"
#include "ward/server/call_context.h"
#include "ward/server/catalog_for_test.pb.h"
#include "ward/server/method.h"
#include "ward/server/owner_handle.h"
#include "ward/testing/leak_check.h"

namespace ward {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kPassword[] = "open sesame";
constexpr size_t kPictureSize = 100000;

constexpr Method<std::string, std::string> kGreet{"greet"};
constexpr Method<Arguments<int32_t, int32_t>, int32_t> kAdd{"add"};
constexpr Method<void, Arguments<std::string, bool>> kBytes{"bytes"};
constexpr Method<void, void> kFail{"fail"};
constexpr Method<void, void> kDie{"die"};
constexpr Method<void, void> kWait{"wait"};
constexpr Method<test::Query, test::Part> kPart{"part"};
constexpr Method<void, test::Part> kLone{"lone"};
constexpr Method<Arguments<std::string, test::Query>, Stream<test::Catalog>>
    kFind{"find"};
constexpr Method<Stream<int64_t>, int64_t> kSum{"sum"};
constexpr Method<Stream<std::string>, Stream<std::string>> kEcho{"echo"};
constexpr Method<FileDescriptor, std::string> kRead{"read"};
constexpr Method<Descriptors, std::string> kReadAll{"read_all"};
constexpr Method<std::string, FileDescriptor> kFile{"file"};
constexpr Method<void, FileDescriptor> kPipe{"pipe"};
constexpr Method<void, Descriptors> kFiles{"files"};
constexpr Method<Bulk, uint64_t> kSize{"size"};
constexpr Method<void, Bulk> kPicture{"picture"};
constexpr Method<void, OwnerHandle> kShare{"share"};

std::string Content(const FileDescriptor& file) {
  std::array<char, 1000> bytes;
  const ssize_t got = read(file.get(), bytes.data(), bytes.size());
  return {bytes.data(), static_cast<size_t>(got < 0 ? 0 : got)};
}

// A file without a name, at whose end it stands.
FileDescriptor FileOf(std::string_view content) {
  FileDescriptor file(memfd_create("file", MFD_CLOEXEC));
  EXPECT_EQ(write(file.get(), content.data(), content.size()),
            static_cast<ssize_t>(content.size()));
  return file;
}

class Shop : public AbstractServer {
 public:
  explicit Shop(ServerOptions options) : AbstractServer(std::move(options)) {
    Define(kGreet, [](const std::string& name) -> absl::StatusOr<std::string> {
      return absl::StrCat("Hello ", name);
    });
    Define(kAdd, [](int32_t a, int32_t b) -> absl::StatusOr<int32_t> {
      return a + b;
    });
    Define(kBytes, []() -> absl::StatusOr<std::tuple<std::string, bool>> {
      return std::make_tuple(std::string("tab\t\x1b[31m\\ gr\xc3\xbcn \xff"),
                             true);
    });
    Define(kFail, []() -> absl::Status {
      return MakeError(absl::StatusCode::kNotFound, "NoSuchThing",
                       "nothing\x1b[31m here");
    });
    Define(kDie, []() -> absl::Status { _exit(3); });
    Define(kWait, [](const CallContext& context) -> absl::Status {
      absl::Mutex mutex;
      absl::MutexLock lock(&mutex);
      const bool never = false;
      context.Await(mutex, absl::Condition(&never));
      return absl::CancelledError("given up");
    });
    Define(kPart, [](const test::Query& query) -> absl::StatusOr<test::Part> {
      test::Part part;
      part.set_name("bolt");
      part.set_price(query.most());
      return part;
    });
    Define(kLone, []() -> absl::StatusOr<test::Part> {
      test::Part part;
      part.set_name("bolt");
      part.set_price(7);
      return part;
    });
    Define(kFind,
           [](const std::string& name, const test::Query& query,
              StreamWriter<test::Catalog>& found) -> absl::Status {
             for (int i = 0; i < query.most(); ++i) {
               test::Catalog catalog;
               catalog.add_parts()->set_name(absl::StrCat(name, i));
               WARD_RETURN_IF_ERROR(found.Write(catalog));
             }
             return absl::OkStatus();
           });
    Define(kSum, [](StreamReader<int64_t>& numbers) -> absl::StatusOr<int64_t> {
      int64_t sum = 0;
      while (const std::optional<int64_t> number = numbers.Next()) {
        sum += *number;
      }
      WARD_RETURN_IF_ERROR(numbers.status());
      return sum;
    });
    Define(kEcho,
           [](StreamReader<std::string>& in,
              StreamWriter<std::string>& out) -> absl::Status {
             while (const std::optional<std::string> text = in.Next()) {
               WARD_RETURN_IF_ERROR(out.Write(absl::StrCat("<", *text, ">")));
             }
             return in.status();
           });
    Define(kRead,
           [](const FileDescriptor& file) -> absl::StatusOr<std::string> {
             return Content(file);
           });
    Define(kReadAll,
           [](const Descriptors& files) -> absl::StatusOr<std::string> {
             std::string all;
             for (size_t i = 0; i < files.size(); ++i) {
               absl::StrAppend(&all, files.names()[i], ":",
                               Content(files.descriptors()[i]), ";");
             }
             return all;
           });
    Define(kFile,
           [](const std::string& content) -> absl::StatusOr<FileDescriptor> {
             return FileOf(content);
           });
    // Which stays open.
    Define(kPipe, [this]() -> absl::StatusOr<FileDescriptor> {
      std::array<int, 2> ends{};
      if (pipe2(ends.data(), O_CLOEXEC) != 0) return SystemError(errno, "pipe");
      write_end_ = FileDescriptor(ends[1]);
      return FileDescriptor(ends[0]);
    });
    Define(kFiles, []() -> absl::StatusOr<Descriptors> {
      Descriptors files;
      files.Add("left", FileOf("L"));
      files.Add("right", FileOf("R"));
      return files;
    });
    Define(kSize, [](const Bulk& bulk) -> absl::StatusOr<uint64_t> {
      return bulk.size();
    });
    Define(kPicture, []() -> absl::StatusOr<Bulk> {
      WARD_ASSIGN_OR_RETURN(BulkBuffer picture, AllocateBulk(kPictureSize));
      std::fill(picture.bytes().begin(), picture.bytes().end(), 'x');
      return std::move(picture).Seal();
    });
    DefineMessageHandler(
        "talk", [](MessageChannel& channel, int32_t number) -> absl::Status {
          WARD_RETURN_IF_ERROR(channel.Write("begin", number));
          const absl::Status more = channel.Read().status();
          return channel.Write(HasReason(more, reason::kEndOfStream)
                                   ? "no more"
                                   : "something else");
        });
    DefineMessageHandler(
        "parts", [](Message message) -> absl::StatusOr<Message> {
          return Message({absl::StrCat(message.size()), message[1]});
        });
  }

 private:
  FileDescriptor write_end_;
};

// Owns a server itself, and shares that.
class Owner : public AbstractServer {
 public:
  Owner() {
    Define(kShare, [this] { return owned_.ShareOwnership(); });
  }

 private:
  absl::Status InitializeServer() override { return owned_.Start(); }
  absl::Status FinalizeServer() override { return owned_.Stop(); }

  AbstractServer owned_;
};

struct Ran {
  std::string out;
  std::string err;
  int code = -1;
};

std::string Read(const std::string& file) {
  std::ifstream in(file);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

class WardctlTest : public ::testing::Test {
 protected:
  WardctlTest() {
    // By its name, as whoever has installed it.
    fs::create_directory(directory() + "/bin");
    // NOLINTBEGIN(concurrency-mt-unsafe): there are no other threads.
    fs::create_symlink(fs::absolute(getenv("WARDCTL")),
                       directory() + "/bin/wardctl");
    setenv("PATH",
           absl::StrCat(directory(), "/bin:/usr/bin:/bin:/usr/sbin").c_str(),
           1);
    // A shell complains of a locale that is not installed.
    setenv("LC_ALL", "C", 1);
    // NOLINTEND(concurrency-mt-unsafe)
    std::ofstream(directory() + "/key") << kPassword << "\n";
    std::ofstream(directory() + "/wrong") << "wrong\n";
    std::ofstream(directory() + "/blue") << "blue";
  }

  ~WardctlTest() override {
    if (server_.started()) {
      EXPECT_TRUE(server_.Stop().ok());
    }
    fs::remove_all(directory() + "/bin");
    for (const char* const file : {"key", "wrong", "blue", "out", "err"}) {
      fs::remove(directory() + "/" + file);
    }
    EXPECT_THAT(leaks_.Find(), IsEmpty());
  }

  const std::string& directory() const { return leaks_.directory(); }

  void Start() {
    ASSERT_TRUE(server_.Start().ok());
    // NOLINTNEXTLINE(concurrency-mt-unsafe)
    setenv("SOCKET", server_.socket_filename().c_str(), 1);
  }

  // What bash makes of `script`, in directory(), without a terminal and with
  // nothing on standard input; $SOCKET is the server's.
  Ran Run(const std::string& script) const {
    const pid_t shell = fork();
    if (shell == 0) {
      // A session of its own has no terminal.
      setsid();
      const int out = creat((directory() + "/out").c_str(), 0600);
      const int err = creat((directory() + "/err").c_str(), 0600);
      const int in = open("/dev/null", O_RDONLY);
      if (chdir(directory().c_str()) == 0 && dup2(in, 0) == 0 &&
          dup2(out, 1) == 1 && dup2(err, 2) == 2) {
        close(in);
        close(out);
        close(err);
        execlp("bash", "bash", "-c", script.c_str(), nullptr);
      }
      _exit(127);
    }
    int status = 0;
    EXPECT_EQ(waitpid(shell, &status, 0), shell);
    // Those that the shell has not waited for come to this process.
    while (waitpid(-shell, nullptr, 0) > 0) {
    }
    return {Read(directory() + "/out"), Read(directory() + "/err"),
            WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status)};
  }

  // The same, that of a server which is not to fail.
  std::string Out(const std::string& script) const {
    const Ran ran = Run(script);
    EXPECT_EQ(ran.code, 0) << ran.err;
    EXPECT_EQ(ran.err, "");
    return ran.out;
  }

  Shop& server() { return server_; }

 private:
  static ServerOptions Options() {
    ServerOptions options;
    options.password = Secret(kPassword);
    return options;
  }

  const testing::LeakCheck leaks_;
  Shop server_{Options()};
};

std::vector<std::string> Lines(const std::string& text) {
  return absl::StrSplit(text, '\n', absl::SkipEmpty());
}

// --- calls ---

TEST_F(WardctlTest, CallsByTheServersOwnDescription) {
  Start();
  EXPECT_EQ(Out("wardctl call --password-file key $SOCKET greet 'Joe Dalton'"),
            "Hello Joe Dalton\n");
  EXPECT_EQ(Out("wardctl call --password-file key $SOCKET add -1 -2"), "-3\n");
  // On its own line, and nothing that a terminal obeys.
  EXPECT_EQ(Out("wardctl call --password-file key $SOCKET bytes"),
            "tab\\t\\x1b[31m\\\\ gr\xc3\xbcn \\xff\ttrue\n");
  EXPECT_EQ(Out("wardctl call --password-file key --raw $SOCKET bytes"),
            "tab\t\x1b[31m\\ gr\xc3\xbcn \xfftrue");
  EXPECT_EQ(Out("wardctl call --password-file key $SOCKET parts a b"),
            "3\ta\n");
  EXPECT_EQ(Out("wardctl call --password-file key $SOCKET talk 7"),
            "begin\t7\nno more\n");
}

TEST_F(WardctlTest, SpeaksProtobufsThatItDoesNotKnow) {
  Start();
  EXPECT_EQ(Out("wardctl call --password-file key $SOCKET part 'most: 2'"),
            "name: \"bolt\"\nprice: 2\n");
  EXPECT_EQ(Out("echo 'most: 3' | "
                "wardctl call --password-file key $SOCKET part -"),
            "name: \"bolt\"\nprice: 3\n");
  EXPECT_EQ(Out("wardctl call --password-file key $SOCKET find nut 'most: 2'"),
            "parts { name: \"nut0\" }\nparts { name: \"nut1\" }\n");
  // What the server tells serves in its place.
  EXPECT_EQ(Out("export WARD_PASSWORD='open sesame'; "
                "wardctl call --raw $SOCKET ward.descriptor_set >set && "
                "wardctl call --descriptor-set set $SOCKET part '' && rm set"),
            "name: \"bolt\"\n");
  const Ran no_set = Run(
      "wardctl call --descriptor-set blue --password-file key $SOCKET part ''");
  EXPECT_EQ(no_set.code, 2);
  EXPECT_THAT(no_set.err, HasSubstr("blue: the descriptors of the messages"));
  const Ran wrong =
      Run("wardctl call --password-file key $SOCKET part 'least: 2'");
  EXPECT_EQ(wrong.code, 2);
  EXPECT_EQ(wrong.out, "");
  EXPECT_THAT(wrong.err,
              AllOf(HasSubstr("ward.test.Query"), HasSubstr("line 1, column 6"),
                    HasSubstr("least")));
}

// As of a server without //server:descriptor_set.
TEST_F(WardctlTest, ShowsFieldsOfUnknownMessagesByNumber) {
  Start();
  const std::string unknown =
      "wardctl call --descriptor-set /dev/null --password-file key $SOCKET ";
  EXPECT_EQ(Out(unknown + "lone"), "1: \"bolt\"\n2: 7\n");
  const Ran given = Run(unknown + "part 'most: 2'");
  EXPECT_EQ(given.code, 2);
  EXPECT_THAT(given.err, AllOf(HasSubstr("what a ward.test.Query is"),
                               HasSubstr("//server:descriptor_set")));
}

TEST_F(WardctlTest, StreamsArgumentsAndLines) {
  Start();
  EXPECT_EQ(Out("wardctl call --password-file key $SOCKET sum 1 2 39"), "42\n");
  EXPECT_EQ(Out("wardctl call --password-file key $SOCKET sum"), "0\n");
  EXPECT_EQ(Out("printf '1\\n2\\n39' | "
                "wardctl call --password-file key $SOCKET sum -"),
            "42\n");
  EXPECT_EQ(Out("wardctl call --password-file key $SOCKET echo a b"),
            "<a>\n<b>\n");
  // What is written next depends on what has been said.
  EXPECT_EQ(Out("coproc wardctl call --password-file key $SOCKET echo -; "
                "for word in one two; do "
                "echo $word >&${COPROC[1]}; read -ru ${COPROC[0]} reply; "
                "echo \"got $reply\"; done; "
                "input=${COPROC[1]} pid=$COPROC_PID; exec {input}>&-; "
                "wait $pid"),
            "got <one>\ngot <two>\n");
  // Far more than sockets hold, both ways.
  EXPECT_EQ(Out("seq 3000 | "
                "wardctl call --password-file key $SOCKET echo - | tail -n 1"),
            "<3000>\n");
}

TEST_F(WardctlTest, TakesDescriptorsAndWritesThemToFiles) {
  Start();
  EXPECT_EQ(Out("wardctl call --password-file key $SOCKET read blue"),
            "blue\n");
  EXPECT_EQ(
      Out("echo -n red | wardctl call --password-file key $SOCKET read -"),
      "red\n");
  EXPECT_EQ(Out("wardctl call --password-file key $SOCKET read_all "
                "a=blue,b=fd:3 3<key"),
            "a:blue;b:open sesame\\n;\n");
  EXPECT_EQ(Out("wardctl call --password-file key $SOCKET file green"),
            "</memfd:file (deleted)>\n");
  // The server has left it at its end.
  EXPECT_EQ(Out("wardctl call --password-file key --output - $SOCKET file x"),
            "x");
  EXPECT_EQ(
      Out("wardctl call --password-file key --output left=l --output right=- "
          "$SOCKET files && cat l && rm l"),
      "RL");
  EXPECT_THAT(Out("wardctl call --password-file key --output left=- $SOCKET "
                  "files"),
              "Lright=</memfd:file (deleted)>\n");
  const Ran missing =
      Run("wardctl call --password-file key $SOCKET read nowhere");
  EXPECT_EQ(missing.code, 2);
  EXPECT_THAT(missing.err, HasSubstr("open nowhere: No such file"));
  const Ran full =
      Run("wardctl call --password-file key --output /dev/full $SOCKET file x");
  EXPECT_EQ(full.code, 7);
  EXPECT_THAT(full.err, HasSubstr("/dev/full"));
  EXPECT_EQ(
      Run("wardctl call --password-file key $SOCKET greet x >/dev/full").code,
      7);
}

TEST_F(WardctlTest, PassesBulksAsFiles) {
  Start();
  EXPECT_EQ(Out("wardctl call --password-file key $SOCKET size blue"), "4\n");
  EXPECT_EQ(Out("head -c 100000 /dev/zero | "
                "wardctl call --password-file key $SOCKET size -"),
            "100000\n");
  EXPECT_EQ(Out("wardctl call --password-file key --raw $SOCKET picture"),
            std::string(kPictureSize, 'x'));
}

TEST_F(WardctlTest, ShowsWhoseAShareIsAndGivesItBack) {
  Owner owner;
  ASSERT_TRUE(owner.Start().ok());
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  setenv("WARD_PASSWORD", std::string(owner.password().Expose()).c_str(), 1);
  EXPECT_THAT(Out("wardctl call " + owner.socket_filename() + " share"),
              ContainsRegex("^/.*/ward-[^/]*/socket\n$"));
  unsetenv("WARD_PASSWORD");  // NOLINT(concurrency-mt-unsafe)
  EXPECT_TRUE(owner.Stop().ok());
}

// --- what goes wrong ---

TEST_F(WardctlTest, ExitsWithWhatAScriptMustKnow) {
  const Ran nobody = Run("wardctl ping --password-file key ./nothing");
  EXPECT_EQ(nobody.code, 3);
  EXPECT_EQ(nobody.out, "");
  EXPECT_THAT(nobody.err, AllOf(StartsWith("wardctl: "), HasSubstr("nothing"),
                                HasSubstr("[ServerUnreachable]")));
  Start();
  const Ran failed = Run("wardctl call --password-file key $SOCKET fail");
  EXPECT_EQ(failed.code, 1);
  EXPECT_EQ(failed.out, "");
  EXPECT_EQ(failed.err,
            "wardctl: message \"fail\": nothing\\x1b[31m here [NoSuchThing]\n");

  const Ran unknown = Run("wardctl call --password-file key $SOCKET great x");
  EXPECT_EQ(unknown.code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("did you mean greet"));
  const Ran count = Run("wardctl call --password-file key $SOCKET add 1");
  EXPECT_EQ(count.code, 2);
  EXPECT_THAT(count.err, HasSubstr("add takes int32, int32; there is 1 word"));
  const Ran number = Run("wardctl call --password-file key $SOCKET add 1 x");
  EXPECT_EQ(number.code, 2);
  EXPECT_THAT(number.err, HasSubstr("[InvalidArguments]"));

  const Ran element =
      Run("printf '1\\nx\\n' | wardctl call --password-file key $SOCKET sum -");
  EXPECT_EQ(element.code, 2);
  EXPECT_THAT(element.err, HasSubstr("[InvalidArguments]"));

  EXPECT_EQ(Run("wardctl ping --password-file wrong $SOCKET").code, 4);
  const Ran late =
      Run("wardctl call --password-file key --timeout 50ms $SOCKET wait");
  EXPECT_EQ(late.code, 5);
  EXPECT_THAT(late.err, HasSubstr("[TimedOut]"));
  const Ran died = Run("wardctl call --password-file key $SOCKET die");
  EXPECT_EQ(died.code, 6);
  EXPECT_THAT(died.err, HasSubstr("[CallCut]"));
  EXPECT_FALSE(server().Stop().ok());
}

// Whatever it waits for: a FIFO that nobody writes to, or reads from, and what
// somebody has open who says nothing.
TEST_F(WardctlTest, KeepsToItsTimeout) {
  Start();
  const std::string call = "call --password-file key --timeout 50ms ";
  const std::string bench = "bench --password-file key --timeout 50ms ";
  for (const std::string& words : std::vector<std::string>{
           call + "$SOCKET wait", call + "$SOCKET echo - <&3",
           call + "$SOCKET part - <&3", call + "$SOCKET size - <&3",
           call + "$SOCKET size fifo", call + "$SOCKET size /dev/fd/3",
           call + "$SOCKET read fifo", call + "$SOCKET read_all a=fifo",
           call + "--descriptor-set fifo $SOCKET part ''",
           call + "--output - $SOCKET pipe",
           call + "--output fifo $SOCKET file x",
           "call --password-file fifo --timeout 50ms $SOCKET fail",
           "ping --password-file - --timeout 50ms $SOCKET <&3",
           "ping --password-fd 3 --timeout 50ms $SOCKET",
           bench + "--time 1ms $SOCKET wait"}) {
    const Ran ran = Run(absl::StrCat(
        "mkfifo fifo silent && exec 3<>silent && rm silent && wardctl ", words,
        "; code=$?; rm fifo; exit $code"));
    EXPECT_EQ(ran.code, 5) << words << ": " << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("[TimedOut]")) << words;
  }
  ASSERT_EQ(kill(server().server_pid(), SIGSTOP), 0);
  EXPECT_EQ(
      Run("wardctl bench --password-file key --timeout 50ms $SOCKET").code, 5);
  ASSERT_EQ(kill(server().server_pid(), SIGCONT), 0);
}

TEST_F(WardctlTest, SaysWhatWasTypedWrong) {
  for (const auto& [words, said] :
       std::vector<std::pair<std::string, std::string>>{
           {"", "no command is named"},
           {"pong", "there is no command pong"},
           {"ping", "ping: it takes SERVER; see wardctl ping --help"},
           {"ping a b", "ping: it takes SERVER"},
           {"list a", "list: it takes no \"a\""},
           {"ping --fast a", "ping: there is no option --fast"},
           {"list --paths=3", "list: --paths takes nothing"},
           {"ping --timeout", "--timeout needs TIME"},
           {"ping --timeout 3 a", "--timeout: \"3\" is no time"},
           {"ping --timeout=-3s a", "--timeout: \"-3s\" is no time"},
           {"ping --server-user nobody-here a", "no user nobody-here"},
           {"ping --password-file nowhere a", "open nowhere: No such file"},
           {"ping --password-fd x a", "--password-fd: \"x\" is no descriptor"},
           {"ping --password-fd 77 a", "descriptor 77: Bad file descriptor"},
           {"bench --clients 0 a", "--clients: \"0\" is no number"},
           {"completion fish", "not for fish"},
           {"stats --interval 2 a", "--interval: \"2\" is no time"},
           {"stats --interval 0s a", "--interval: \"0s\" is no time"},
           {"stats --watch --prometheus a", "--prometheus goes with neither"},
           {"stats --json --prometheus a", "--prometheus goes with neither"},
       }) {
    const Ran ran = Run("wardctl " + words);
    EXPECT_EQ(ran.code, 2) << words;
    EXPECT_EQ(ran.out, "") << words;
    EXPECT_THAT(ran.err, HasSubstr(said)) << words;
  }
}

// --- passwords ---

TEST_F(WardctlTest, TakesThePasswordFromWhereNobodySeesIt) {
  Start();
  Out("wardctl ping --password-file - $SOCKET <key");
  Out("wardctl ping --password-fd 5 $SOCKET 5<key");
  Out("wardctl ping --password-fd 5 $SOCKET 5< <(printf 'open '; cat "
      "<<<sesame)");
  Out("WARD_PASSWORD='open sesame' wardctl ping $SOCKET");
  // An option counts for more.
  Out("WARD_PASSWORD=wrong wardctl ping --password-file key $SOCKET");
  const Ran none = Run("wardctl ping $SOCKET");
  EXPECT_EQ(none.code, 4);
  EXPECT_THAT(none.err,
              AllOf(HasSubstr("--password-file"), HasSubstr("WARD_PASSWORD")));
  EXPECT_EQ(Run("wardctl ping --password-file /dev/null $SOCKET").code, 4);
  EXPECT_EQ(Run("wardctl ping --password-file /dev/zero $SOCKET").code, 4);
}

TEST_F(WardctlTest, TheEnvironmentHasThePasswordNoLonger) {
  Start();
  EXPECT_EQ(Out("export WARD_PASSWORD='open sesame'; "
                "coproc wardctl call $SOCKET echo -; "
                "echo x >&${COPROC[1]}; read -ru ${COPROC[0]} reply; "
                "tr '\\0' '\\n' </proc/$COPROC_PID/environ | "
                "grep -c -e 'open sesame' -e SOCKET; "
                "input=${COPROC[1]} pid=$COPROC_PID; exec {input}>&-; "
                "wait $pid"),
            "1\n");
}

TEST_F(WardctlTest, AsksForThePasswordAtATerminal) {
  Start();
  const auto type = [this](const std::string& text, bool& echoes,
                           std::string& shown) {
    int controls = -1;
    const pid_t child = forkpty(&controls, nullptr, nullptr, nullptr);
    if (child == 0) {
      execlp("wardctl", "wardctl", "ping", server().socket_filename().c_str(),
             nullptr);
      _exit(127);
    }
    const FileDescriptor terminal(controls);
    shown = "";
    std::array<char, 1000> bytes;
    bool typed = false;
    // Ends with an error once nobody has the terminal open.
    for (ssize_t got; (got = read(controls, bytes.data(), bytes.size())) > 0;) {
      shown.append(bytes.data(), static_cast<size_t>(got));
      if (typed || shown.find("Password: ") == std::string::npos) continue;
      typed = true;
      EXPECT_EQ(write(controls, text.data(), text.size()),
                static_cast<ssize_t>(text.size()));
    }
    termios state{};
    EXPECT_EQ(tcgetattr(controls, &state), 0);
    echoes = (state.c_lflag & ECHO) != 0;
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  };
  bool echoes = false;
  std::string shown;
  EXPECT_EQ(type("open sesame\n", echoes, shown), 0);
  EXPECT_THAT(shown, AllOf(HasSubstr("answers"), Not(HasSubstr("sesame"))));
  EXPECT_TRUE(echoes);
  EXPECT_EQ(type("wrong\n", echoes, shown), 4);
  // Ctrl-C
  EXPECT_EQ(type("open \x03", echoes, shown), -SIGINT);
  EXPECT_TRUE(echoes);
}

// --- the other commands ---

TEST_F(WardctlTest, ListsServersWhateverTheyAreCalled) {
  Start();
  ServerOptions options;
  options.socket_filename = directory() + "/any name";
  Shop named(std::move(options));
  ASSERT_TRUE(named.Start().ok());
  // What /proc/net/unix has no room for.
  const std::string deep = directory() + "/" + std::string(200, 'd');
  fs::create_directory(deep);
  ServerOptions far;
  far.socket_filename = deep + "/socket";
  Shop distant(std::move(far));
  ASSERT_TRUE(distant.Start().ok());

  const std::string list = Out("wardctl list");
  EXPECT_THAT(list, StartsWith("    PID  STARTER  SOCKET"));
  for (const Shop* const one : {&server(), &named, &distant}) {
    EXPECT_THAT(list, ContainsRegex(absl::StrCat(
                          "\n *", one->server_pid(), " +", getpid(), "  ",
                          one->socket_filename(), " +[^ ]*wardctl_test")));
  }
  EXPECT_THAT(Lines(Out("wardctl list --paths")),
              AllOf(Contains(named.socket_filename()),
                    Contains(distant.socket_filename())));
  // A pid stands for its server.
  EXPECT_EQ(Out(absl::StrCat("wardctl call --password-file key ",
                             server().server_pid(), " greet Joe")),
            "Hello Joe\n");
  EXPECT_TRUE(named.Stop().ok());
  EXPECT_TRUE(distant.Stop().ok());
  fs::remove(deep);
  EXPECT_THAT(Out("wardctl list"), Not(HasSubstr("any name")));
  const Ran nobody = Run(absl::StrCat("wardctl stop ", getpid()));
  EXPECT_EQ(nobody.code, 3);
  EXPECT_THAT(nobody.err, HasSubstr("wardctl list"));
}

TEST_F(WardctlTest, Pings) {
  Start();
  EXPECT_THAT(
      Out("wardctl ping --password-file key $SOCKET"),
      ContainsRegex(absl::StrCat("^", server().socket_filename(),
                                 " answers, in [^ ]+; process ", getpid(),
                                 " of user ", getuid(), " has started it\n$")));
}

TEST_F(WardctlTest, PingsUntilThereIsAServer) {
  ServerOptions options;
  options.password = Secret(kPassword);
  options.socket_filename = directory() + "/late";
  Shop late(std::move(options));
  EXPECT_EQ(
      Run("wardctl ping --wait --timeout 100ms --password-file key late").code,
      3);
  // NOLINTNEXTLINE(cert-env33-c)
  FILE* const waiting =
      popen(absl::StrCat("cd ", directory(),
                         " && wardctl ping --wait --password-file key late")
                .c_str(),
            "re");
  ASSERT_TRUE(late.Start().ok());
  std::array<char, 1000> line{};
  EXPECT_NE(fgets(line.data(), line.size(), waiting), nullptr);
  EXPECT_THAT(line.data(), StartsWith("late answers"));
  EXPECT_EQ(pclose(waiting), 0);
  EXPECT_TRUE(late.Stop().ok());
}

TEST_F(WardctlTest, ShowsMethodsAndTheirMessages) {
  Start();
  const std::string methods =
      Out("wardctl methods --password-file key $SOCKET");
  EXPECT_THAT(Lines(methods),
              AllOf(Contains("greet(string) -> string"), Contains("fail()"),
                    Contains("add(int32, int32) -> int32"),
                    Contains("sum(stream of int64) -> int64"),
                    Contains("talk(int32) -> conversation")));
  EXPECT_THAT(methods, Not(HasSubstr("ward.methods")));
  EXPECT_THAT(Out("wardctl methods --all --password-file key $SOCKET"),
              HasSubstr("ward.owners"));
  EXPECT_THAT(Out("wardctl methods --password-file key $SOCKET part greet"),
              AllOf(StartsWith("part(ward.test.Query) -> ward.test.Part\n"
                               "greet(string) -> string\n"),
                    HasSubstr("message Part {\n  string name = 1;\n  int32 "
                              "price = 2;\n}\n"),
                    HasSubstr("message Query {")));
  // With what they are made of.
  EXPECT_THAT(Out("wardctl methods --password-file key $SOCKET find"),
              AllOf(HasSubstr("\n\n// ward.test.Catalog\nmessage Catalog {\n"),
                    HasSubstr("\n\n// ward.test.Part\nmessage Part {\n")));
  EXPECT_EQ(Run("wardctl methods --password-file key $SOCKET grete").code, 2);
}

TEST_F(WardctlTest, ShowsTheOwners) {
  Start();
  EXPECT_THAT(Out("wardctl owners --password-file key $SOCKET"),
              ContainsRegex(absl::StrCat("^", getpid(), "  .*wardctl_test")));
}

TEST_F(WardctlTest, ShowsWhatAServerHasDone) {
  Start();
  Out("wardctl call --password-file key $SOCKET greet Joe");
  Out("wardctl call --password-file key $SOCKET file x >/dev/null");
  Run("wardctl call --password-file key $SOCKET fail");
  Run("wardctl ping --password-file wrong $SOCKET");
  const std::string stats = "wardctl stats --password-file key $SOCKET";
  std::string page = Out(stats);
  EXPECT_THAT(page, ContainsRegex("\nward.stats +1 +1 +0 +- +- +- "
                                  "+0 +0 +0 +0\n"));
  // Those that came before may still be about to leave.
  for (int i = 0; i < 1000 && !absl::StrContains(page, "\nclients   1 of 64 ");
       ++i) {
    page = Out(stats);
  }
  EXPECT_THAT(
      page,
      AllOf(
          StartsWith(absl::StrCat("process ", server().server_pid(), ", up ")),
          ContainsRegex("^process [0-9]+, up [0-9a-z.]+, 1 owner\n"),
          HasSubstr("\nclients   1 of 64 places taken, 0 by idle ones, "),
          HasSubstr("\nrefused   InvalidPassword 1\n"),
          ContainsRegex("\ngreet +1 +0 +0 +[0-9.]+[mun]s "),
          ContainsRegex("\nfile +1 .* 0 +1\n"),
          HasSubstr("\nerrors of fail: NOT_FOUND 1\n"),
          Not(HasSubstr("\nsum ")), Not(HasSubstr("(unknown)"))));
  EXPECT_THAT(Out("wardctl stats --all --password-file key $SOCKET"),
              AllOf(HasSubstr("\nsum "), HasSubstr("\n(unknown) ")));
  const std::string json =
      Out("wardctl stats --json --password-file key $SOCKET");
  EXPECT_THAT(
      json,
      AllOf(StartsWith(absl::StrCat("{\"pid\":", server().server_pid(), ",")),
            HasSubstr("{\"name\":\"greet\",\"calls\":1,"),
            HasSubstr("\"owners\":1}\n")));
  EXPECT_EQ(Lines(json).size(), 1u);
  // Wherever it is called.
  EXPECT_THAT(Lines(Out("cd / && wardctl stats --prometheus --password-file "
                        "$OLDPWD/key \"$(realpath --relative-to=/ $SOCKET)\"")),
              Contains(absl::StrCat("ward_calls_total{socket=\"",
                                    server().socket_filename(),
                                    "\",method=\"greet\"} 1")));
  EXPECT_EQ(Run("wardctl stats --password-file wrong $SOCKET").code, 4);
  EXPECT_EQ(Run("wardctl stats --password-file key ./nothing").code, 3);
  EXPECT_EQ(Run("wardctl stats --password-file key $SOCKET >/dev/full").code,
            7);
}

TEST_F(WardctlTest, ShowsWhatAFullServerDoes) {
  ServerOptions options;
  options.password = Secret(kPassword);
  options.socket_filename = directory() + "/full";
  options.max_clients = 1;
  Shop full(std::move(options));
  ASSERT_TRUE(full.Start().ok());
  EXPECT_THAT(
      Out("coproc wardctl call --password-file key full echo -; "
          "pid=$COPROC_PID input=${COPROC[1]}; "
          "echo x >&$input; read -ru ${COPROC[0]} reply; "
          "wardctl stats --password-file key full; exec {input}>&-; wait $pid"),
      AllOf(HasSubstr("clients   1 of 1 places taken, "),
            ContainsRegex("\necho +1 +1 +0 ")));
  EXPECT_TRUE(full.Stop().ok());
}

TEST_F(WardctlTest, WatchesAServerUntilItIsGone) {
  Start();
  // Where there is no terminal, page after page.
  const Ran watched =
      Run("wardctl stats --watch --interval 50ms --password-file key $SOCKET "
          "> >(sed -u '/^METHOD/q' >first; sed -u '/CALLS.S/q' >second; "
          "wardctl stop $SOCKET >/dev/null; cat >/dev/null); code=$?; "
          "cat first second; rm first second; exit $code");
  EXPECT_THAT(watched.code, AnyOf(3, 6)) << watched.err;
  EXPECT_THAT(watched.err, StartsWith("wardctl: "));
  EXPECT_THAT(watched.out,
              AllOf(StartsWith("process "), ContainsRegex("\nMETHOD +CALLS "),
                    ContainsRegex("\n\nprocess [^\n]*\n"), HasSubstr("CALLS/S"),
                    Not(HasSubstr("\x1b"))));
  EXPECT_TRUE(server().Stop().ok());
}

TEST_F(WardctlTest, RefreshesATerminal) {
  Start();
  int controls = -1;
  const pid_t child = forkpty(&controls, nullptr, nullptr, nullptr);
  if (child == 0) {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): there are no other threads.
    setenv("WARD_PASSWORD", kPassword, 1);
    execlp("wardctl", "wardctl", "stats", "--watch", "--interval", "10ms",
           server().socket_filename().c_str(), nullptr);
    _exit(127);
  }
  const FileDescriptor terminal(controls);
  std::string shown;
  std::array<char, 1000> bytes;
  bool interrupted = false;
  for (ssize_t got; (got = read(controls, bytes.data(), bytes.size())) > 0;) {
    shown.append(bytes.data(), static_cast<size_t>(got));
    if (interrupted || shown.find("CALLS/S") == std::string::npos) continue;
    interrupted = true;
    EXPECT_EQ(write(controls, "\x03", 1), 1);  // Ctrl-C
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) << status;
  EXPECT_THAT(shown, AllOf(StartsWith("\x1b[H\x1b[Jprocess "),
                           HasSubstr("\n\x1b[H\x1b[Jprocess ")));
}

TEST_F(WardctlTest, StopsAServer) {
  Start();
  const pid_t pid = server().server_pid();
  // By any name of the socket.
  EXPECT_EQ(Out("wardctl stop ./${SOCKET#\"$PWD/\"}"),
            absl::StrCat("process ", pid, " has ended\n"));
  EXPECT_THAT(server().CheckAlive().ToString(),
              HasSubstr("exited with code 0"));
  const Ran again = Run("wardctl stop $SOCKET");
  EXPECT_EQ(again.code, 3);
  EXPECT_THAT(again.err, HasSubstr("no server of ward's is at"));
  EXPECT_TRUE(server().Stop().ok());
}

// As list shows it: when somebody has tidied up, or in another mount namespace.
TEST_F(WardctlTest, StopsAServerWhoseNameIsGone) {
  Start();
  ServerOptions options;
  options.socket_filename = directory() + "/named";
  Shop named(std::move(options));
  ASSERT_TRUE(named.Start().ok());
  fs::remove(server().socket_filename());
  fs::remove(named.socket_filename());
  EXPECT_EQ(Out(absl::StrCat("wardctl stop ", server().server_pid())),
            absl::StrCat("process ", server().server_pid(), " has ended\n"));
  EXPECT_EQ(Out("wardctl stop \"$PWD/named\""),
            absl::StrCat("process ", named.server_pid(), " has ended\n"));
  EXPECT_TRUE(server().Stop().ok());
  EXPECT_TRUE(named.Stop().ok());
}

TEST_F(WardctlTest, StopsOnlyServersOfWards) {
  const std::string path = directory() + "/other";
  FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(socket.get(), reinterpret_cast<sockaddr*>(&address),
                 sizeof(address)),
            0);
  ASSERT_EQ(listen(socket.get(), 1), 0);
  // Closed when the child has become another program.
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t other = fork();
  if (other == 0) {
    execlp("sleep", "sleep", "infinity", nullptr);
    _exit(127);
  }
  // Of this process, which has ward in it, it would be a server.
  socket.Reset();
  close(ends[1]);
  char none = 0;
  EXPECT_EQ(read(ends[0], &none, 1), 0);
  close(ends[0]);
  const Ran ran = Run("wardctl stop other");
  EXPECT_EQ(ran.code, 3);
  EXPECT_THAT(ran.err, HasSubstr("no server of ward's is at other"));
  EXPECT_EQ(kill(other, SIGKILL), 0);
  EXPECT_EQ(waitpid(other, nullptr, 0), other);
  fs::remove(path);
}

// As under strace, or one that will not end.
TEST_F(WardctlTest, KillsAServerThatDoesNotStopIfAskedTo) {
  Start();
  const pid_t pid = server().server_pid();
  ASSERT_EQ(kill(pid, SIGSTOP), 0);
  const Ran late = Run("wardctl stop --timeout 50ms $SOCKET");
  EXPECT_EQ(late.code, 5);
  EXPECT_THAT(late.err, HasSubstr("--kill"));
  EXPECT_EQ(Out("wardctl stop --kill --timeout 50ms $SOCKET"),
            absl::StrCat("process ", pid, " has ended\n"));
  EXPECT_FALSE(server().Stop().ok());
}

TEST_F(WardctlTest, MeasuresHowFastAServerAnswers) {
  Start();
  for (const std::string options : {"", "--clients 3 ", "--connect "}) {
    EXPECT_THAT(
        Out(absl::StrCat("wardctl bench --time 20ms ", options,
                         "--password-file key $SOCKET greet Joe")),
        ContainsRegex("^greet, [13] clients?: [1-9][0-9]* calls in [^ ]+, "
                      "[0-9]+ a second\nleast .*, median .*, 90 % .*, 99 % .*, "
                      "99.9 % .*, most [^ ]+\n$"));
  }
  Out("wardctl bench --time 1ms --password-file key $SOCKET");
  const Ran failed =
      Run("wardctl bench --time 1ms --password-file key $SOCKET fail");
  EXPECT_EQ(failed.code, 1);
  EXPECT_THAT(failed.out, HasSubstr(" failed\n"));
  EXPECT_THAT(failed.err, HasSubstr("[NoSuchThing]"));
}

// A kept connection gives its place to who waits, between two calls: that is no
// call's failure.
TEST_F(WardctlTest, MeasuresAServerWithFewerPlacesThanClients) {
  ServerOptions options;
  options.password = Secret(kPassword);
  options.socket_filename = directory() + "/few";
  options.max_clients = 2;
  Shop few(std::move(options));
  ASSERT_TRUE(few.Start().ok());
  for (const std::string call : {"greet Joe", "sum 1 2", "talk 7"}) {
    EXPECT_THAT(
        Out("wardctl bench --clients 8 --time 100ms --password-file key few " +
            call),
        HasSubstr(", 8 clients: "));
  }
  EXPECT_TRUE(few.Stop().ok());
}

// --- help, the manual and completion ---

// The first word of each line of `text` that begins with `indent` and it.
std::vector<std::string> Terms(const std::string& text,
                               const std::string& indent) {
  std::vector<std::string> terms;
  for (std::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, indent)) continue;
    const std::string word(line.substr(0, line.find(' ')));
    if (!word.empty()) terms.push_back(word);
  }
  return terms;
}

TEST_F(WardctlTest, HelpManualAndCompletionSayTheSame) {
  const std::string overview = Out("wardctl --help");
  EXPECT_EQ(Out("wardctl help"), overview);
  const std::string manual = Out("wardctl manual");
  // One process for all of them.
  const std::string completes =
      "source <(wardctl completion bash); complete_words() { "
      "COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)); _wardctl wardctl; "
      "printf '%s\\n' \"${COMPREPLY[@]}\"; }; ";
  std::vector<std::string> commands;
  for (const std::string& word : Terms(overview, "  ")) {
    if (std::isalpha(static_cast<unsigned char>(word[0])) != 0) {
      commands.push_back(word);
    } else if (word == "--version") {
      EXPECT_THAT(manual, HasSubstr("\n.SS \"\\-\\-version\"\n"));
    } else {
      EXPECT_THAT(manual, HasSubstr(absl::StrCat(".TP\n.B ", word, "\n")));
    }
  }
  EXPECT_THAT(commands,
              ElementsAre("list", "ping", "methods", "call", "owners", "stats",
                          "stop", "bench", "completion", "manual", "help"));
  std::vector<std::string> offered = commands;
  offered.insert(offered.end(), {"--help", "--version"});
  EXPECT_EQ(Lines(Out(completes + "complete_words wardctl ''")), offered);
  EXPECT_EQ(Out(completes + "complete_words wardctl me"), "methods\n");
  // Of each but help: its help, a line of dashes, what is completed, and a NUL.
  const std::vector<std::string> told = absl::StrSplit(
      Out(completes +
          "for command in list ping methods call owners stats stop bench "
          "completion manual; do help=$(wardctl $command --help); "
          "[[ $help == \"$(wardctl help $command)\" ]] || exit; "
          "printf '%s\\n---\\n' \"$help\"; "
          "complete_words wardctl $command --; printf '\\0'; done"),
      '\0');
  ASSERT_EQ(told.size(), commands.size());
  for (size_t i = 0; i < commands.size(); ++i) {
    const size_t section = manual.find(absl::StrCat(".SS \"", commands[i]));
    ASSERT_NE(section, std::string::npos) << commands[i];
    if (commands[i] == "help") continue;
    const std::pair<std::string, std::string> help =
        absl::StrSplit(told[i], "\n---\n");
    for (const std::string& line : Lines(help.first)) {
      EXPECT_LE(line.size(), 80) << line;
    }
    std::vector<std::string> options = Terms(help.first, "  -");
    for (std::string& option : options) option.insert(0, "-");
    EXPECT_EQ(Lines(help.second), options);
    std::vector<std::string> in_manual = Terms(
        manual.substr(section, manual.find("\n.S", section + 1) - section),
        ".B \\-\\-");
    for (std::string& option : in_manual) {
      option = "--" + absl::StrReplaceAll(option, {{"\\-", "-"}});
    }
    in_manual.emplace_back("--help");
    EXPECT_EQ(in_manual, options) << commands[i];
  }
}

TEST_F(WardctlTest, ItsVersionIsThatOfTheModule) {
  const std::string said = Out("wardctl --version");
  std::string_view version = said;
  ASSERT_TRUE(absl::ConsumePrefix(&version, "wardctl of ward ")) << said;
  ASSERT_TRUE(absl::ConsumeSuffix(&version, "\n")) << said;
  std::stringstream module;
  module << std::ifstream("MODULE.bazel").rdbuf();
  EXPECT_THAT(module.str(),
              HasSubstr(absl::StrCat("\n    name = \"ward\",\n",
                                     "    version = \"", version, "\",\n")));
  EXPECT_EQ(Run("wardctl --version now").code, 2);
}

TEST_F(WardctlTest, CompletionKnowsServersAndTheirMethods) {
  Start();
  const std::string completes =
      "source <(wardctl completion bash); complete_words() { "
      "COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)); _wardctl wardctl; "
      "printf '%s\\n' \"${COMPREPLY[@]}\"; }; ";
  const std::string& path = server().socket_filename();
  EXPECT_THAT(
      Lines(Out(completes + "complete_words wardctl ping ''")),
      AllOf(Contains(path), Contains(absl::StrCat(server().server_pid()))));
  EXPECT_EQ(Out(absl::StrCat(completes, "complete_words wardctl stop ",
                             path.substr(0, path.size() - 3))),
            path + "\n");
  EXPECT_EQ(Out(completes +
                "complete_words wardctl call --password-file key $SOCKET gr"),
            "greet\n");
  EXPECT_EQ(Out("export WARD_PASSWORD='open sesame'; " + completes +
                "complete_words wardctl methods $SOCKET greet add re"),
            "read\nread_all\n");
  // The shell does not wait for whoever is to say it, and takes it from nobody.
  EXPECT_EQ(Out("mkfifo fifo && exec 3<>fifo 4<key; " + completes +
                "complete_words wardctl call --password-file - $SOCKET gr <&3; "
                "complete_words wardctl call --password-file fifo $SOCKET gr; "
                "complete_words wardctl call --password-fd 3 $SOCKET gr; "
                "complete_words wardctl call --password-fd 4 $SOCKET gr; "
                "cat <&4; rm fifo"),
            "\n\n\n\nopen sesame\n");
  // Without the password nothing is known, and nobody is asked for it; nor is
  // anything of an option's argument, or a method's.
  EXPECT_EQ(Out(completes + "complete_words wardctl call $SOCKET gr"), "\n");
  EXPECT_EQ(Out(completes + "complete_words wardctl ping --password-file k"),
            "\n");
  EXPECT_EQ(Out(completes +
                "complete_words wardctl call --password-file key $SOCKET greet "
                "x"),
            "\n");
}

TEST_F(WardctlTest, TheManualIsARoffPage) {
  if (Run("command -v man groff").code != 0) {
    GTEST_SKIP() << "man, or groff, is not installed";
  }
  const Ran page =
      Run("wardctl manual | MANROFFOPT='-ww' LC_ALL=C.UTF-8 "
          "MANWIDTH=80 man -l - | col -b");
  EXPECT_EQ(page.err, "");
  EXPECT_THAT(page.out, AllOf(HasSubstr("EXIT STATUS"),
                              HasSubstr("--password-file FILE")));
}

}  // namespace
}  // namespace ward
