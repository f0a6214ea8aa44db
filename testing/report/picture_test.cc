#include "ward/testing/report/picture.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "absl/base/attributes.h"
#include "absl/base/config.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "ward/channel/message_channel.h"
#include "ward/server/abstract_server.h"
#include "ward/testing/call_server.h"
#include "ward/testing/explore.h"
#include "ward/testing/report/explanation.h"
#include "ward/testing/report/places.h"
#include "ward/testing/report/run_events.h"
#include "ward/testing/search/doom.h"
#include "ward/testing/search/make_runs.h"
#include "ward/testing/simulator/scheduler.h"

// --- runs that fail ---

// Not among ward's own functions, which a picture leaves out.
namespace bank {
namespace {

std::mutex mutex;
int balance;

// These have names in an optimised program, too.
ABSL_ATTRIBUTE_NOINLINE int Balance() {
  const std::lock_guard<std::mutex> lock(mutex);
  return balance;
}

ABSL_ATTRIBUTE_NOINLINE void SetBalance(int amount) {
  const std::lock_guard<std::mutex> lock(mutex);
  balance = amount;
}

void Deposit(int amount) { SetBalance(Balance() + amount); }

// Two threads wait for each other as often as they are told, and then lose an
// update.
ABSL_ATTRIBUTE_NOINLINE void LosesAnUpdate(int rounds) {
  SetBalance(0);
  std::condition_variable changed;
  int turn = 0;
  const auto use = [&](int amount) {
    for (int i = 0; i < rounds; ++i) {
      std::unique_lock<std::mutex> lock(mutex);
      changed.wait(lock, [&] { return turn % 2 == amount - 1; });
      ++turn;
      changed.notify_one();
    }
    Deposit(amount);
  };
  std::thread other([&] { use(2); });
  use(1);
  other.join();
  EXPECT_EQ(Balance(), 3);
}

class GreetingServer : public ward::AbstractServer {
 public:
  GreetingServer() {
    DefineMessageHandler(
        "greet", [](ward::MessageChannel& channel, std::string_view name) {
          return channel.Write(absl::StrCat("Hello ", name));
        });
  }
};

void CallsAServerThatDies() {
  GreetingServer server;
  if (!server.Start().ok()) return;
  EXPECT_TRUE(ward::testing::CallServer(server, "greet", "Joe </script>").ok());
  (void)server.Stop();
}

void AnswersAClient() {
  GreetingServer server;
  if (!server.Start().ok()) return;
  std::thread client([&server] {
    EXPECT_TRUE(ward::testing::CallServer(server, "greet", "Joe").ok());
  });
  client.join();
  (void)server.Stop();
  ADD_FAILURE() << "no luck";
}

void LocksInTwoOrders() {
  // Outlive the run that gets stuck.
  auto* const first = new std::mutex;
  auto* const second = new std::mutex;
  std::thread other([=] {
    const std::lock_guard<std::mutex> outer(*second);
    const std::lock_guard<std::mutex> inner(*first);
  });
  {
    const std::lock_guard<std::mutex> outer(*first);
    const std::lock_guard<std::mutex> inner(*second);
  }
  other.join();
  delete first;
  delete second;
}

// As what checks accesses to memory says it, which this test is without.
void RacesForTheBalance() {
  ward::testing::Scheduler::Current()->Fault(absl::StrCat(
      "a data race: a write at <",
      ward::testing::PlaceOf(reinterpret_cast<uintptr_t>(&SetBalance)),
      ">\n  Now, a write\n"));
}

}  // namespace
}  // namespace bank

namespace ward::testing {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::Not;

using ::bank::AnswersAClient;
using ::bank::CallsAServerThatDies;
using ::bank::LocksInTwoOrders;
using ::bank::LosesAnUpdate;
using ::bank::RacesForTheBalance;
using ::bank::SetBalance;

ExploreOptions FewDeviations() {
  ExploreOptions options;
  options.search = Search::kDepthFirst;
  options.runs = 20000;
  options.doom_runs = 300;
  return options;
}

// Of a run of `body` that fails.
std::string EventsOfFailure(absl::FunctionRef<void()> body) {
  const ExploreOptions options = FewDeviations();
  const Exploration exploration = FindFailure(options, body);
  return exploration.failure.has_value()
             ? EventsOf(options, *exploration.failure, body)->ToJson()
             : "no failure";
}

std::string PictureOfFailure(std::string_view name,
                             absl::FunctionRef<void()> body,
                             const ExploreOptions& options = FewDeviations()) {
  const Exploration exploration = FindFailure(options, body);
  if (!exploration.failure.has_value()) return "no failure";
  const Doom doom = FindDoom(options, *exploration.failure, body);
  return DrawPicture(
      {std::string(name), exploration.failure->what, "again", doom.ToJson()},
      EventsInWords(*EventsOf(options, *exploration.failure, body)));
}

// --- how a browser shows them ---

std::string Browser() {
  for (const char* const name :
       {"/usr/bin/chromium-headless-shell", "/usr/bin/chromium"}) {
    if (access(name, X_OK) == 0) return name;
  }
  return "";
}

// What the page has become once its script has run. A screenshot stands beside
// the test's outputs.
std::string Show(const std::string& page, const std::string& name,
                 const std::string& anchor = "") {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody sets them.
  const char* const outputs = getenv("TEST_UNDECLARED_OUTPUTS_DIR");
  const std::string folder =
      outputs == nullptr ? ::testing::TempDir() : std::string(outputs);
  const std::string path = absl::StrCat(folder, "/", name, ".html");
  std::ofstream(path) << page;
  const std::string command = absl::StrCat(
      "HOME=", ::testing::TempDir(), " timeout 120 ", Browser(),
      " --headless --no-sandbox --disable-gpu --disable-dev-shm-usage"
      " --window-size=1400,900 --virtual-time-budget=3000");
  const std::string target = absl::StrCat(" 'file://", path, anchor, "'");
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  EXPECT_EQ(
      system(absl::StrCat(command, " --screenshot=", folder, "/", name, ".png",
                          target, " 2>", folder, "/", name, ".log")
                 .c_str()),
      0);
  FILE* const output = popen(
      absl::StrCat(command, " --dump-dom", target, " 2>/dev/null").c_str(),
      "r");
  std::string text;
  std::array<char, 4096> part;
  for (size_t got; (got = fread(part.data(), 1, part.size(), output)) > 0;) {
    text.append(part.data(), got);
  }
  pclose(output);
  // Not what it was made from.
  return text.substr(0, text.find("<script id=\"data\""));
}

// `page` with a hand that uses it, and then writes what it has seen to where
// the failure was. It has said(text), and does at(event, x, y) on the drawing,
// row(n) being the middle of a row.
std::string WithHand(const std::string& page, std::string_view does) {
  return absl::StrCat(page, R"(<script>
    const all = [], said = text => all.push(text);
    const row = n => kHead + n * kRow + kRow / 2 - scroll.scrollTop;
    const at = (type, x, y) => {
      const {left, top} = canvas.getBoundingClientRect();
      canvas.dispatchEvent(new MouseEvent(
          type, {clientX: left + x, clientY: top + y, bubbles: true}));
    };)",
                      does, R"(
    document.getElementById('why').textContent = all.join('; ');
  </script>)");
}

class PictureTest : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
    GTEST_SKIP() << "A browser is looked at once, without sanitizers.";
#endif
    if (!Browser().empty()) return;
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody sets it.
    ASSERT_EQ(std::getenv("CI"), nullptr) << "install chromium-headless-shell";
    GTEST_SKIP() << "install chromium-headless-shell";
  }
};

TEST_F(PictureTest, ShowsAShortRunWhole) {
  const std::string shown =
      Show(PictureOfFailure("Account.LosesNoUpdate", [] { LosesAnUpdate(0); }),
           "short");
  EXPECT_THAT(shown, MatchesRegex("(.|\n)*>([2-9][0-9]) steps in ([2-9][0-9]) "
                                  "rows<(.|\n)*"));
  EXPECT_THAT(shown, HasSubstr("Expected equality of these values"));
  EXPECT_THAT(shown, Not(HasSubstr("This page failed")));
}

TEST_F(PictureTest, ShowsALongRunByWhatCanBeSeenOfIt) {
  const std::string page =
      PictureOfFailure("Account.LosesNoUpdate", [] { LosesAnUpdate(2500); });
  const std::string shown = Show(page, "long", "#SetBalance");
  EXPECT_THAT(shown, MatchesRegex("(.|\n)*>[2-9][0-9],[0-9]{3} steps in "
                                  "[0-9,]+ rows<(.|\n)*"))
      << "folded";
  // All of it is in the page, and little of it is drawn.
  EXPECT_LT(shown.size(), 20000u);
  EXPECT_THAT(shown, MatchesRegex("(.|\n)*>[0-9]+ found<(.|\n)*"))
      << "functions are searched, too";
  EXPECT_THAT(shown, Not(HasSubstr(">0 found<")));
  EXPECT_THAT(shown, Not(HasSubstr("This page failed")));
}

TEST_F(PictureTest, IsFoldedAndUnfoldedAndTellsMoreWhereThePointerIs) {
  const std::string page =
      PictureOfFailure("Account.LosesNoUpdate", [] { LosesAnUpdate(100); });
  const std::string shown = Show(WithHand(page, R"(
    scroll.scrollTop = 0;
    const isMarked = i => steps[i] && ['deviation', 'doom', 'failure'].includes(steps[i].kind);
    let folded = 0, besides = 0;
    for (const [first, last] of rows) {
      folded += first === last ? 0 : 1;
      for (let i = first - 3; i <= last + 3 && first !== last; ++i) besides += isMarked(i) ? 1 : 0;
    }
    said(`folded: ${folded > 10}, beside a mark: ${besides}`);
    const before = rows.length;
    at('click', 200, row(5));
    said(`unfolds ${rows.length - before}`);
    at('click', 200, row(5));
    said(`folds ${rows.length - before}`);
    at('mousemove', 200, row(7));
    said(tip.textContent);
    at('click', 200, 12);
    said(`one lane: ${lanes.length === 1}`);
    document.getElementById('unfold').click();
    said(`all: ${rows.length === steps.length}`);
    toFailure();
    said(steps[rows[selected][0]].kind);
  )"),
                                 "hand");
  EXPECT_THAT(
      shown,
      MatchesRegex(
          "(.|\n)*>folded: true, beside a mark: 0; unfolds [1-9]; folds 0; "
          "thread [01] .(.|\n)*"
          "thread [01] is waiting for condition 1(.|\n)*"
          "mutex `bank::mutex` is held by thread [01](.|\n)*"
          "LosesAnUpdate[^\n]*(\n  bank::[^\n]*)*; one lane: true; all: true; "
          "failure<(.|\n)*"));
}

// So that what the one says can be looked for in the other.
TEST_F(PictureTest, HasTheNumbersAndNamesThatTheWordsHave) {
  const auto body = [] { LosesAnUpdate(0); };
  ExploreOptions options = FewDeviations();
  options.doom_runs = 0;
  const Exploration found = FindFailure(options, body);
  ASSERT_TRUE(found.failure.has_value());
  const std::string told = ExplainFailure(options, *found.failure, body);
  const std::string shown = Show(
      WithHand(PictureOfFailure("Account.LosesNoUpdate", body, options), R"(
    steps.forEach(one => {
      if (one.number) said(`${one.number}  thread ${one.by}: ${one.text},`);
    });
  )"),
      "numbers");
  int compared = 0;
  for (std::string_view line : absl::StrSplit(told, '\n')) {
    line = absl::StripLeadingAsciiWhitespace(line);
    const size_t place = line.find(", in ");
    if (line.empty() || !absl::ascii_isdigit(line.front()) ||
        place == std::string_view::npos || absl::StrContains(line, "=")) {
      continue;
    }
    EXPECT_THAT(shown, HasSubstr(absl::StrReplaceAll(line.substr(0, place + 1),
                                                     {{" (main)", ""}})));
    ++compared;
  }
  EXPECT_GT(compared, 15) << told;
}

TEST_F(PictureTest, MarksWhereItWasDoomedAndDrawsTheChanceOfFailing) {
  const std::string page =
      PictureOfFailure("Account.LosesNoUpdate", [] { LosesAnUpdate(20); });
  const std::string shown = Show(WithHand(page, R"(
    const says = document.getElementById('doom');
    said(`legend: ${!says.hidden && says.textContent.startsWith('Decision ')}`);
    document.getElementById('doomed').click();
    const doomed = rows[selected][0], one = steps[doomed];
    said(`${one.kind}: ${describe(one).split('\n')[0]}`);
    said(`after it: ${one.decisions === data.doom.decision + 1}`);
    said(`before it: ${steps[doomed - 1].decisions <= one.decisions}`);
    said(`at once: ${steps.slice(0, doomed).every(step => step.kind === 'deviation' || step.decisions <= data.doom.decision)}`);
    said(`rises: ${chanceAfter(0) < chanceAfter(one.decisions)}`);
    said(`in the end: ${chanceAfter(1e9)}`);
    const ratio = canvas.width / canvas.clientWidth;
    const colourAt = (x, y) => [...canvas.getContext('2d').getImageData(x * ratio, y * ratio, 1, 1).data].join();
    scroll.scrollTop = scroll.scrollHeight;
    draw();
    said(`drawn: ${colourAt(kCurve + kCurveWidth / 2, row(rows.length - 2))}`);
  )"),
                                 "doomed");
  EXPECT_THAT(shown,
              HasSubstr(">legend: true; doom: doomed from here on; after it: "
                        "true; before it: true; at once: true; rises: true; in "
                        "the end: 1; drawn: 234,214,251,255<"))
      << shown;
}

TEST_F(PictureTest, ShowsMessagesAndDeaths) {
  ExploreOptions options = FewDeviations();
  options.deaths = true;
  const std::string page =
      PictureOfFailure("Greeting.Comes", CallsAServerThatDies, options);
  const std::string shown = Show(page, "death", "#is killed");
  EXPECT_THAT(shown, Not(HasSubstr(">0 found<")));
  EXPECT_THAT(shown, Not(HasSubstr("This page failed")));
}

// A request goes to who serves it, and its answer to who has asked.
TEST_F(PictureTest, HasMessagesGoToTheThreadsThatTheyAreFor) {
  ExploreOptions options = FewDeviations();
  options.doom_runs = 0;
  const std::string shown = Show(
      WithHand(PictureOfFailure("Greeting.Comes", AnswersAClient, options), R"(
    const asks = steps.find(one => one.kind === 'message' && one.text.includes('Joe'));
    const answer = steps.find(one => one.kind === 'message' && one.text.includes('Hello'));
    said(`asks as no other: ${asks.by > 0 && threads[asks.by].name !== 'main'}`);
    said(`is served: ${asks.receiver === answer.by}`);
    said(`is answered: ${answer.receiver === asks.by}`);
    said(`killed: ${steps.filter(one => one.kind === 'death').length}`);
  )"),
      "messages");
  EXPECT_THAT(shown, HasSubstr(">asks as no other: true; is served: true; is "
                               "answered: true; killed: 0<"))
      << shown;
}

// The same in words.
TEST(Explanation, HasDeathsAndMessagesWithTheirConnections) {
  ExploreOptions options = FewDeviations();
  options.deaths = true;
  const Exploration found = FindFailure(options, CallsAServerThatDies);
  ASSERT_TRUE(found.failure.has_value());
  const std::string told =
      ExplainFailure(options, *found.failure, CallsAServerThatDies);
  EXPECT_THAT(told, ContainsRegex("[0-9]+=1, at step [0-9]+: [a-z]+ "
                                  "\\([0-9]+\\) was killed, thread [0-9]+ "));
  EXPECT_THAT(told, ContainsRegex("\n        thread [0-9]+ [^\n]*: [a-z]+ "
                                  "\\([0-9]+\\) -> [a-z]+ \\([0-9]+\\), "
                                  "connection [0-9]+: "));
}

TEST_F(PictureTest, ShowsADeadlock) {
  const std::string shown =
      Show(PictureOfFailure("Locks.AreTaken", LocksInTwoOrders), "deadlock",
           "#waiting for mutex");
  EXPECT_THAT(shown, HasSubstr("deadlock: all threads wait"));
  EXPECT_THAT(shown, HasSubstr(">2 found<"));
  EXPECT_THAT(shown, Not(HasSubstr("This page failed")));
}

TEST_F(PictureTest, MarksWhereThereWasARace) {
  const std::string page =
      PictureOfFailure("Account.IsLocked", RacesForTheBalance);
  const std::string shown = Show(WithHand(page, R"(
    toFailure();
    const one = steps[rows[selected][0]];
    said(`${one.kind}: ${one.text}`);
  )"),
                                 "race");
  EXPECT_THAT(shown,
              ContainsRegex(">failure: a data race: a write at "
                            "[^\n]*(SetBalance|picture_test.cc:[0-9]+)"));
  EXPECT_THAT(shown, Not(HasSubstr("This page failed")));
}

// --- what it is made of ---

TEST(RunEvents, HasWhatHappened) {
  EXPECT_THAT(
      EventsOfFailure([] { LosesAnUpdate(0); }),
      AllOf(HasSubstr(R"(["p",1,"test"])"), HasSubstr(R"(["t",0,1,"main"])"),
            HasSubstr(R"(["t",1,1,"thread 1"])"),
            HasSubstr(R"("locking a mutex"])"), HasSubstr(R"(["l",1,)"),
            HasSubstr(R"(["u",1,)"), HasSubstr(R"(["e",1])"),
            HasSubstr("SetBalance(int)"), HasSubstr(R"("complete":true)")));
}

TEST(RunEvents, HasTheLocksOfAbseil) {
  EXPECT_THAT(EventsOfFailure([] {
                absl::Mutex lock;
                const absl::MutexLock locked(&lock);
                FAIL();
              }),
              MatchesRegex("(.|\n)*\\[\"a\",0,[0-9]+,([0-9]+),[0-9]+\\],"
                           "(\\[\"b\",[0-9]+,\\[[0-9,]+\\]\\],)?"
                           "\\[\"l\",0,[0-9]+,[0-9]+\\](.|\n)*"
                           "\\[\"x\",0,(.|\n)*"
                           "\\[\"u\",0,[0-9]+\\](.|\n)*"));
}

TEST(RunEvents, HasWhatTheProgramDidWrong) {
  EXPECT_THAT(EventsOfFailure(RacesForTheBalance),
              AllOf(ContainsRegex(R"("reports":\["a data race: a write at )"
                                  R"([^"]*(SetBalance|picture_test\.cc:[0-9]+))"
                                  R"([^"]*Now, a write)"),
                    HasSubstr(R"(["f",0,0,-1])"), Not(HasSubstr("+0x"))));
}

TEST(RunEvents, HasAsManyReportsAsThereIsRoomFor) {
  RunEvents events;
  const std::string much(size_t{1} << 16, 'x');
  EXPECT_EQ(events.Report("one"), 0);
  for (int i = 1; i < 4; ++i) EXPECT_EQ(events.Report(much), i);
  EXPECT_EQ(events.Report(much), -1);
  EXPECT_EQ(events.Report(""), 4);
  EXPECT_THAT(events.Reports(), ElementsAre("one", much, much, much, ""));
  events.Clear();
  EXPECT_THAT(events.Reports(), IsEmpty());
}

TEST(RunEvents, HasWhatHappenedBeforeACrash) {
  EXPECT_THAT(EventsOfFailure([] {
                SetBalance(1);
                std::abort();
              }),
              HasSubstr("unlocking a mutex"));
}

TEST(RunEvents, HasTheFirstOfWhatIsTooMuch) {
  RunEvents events;
  const std::string much(size_t{1} << 20, 'x');
  for (int i = 0; i < 100; ++i) events.Add(JsonString(much));
  const std::string json = events.ToJson();
  EXPECT_THAT(json.substr(0, 100), HasSubstr(R"("complete":false)"));
  EXPECT_LT(json.size(), size_t{1} << 26);
  EXPECT_GT(json.size(), size_t{60} << 20);
  events.Clear();
  events.Add("[]");
  EXPECT_EQ(
      events.ToJson(),
      R"({"complete":true,"places":[],"inner":[],"reports":[],"events":[[]]})");
}

TEST(JsonString, CannotEndAScript) {
  EXPECT_EQ(JsonString("</script><!-- \"\\\n&\x7f \xc3\xa9"),
            R"("\u003c/script\u003e\u003c!-- \"\\\u000a\u0026\u007f )"
            "\xc3\xa9\"");
}

TEST(DrawPicture, IsOneFileWhateverItShows) {
  const std::string page = DrawPicture(
      {"A.B", "</script><script>alert(1)</script>", "WARD_DATA"},
      R"({"complete":true,"places":[],"inner":[],"reports":[],"events":[]})");
  const auto count = [&page](std::string_view what) {
    size_t found = 0;
    for (size_t at = 0; (at = page.find(what, at)) != std::string::npos; ++at) {
      ++found;
    }
    return found;
  };
  EXPECT_EQ(count("<script"), 2u);
  EXPECT_EQ(count("</script"), 2u);
  for (const char* const other : {"http:", "https:", "src=", "href=", "url(",
                                  "import", "fetch(", "innerHTML"}) {
    EXPECT_EQ(count(other), 0u) << other;
  }
}

}  // namespace
}  // namespace ward::testing
