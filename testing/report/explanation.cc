#include "ward/testing/report/explanation.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "ward/testing/report/places.h"
#include "ward/testing/report/run_events.h"
#include "ward/testing/simulator/strategy.h"

namespace ward::testing {
namespace {

// So that a report fits on a screen, or two.
constexpr size_t kMostInCircle = 6;
constexpr size_t kMostOthers = 6;
constexpr size_t kMostToldWell = 6;
constexpr size_t kMostTold = 20;
constexpr size_t kLinesOfStack = 5;
constexpr size_t kLastSteps = 24;
constexpr size_t kLastMessages = 30;
constexpr size_t kStepsAround = 4;
constexpr size_t kLongestName = 100;

// --- reading events ---

// An element of an event: a number, words, or numbers.
struct Value {
  int64_t number = 0;
  std::string text;
  std::vector<int> list;
};
using Event = std::vector<Value>;

// What RunRecorder has written, one event after the other.
class EventReader {
 public:
  explicit EventReader(std::string_view text) : rest_(text) {}

  bool Next(Event& event) {
    event.clear();
    absl::ConsumePrefix(&rest_, ",");
    if (!absl::ConsumePrefix(&rest_, "[")) return false;
    while (!rest_.empty() && !absl::ConsumePrefix(&rest_, "]")) {
      event.push_back(ReadValue());
      absl::ConsumePrefix(&rest_, ",");
    }
    return !event.empty();
  }

 private:
  Value ReadValue() {
    Value value;
    if (absl::ConsumePrefix(&rest_, "\"")) {
      value.text = ReadText();
    } else if (absl::ConsumePrefix(&rest_, "[")) {
      while (!rest_.empty() && !absl::ConsumePrefix(&rest_, "]")) {
        value.list.push_back(static_cast<int>(ReadNumber()));
        absl::ConsumePrefix(&rest_, ",");
      }
    } else {
      value.number = ReadNumber();
    }
    return value;
  }

  int64_t ReadNumber() {
    const size_t size = std::min(rest_.find_first_of(",]"), rest_.size());
    int64_t number = 0;
    (void)absl::SimpleAtoi(rest_.substr(0, size), &number);
    rest_.remove_prefix(size);
    return number;
  }

  // As JsonString() has it.
  std::string ReadText() {
    std::string text;
    while (!rest_.empty() && !absl::ConsumePrefix(&rest_, "\"")) {
      uint32_t code = 0;
      if (absl::ConsumePrefix(&rest_, "\\u")) {
        (void)absl::SimpleHexAtoi(rest_.substr(0, 4), &code);
        text += static_cast<char>(code);
        rest_.remove_prefix(std::min<size_t>(rest_.size(), 4));
        continue;
      }
      absl::ConsumePrefix(&rest_, "\\");
      text += rest_.front();
      rest_.remove_prefix(1);
    }
    return text;
  }

  std::string_view rest_;
};

// --- names ---

// What is locked or waited for, as it stands in what threads are doing: "a
// mutex". Longer ones first.
constexpr std::string_view kNouns[] = {
    "reader-writer lock", "spin lock", "mutex",         "condition",
    "semaphore",          "barrier",   "atomic object", "variable"};

// Of Abseil's threads, whatever it is.
constexpr std::string_view kAbseilsWait =
    "waiting for a mutex, condition or notification";

// How what is done with descriptors ends.
constexpr std::string_view kOneDescriptor = " a descriptor";
constexpr std::string_view kDescriptors = " descriptors";

// What the compiler calls what a static variable's initialisation is known by.
constexpr std::string_view kGuard = "guard variable for ";

// In `doing`, with its article: where that begins, and the noun; or nothing.
std::pair<size_t, std::string_view> FindNoun(std::string_view doing) {
  for (const std::string_view noun : kNouns) {
    for (size_t at = doing.find(noun); at != std::string_view::npos;
         at = doing.find(noun, at + 1)) {
      for (const std::string_view article : {" a ", " an "}) {
        if (absl::EndsWith(doing.substr(0, at), article)) {
          return {at + 1 - article.size(), noun};
        }
      }
    }
  }
  return {std::string_view::npos, ""};
}

// Lambdas have numbers, which g++ counts in each function and Clang in each
// file, as {lambda(int)#1} and $_0: they are told apart by their lines.
std::string WithoutNumbersOfLambdas(std::string_view name) {
  std::string text;
  while (!name.empty()) {
    if (absl::ConsumePrefix(&name, "{lambda(")) {
      int depth = 1;
      size_t end = 0;
      for (; end < name.size() && depth > 0; ++end) {
        if (name[end] == '{') ++depth;
        if (name[end] == '}') --depth;
      }
      name.remove_prefix(end);
      text += "{lambda}";
    } else if (absl::ConsumePrefix(&name, "$_")) {
      name.remove_prefix(
          std::min(name.find_first_not_of("0123456789"), name.size()));
      text += "{lambda}";
    } else {
      text += name.front();
      name.remove_prefix(1);
    }
  }
  return text;
}

// Without its arguments, namespaces that have no name, and what it returns:
// bank::Transfer of "void (anonymous namespace)::bank::Transfer(int)".
std::string NameOf(std::string_view function) {
  std::string name = WithoutNumbersOfLambdas(
      absl::StrReplaceAll(function, {{"(anonymous namespace)::", ""}}));
  // One that was cut has no end to tell it by.
  if (absl::EndsWith(name, "...")) return name;
  std::string_view rest = name;
  // As g++ has it of what it has changed.
  rest = rest.substr(0, rest.find(" [clone "));
  absl::ConsumeSuffix(&rest, " const");
  if (absl::EndsWith(rest, ")")) {
    int depth = 0;
    for (size_t i = rest.size(); i-- > 0;) {
      if (rest[i] == ')') ++depth;
      if (rest[i] == '(' && --depth == 0) {
        rest = rest.substr(0, i);
        break;
      }
    }
  }
  absl::ConsumeSuffix(&rest, "::operator()");
  int depth = 0;
  for (size_t i = rest.size(); i-- > 0;) {
    if (absl::StrContains(">)}", rest[i])) ++depth;
    if (absl::StrContains("<({", rest[i])) --depth;
    if (rest[i] == ' ' && depth == 0 && i > 0 && rest[i - 1] != ',') {
      rest = rest.substr(i + 1);
      break;
    }
  }
  std::string shown(rest);
  if (shown.size() > kLongestName) {
    shown = shown.substr(0, kLongestName) + "...";
  }
  return shown;
}

// "bank::Transfer bank.cc:31" of a line of WithPlaces.
std::string InShort(std::string_view place) {
  const size_t space = place.rfind(' ');
  const size_t colon = place.rfind(':');
  if (space == std::string_view::npos || colon == std::string_view::npos ||
      colon < space || absl::StrContains(place.substr(space), "::")) {
    return NameOf(place);
  }
  const std::string_view function = place.substr(0, space);
  const std::string_view file = place.substr(space + 1);
  // A function of the user's that was inlined into one of the library's has the
  // name of that.
  const std::string name = NameOf(function);
  return function == "(inlined)" || absl::StartsWith(name, "std::")
             ? absl::StrCat(file, ", inlined")
             : absl::StrCat(name, " ", file);
}

std::string AndList(const std::vector<std::string>& words) {
  if (words.size() < 2) return absl::StrJoin(words, "");
  return absl::StrCat(absl::StrJoin(words.begin(), words.end() - 1, ", "),
                      " and ", words.back());
}

// --- the run ---

// A thread's scheduling point, or wait.
struct Step {
  int doing = -1;
  int object = -1;
  int stack = -1;
  bool waits = false;
  // It waits until some time at the latest.
  bool is_timed = false;
  bool after = false;
  // What it waits for was another one's when it began to.
  bool is_taken = false;
  // It had given that back before.
  bool gave_back = false;
};

struct Held {
  int object;
  bool is_shared;
  // Where it was when it took that.
  int stack;
};

struct Thread {
  enum class State { kAlive, kEnded, kKilled };

  int process = 0;
  std::string name;
  State state = State::kAlive;
  Step step;
  // Of the last step, among all.
  size_t number = 0;
  std::vector<Held> held;
  // What it waits for is another one's end, or -1; and whether it is yet to
  // begin to.
  int joins = -1;
  bool will_join = false;
  // What it waits for outside of the simulation, at the end.
  std::string awaits;
  std::vector<int> descriptors;
  // What it has come to lock, or has given back: what Abseil has it wait for;
  // and whether that was given back until it is woken.
  int mutex = -1;
  bool gave_back = false;
};

// Of the transcript: a step, or something else that happened in it.
struct Line {
  int thread;
  // 0: none.
  size_t number;
  Step step;
  std::string text;
  bool is_deviation = false;
  bool is_message = false;
  bool is_failure = false;
};

// What a thread waits for, and who would have to do something before it goes
// on.
struct Wait {
  int object = -1;
  std::vector<int> holders;
};

class Explainer {
 public:
  Explainer(const RunEvents& events, std::optional<StepMark> mark)
      : events_(events),
        places_(events.Places()),
        reports_(events.Reports()),
        mark_(std::move(mark)) {}

  Explanation Explain() {
    Read();
    Explanation explanation;
    explanation.why = why_;
    explanation.locked = locked_;
    if (!why_.empty() && events_.is_complete()) explanation.stuck = TellStuck();
    explanation.deviations = TellDeviations();
    explanation.steps = TellSteps();
    return explanation;
  }

  std::string InWords();

 private:
  void Read() {
    Event event;
    for (EventReader reader(events_.text()); reader.Next(event);) Take(event);
  }
  void Take(const Event& event);
  void TakeStep(const Event& event);
  void TakeDeviation(const Event& event);
  // So many decisions were made.
  void Mark(int64_t decisions);
  void AddLine(int thread, std::string text, bool is_deviation = false);
  void AddFailure(int thread, std::string_view what);
  void TakeLocked(int object);

  Thread& Of(int number) { return threads_[number]; }

  // "thread 3 (writer)"; where there are several processes, of which it is.
  std::string Who(int number);
  std::string ProcessName(int process) const;
  // "mutex 2", or "mutex `bank::mutex`".
  std::string Name(int object, std::string_view noun);
  // It is nothing that one has, but what one does.
  bool IsBegun(int object);
  // What it does there, with the object's name.
  std::string Doing(const Step& step);
  // The user's own functions, the innermost first; at most so many.
  std::vector<std::string> Lines(int stack, size_t most) const;
  // ", in bank::Transfer bank.cc:31", or nothing.
  const std::string& In(int stack);
  // Its number among those that have this noun.
  int NumberOf(int object, std::string_view noun);
  // "before locking mutex 2, in bank::Transfer bank.cc:31"
  std::string Where(int number);
  void AppendStack(std::string& text, int stack, size_t most,
                   std::string_view indent) const;

  Wait WaitOf(int number);
  const Held* Find(int thread, int object);
  bool IsAlive(int thread) { return Of(thread).state == Thread::State::kAlive; }
  // Each of which waits for the next one, and the last for the first; or none.
  std::vector<int> FindCircle();
  // What a thread waits for, and who has it.
  std::string TellWait(int number);
  // The same of what it waits for outside.
  std::string TellAwaits(const Thread& thread, const Wait& wait);
  // Of what others have to read: who may wait to write, behind whom it waits if
  // it is to read, too; Abseil does not tell which. Or nothing.
  std::string TellWriter(int number, int object);
  // Where what it waits for outside was opened; or nothing.
  std::string TellOpened(int number, size_t lines);
  // How it came to have what `waiting` waits for; or nothing.
  std::string TellHeld(int number, int waiting, size_t lines);
  std::string TellStuck();
  // The same of threads that do the same at the same place.
  std::string TellWaitOfAll(const std::vector<int>& group);
  std::string TellOthers(const std::set<int>& but);
  std::string TellDeviations();
  std::string TellSteps();

  const RunEvents& events_;
  const std::vector<std::vector<std::string>>& places_;
  const std::vector<std::string>& reports_;
  std::map<int, Thread> threads_;
  std::map<int, std::string> processes_;
  std::map<int, std::string> words_;
  std::map<int, std::vector<int>> stacks_;
  struct Object {
    std::string variable;
    std::string_view noun;
  };
  std::map<int, Object> objects_;
  // Of pipes and connections: the threads that have read or written them.
  std::map<int, std::set<int>> users_;
  // Where each descriptor was opened last.
  std::map<int, int> opened_;
  std::map<std::pair<int, std::string_view>, int> number_of_;
  std::map<std::string_view, int> numbers_;
  // See In().
  std::map<int, std::string> in_;
  std::vector<Line> lines_;
  size_t step_ = 0;
  struct Deviation {
    int thread;
    std::string text;
    int stack;
  };
  std::vector<Deviation> deviations_;
  std::string why_;
  std::string locked_;
  // If it is still to come.
  std::optional<StepMark> mark_;
};

void Explainer::Mark(int64_t decisions) {
  if (!mark_.has_value() || decisions <= mark_->decision) return;
  AddLine(0, std::move(mark_->text), /*is_deviation=*/true);
  mark_.reset();
}

void Explainer::AddLine(int thread, std::string text, bool is_deviation) {
  lines_.push_back({thread, 0, {}, std::move(text), is_deviation});
}

void Explainer::AddFailure(int thread, std::string_view what) {
  AddLine(thread, absl::StrCat("FAILS: ", what.substr(0, what.find('\n'))));
  lines_.back().is_failure = true;
}

// There may be a report of it at each step.
void Explainer::TakeLocked(int object) {
  if (object < 0 || !locked_.empty()) return;
  const std::string_view noun = objects_[object].noun;
  for (const auto& [id, thread] : threads_) {
    const Held* const held = Find(id, object);
    if (held == nullptr) continue;
    absl::StrAppend(&locked_, "  ", Who(id), " has ",
                    Name(object, noun.empty() ? "lock" : noun), ", taken in\n");
    AppendStack(locked_, held->stack, kLinesOfStack, "      ");
  }
}

void Explainer::TakeStep(const Event& event) {
  Thread& thread = Of(static_cast<int>(event[1].number));
  Step step;
  step.waits = event[0].text == "w";
  step.doing = static_cast<int>(event[2].number);
  step.object = static_cast<int>(event[3].number);
  step.stack = static_cast<int>(event[4].number);
  const bool has_more = event.size() > 5;
  step.is_timed = step.waits && has_more;
  step.after = !step.waits && has_more;
  if (!step.waits || !thread.will_join) thread.joins = -1;
  thread.will_join = false;
  const std::string& doing = words_[step.doing];
  if (step.object >= 0) {
    Object& object = objects_[step.object];
    const std::string_view noun = FindNoun(doing).second;
    if (!noun.empty()) {
      if (object.noun.empty()) object.noun = noun;
      NumberOf(step.object, noun);
    }
    if (!step.after && object.variable.empty() &&
        absl::EndsWith(doing, kOneDescriptor)) {
      users_[step.object].insert(static_cast<int>(event[1].number));
    }
    if (!step.waits && absl::StartsWith(doing, "locking")) {
      thread.mutex = step.object;
      thread.gave_back = false;
    }
  } else if (step.after && absl::StartsWith(doing, "unlocking")) {
    // Of Abseil's it is said without.
    step.object = thread.mutex;
  } else if (step.waits && doing == kAbseilsWait) {
    step.object = thread.mutex;
    step.gave_back = thread.gave_back;
    step.is_taken =
        std::any_of(threads_.begin(), threads_.end(), [&](const auto& entry) {
          return Find(entry.first, step.object) != nullptr;
        });
  }
  thread.step = step;
  thread.number = ++step_;
  lines_.push_back(
      {static_cast<int>(event[1].number), thread.number, step, ""});
}

void Explainer::TakeDeviation(const Event& event) {
  const auto by = static_cast<int>(event[1].number);
  std::string text = absl::StrCat(event[2].number, "=", event[3].number);
  int about = by;
  const auto kind = static_cast<ChoiceKind>(event[5].number);
  const auto chosen = static_cast<int>(event[6].number);
  std::vector<int> passed_over = event[7].list;
  // Where the one that runs is now: its last step may be something else.
  const int stack = event.size() > 8 ? static_cast<int>(event[8].number) : -1;
  int at = -1;
  switch (kind) {
    case ChoiceKind::kThread: {
      // The one that ran comes first.
      const auto own = std::find(passed_over.begin(), passed_over.end(), by);
      if (own != passed_over.end()) std::swap(*own, passed_over.front());
      about = passed_over.front();
      std::vector<std::string> others;
      constexpr size_t kFew = 3;
      for (size_t i = 1; i < passed_over.size(); ++i) {
        if (others.size() == kFew) {
          others.push_back(absl::StrCat(passed_over.size() - i, " more"));
          break;
        }
        others.push_back(Who(passed_over[i]));
      }
      absl::StrAppend(&text,
                      IsAlive(about) && Of(about).number > 0
                          ? absl::StrCat(", at step ", Of(about).number)
                          : "",
                      ": ", Who(about), " was held back ", Where(about),
                      others.empty() ? "" : "; and so ",
                      others.empty()      ? ""
                      : others.size() < 2 ? "was "
                                          : "were ",
                      AndList(others), "; ", Who(chosen),
                      Of(chosen).step.doing < 0
                          ? " began"
                          : absl::StrCat(" went on, ", Where(chosen)));
      break;
    }
    case ChoiceKind::kWaiter:
      absl::StrAppend(&text, ": ", Who(chosen), " was woken ", Where(chosen),
                      ", by ", Who(by), In(stack), ", and not ",
                      Who(passed_over.front()), ", which had waited longer");
      about = chosen;
      break;
    case ChoiceKind::kDelay:
      absl::StrAppend(&text, ", at step ", Of(by).number, ": ", Who(by),
                      " was held back ", Where(by),
                      "; time passed first, to the next deadline");
      break;
    case ChoiceKind::kFault:
      absl::StrAppend(&text, ", at step ", Of(by).number, ": what ", Who(by),
                      " called failed",
                      absl::StripPrefix(event[4].text, "the call fails"), " ",
                      Where(by));
      break;
    case ChoiceKind::kDeath:
      absl::StrAppend(&text, ", at step ", Of(by).number, ": ",
                      ProcessName(Of(by).process), " was killed, ", Who(by),
                      " being there ", Where(by));
      break;
    case ChoiceKind::kWakeUp:
      absl::StrAppend(&text, ": a wait of ", Who(by), " ended for no reason",
                      In(stack));
      at = stack;
      break;
    case ChoiceKind::kLoad:
      absl::StrAppend(&text, ", at step ", Of(by).number, ": ", Who(by),
                      " read not the last value, but number ", event[3].number,
                      " of those before it, ", Doing(Of(by).step),
                      In(Of(by).step.stack));
      break;
  }
  AddLine(by, text, /*is_deviation=*/true);
  deviations_.push_back(
      {about, std::move(text), at >= 0 ? at : Of(about).step.stack});
}

void Explainer::Take(const Event& event) {
  const std::string& kind = event[0].text;
  const auto number = static_cast<int>(event[1].number);
  if (kind == "a" || kind == "w") {
    TakeStep(event);
  } else if (kind == "s") {
    words_[number] = event[2].text;
  } else if (kind == "b") {
    stacks_[number] = event[2].list;
  } else if (kind == "o") {
    objects_[number].variable = VariableAt(event[2].text);
  } else if (kind == "p") {
    processes_[number] = event[2].text;
  } else if (kind == "t") {
    Thread& thread = Of(number);
    thread.process = static_cast<int>(event[2].number);
    thread.name = event[3].text;
  } else if (kind == "e") {
    Of(number).state = Thread::State::kEnded;
    AddLine(number, "ends");
  } else if (kind == "k") {
    Of(number).state = Thread::State::kKilled;
    AddLine(number, "is killed");
  } else if (kind == "j") {
    Of(number).joins = static_cast<int>(event[2].number);
    Of(number).will_join = true;
  } else if (kind == "i") {
    Of(number).awaits = event[2].text;
    Of(number).descriptors = event[3].list;
  } else if (kind == "h") {
    opened_[static_cast<int>(event[2].number)] =
        static_cast<int>(event[3].number);
  } else if (kind == "l") {
    Thread& thread = Of(number);
    thread.held.push_back({static_cast<int>(event[2].number), event.size() > 4,
                           static_cast<int>(event[3].number)});
    thread.gave_back = false;
  } else if (kind == "u") {
    Thread& thread = Of(number);
    const auto object = static_cast<int>(event[2].number);
    thread.mutex = object;
    thread.gave_back = true;
    // Another one may give it back, as of a semaphore.
    for (auto& [id, holder] : threads_) {
      if (id != number && Find(number, object) != nullptr) continue;
      const auto found = std::find_if(
          holder.held.rbegin(), holder.held.rend(),
          [object](const Held& held) { return held.object == object; });
      if (found == holder.held.rend()) continue;
      holder.held.erase(std::next(found).base());
      break;
    }
  } else if (kind == "c") {
    Mark(event[1].number);
  } else if (kind == "d") {
    const int64_t decision = event[2].number;
    Mark(decision);
    TakeDeviation(event);
    Mark(decision + 1);
  } else if (kind == "m") {
    const auto from = static_cast<int>(event[2].number);
    const auto to = static_cast<int>(event[3].number);
    const int64_t stream = event[5].number;
    AddLine(number,
            from == to ? absl::StrCat(ProcessName(from), ": ", event[4].text)
                       : absl::StrCat(
                             ProcessName(from), " -> ", ProcessName(to),
                             stream < 0 ? std::string()
                                        : absl::StrCat(", connection ", stream),
                             ": ", event[4].text));
    lines_.back().is_message = from != to;
  } else if (kind == "x") {
    if (event.size() > 3) why_ = event[2].text;
    AddFailure(number, event[2].text);
  } else if (kind == "f") {
    const auto report = static_cast<size_t>(event[2].number);
    if (report < reports_.size()) AddFailure(number, reports_[report]);
    TakeLocked(static_cast<int>(event[3].number));
  }
}

// --- words ---

std::string Explainer::ProcessName(int process) const {
  const auto found = processes_.find(process);
  return found == processes_.end()
             ? absl::StrCat("process ", process)
             : absl::StrCat(found->second, " (", process, ")");
}

std::string Explainer::Who(int number) {
  const Thread& thread = Of(number);
  std::string who = absl::StrCat("thread ", number);
  std::vector<std::string> more;
  if (!thread.name.empty() && thread.name != who) more.push_back(thread.name);
  if (processes_.size() > 1) {
    more.push_back(absl::StrCat("of ", ProcessName(thread.process)));
  }
  if (!more.empty()) {
    absl::StrAppend(&who, " (", absl::StrJoin(more, ", "), ")");
  }
  return who;
}

std::string Explainer::Name(int object, std::string_view noun) {
  Object& named = objects_[object];
  if (IsBegun(object)) {
    return absl::StrCat("the initialisation of `",
                        named.variable.substr(kGuard.size()), "`");
  }
  if (!named.variable.empty()) {
    return absl::StrCat(noun, " `", named.variable, "`");
  }
  return absl::StrCat(noun, " ", NumberOf(object, noun));
}

int Explainer::NumberOf(int object, std::string_view noun) {
  const auto [found, is_new] = number_of_.try_emplace({object, noun}, 0);
  if (is_new) found->second = ++numbers_[noun];
  return found->second;
}

bool Explainer::IsBegun(int object) {
  return absl::StartsWith(objects_[object].variable, kGuard);
}

std::string Explainer::Doing(const Step& step) {
  if (step.doing < 0) return "starting";
  const std::string& doing = words_[step.doing];
  if (step.object < 0) return doing;
  if (doing == kAbseilsWait) {
    // What else it may be, Abseil does not tell.
    return step.gave_back ? absl::StrCat("waiting for a condition under ",
                                         Name(step.object, "mutex"))
           : step.is_taken
               ? absl::StrCat("waiting for ", Name(step.object, "mutex"))
               : std::string(doing);
  }
  if (IsBegun(step.object)) {
    return absl::StrCat("waiting for ", Name(step.object, ""));
  }
  const auto [at, noun] = FindNoun(doing);
  if (noun.empty()) return doing;
  const size_t article = doing.compare(at, 2, "a ") == 0 ? 2 : 3;
  return absl::StrCat(doing.substr(0, at), Name(step.object, noun),
                      doing.substr(at + article + noun.size()));
}

std::vector<std::string> Explainer::Lines(int stack, size_t most) const {
  std::vector<std::string> lines;
  const auto found = stacks_.find(stack);
  if (found == stacks_.end()) return lines;
  for (const int place : found->second) {
    if (lines.size() == most) break;
    if (place < 0 || static_cast<size_t>(place) >= places_.size()) continue;
    const std::vector<std::string>& places =
        places_[static_cast<size_t>(place)];
    // What has called the body is the same in all runs.
    if (std::any_of(places.begin(), places.end(), [](const std::string& line) {
          return absl::StartsWith(line, "ward::testing::Run(");
        })) {
      break;
    }
    for (const std::string& line : places) {
      if (lines.size() < most && !IsInner(line)) lines.push_back(InShort(line));
    }
  }
  return lines;
}

const std::string& Explainer::In(int stack) {
  const auto [found, is_new] = in_.try_emplace(stack);
  const std::vector<std::string> lines =
      is_new ? Lines(stack, 1) : std::vector<std::string>();
  if (!lines.empty()) found->second = absl::StrCat(", in ", lines.front());
  return found->second;
}

std::string Explainer::Where(int number) {
  const Thread& thread = Of(number);
  if (thread.state == Thread::State::kEnded) return "at its end";
  const Step& step = thread.step;
  if (step.doing < 0) return "before it began";
  return absl::StrCat(step.waits   ? ""
                      : step.after ? "after "
                                   : "before ",
                      Doing(step), In(step.stack));
}

void Explainer::AppendStack(std::string& text, int stack, size_t most,
                            std::string_view indent) const {
  for (const std::string& line : Lines(stack, most)) {
    absl::StrAppend(&text, indent, line, "\n");
  }
}

// --- a deadlock ---

const Held* Explainer::Find(int thread, int object) {
  for (const Held& held : Of(thread).held) {
    if (held.object == object) return &held;
  }
  return nullptr;
}

Wait Explainer::WaitOf(int number) {
  const Thread& thread = Of(number);
  Wait wait;
  if (!thread.step.waits) return wait;
  if (thread.joins >= 0) {
    wait.holders.push_back(thread.joins);
    return wait;
  }
  if (!thread.awaits.empty()) {
    // Nobody has it: whoever has used it may be who was to do so again.
    const auto users = users_.find(thread.step.object);
    if (users == users_.end()) return wait;
    for (const int user : users->second) {
      if (user != number && IsAlive(user)) wait.holders.push_back(user);
    }
    return wait;
  }
  wait.object = thread.step.object;
  // It does not go on before it has that again.
  if (thread.gave_back && wait.object >= 0 &&
      objects_[wait.object].noun == "condition") {
    wait.object = thread.mutex;
  }
  if (wait.object < 0) return wait;
  for (const auto& [id, other] : threads_) {
    if (Find(id, wait.object) != nullptr) wait.holders.push_back(id);
  }
  return wait;
}

std::vector<int> Explainer::FindCircle() {
  std::map<int, std::vector<int>> next;
  for (const auto& [id, thread] : threads_) {
    // Who waits for a time alone goes on, whatever others do.
    if (!IsAlive(id) || thread.step.is_timed) continue;
    for (const int holder : WaitOf(id).holders) {
      if (IsAlive(holder)) next[id].push_back(holder);
    }
  }
  std::vector<int> shortest;
  for (const auto& [start, unused] : next) {
    // Breadth first, until it comes back.
    std::map<int, int> came_from;
    std::vector<int> reached = {start};
    bool is_closed = false;
    for (size_t i = 0; i < reached.size() && !is_closed; ++i) {
      const int at = reached[i];
      for (const int to : next[at]) {
        if (to == start) {
          std::vector<int> circle = {at};
          while (circle.back() != start) {
            circle.push_back(came_from[circle.back()]);
          }
          std::reverse(circle.begin(), circle.end());
          if (shortest.empty() || circle.size() < shortest.size()) {
            shortest = std::move(circle);
          }
          is_closed = true;
          break;
        }
        if (came_from.try_emplace(to, at).second) reached.push_back(to);
      }
    }
  }
  return shortest;
}

std::string Explainer::TellWait(int number) {
  const Thread& thread = Of(number);
  if (thread.joins >= 0) {
    const Thread& joined = Of(thread.joins);
    return absl::StrCat(
        "waits for the end of ",
        thread.joins == number ? "itself" : Who(thread.joins),
        joined.state == Thread::State::kAlive ? "" : ", which has come");
  }
  const Wait wait = WaitOf(number);
  if (!thread.awaits.empty()) return TellAwaits(thread, wait);
  std::string text = absl::StrCat("is ", Doing(thread.step));
  if (wait.holders.empty()) return text;
  const bool is_abseils = words_[thread.step.doing] == kAbseilsWait;
  if (is_abseils && !thread.gave_back) {
    text = absl::StrCat("is waiting for ", Name(wait.object, "mutex"));
  } else if (is_abseils || wait.object != thread.step.object) {
    text = absl::StrCat("is waiting for a condition, and then for ",
                        Name(wait.object, "mutex"), " again");
  }
  std::vector<std::string> holders;
  bool is_shared = false;
  for (const int holder : wait.holders) {
    is_shared |= Find(holder, wait.object)->is_shared;
    std::string who = holder == number ? "it" : Who(holder);
    if (Of(holder).state == Thread::State::kEnded) who += " (which has ended)";
    if (Of(holder).state == Thread::State::kKilled) {
      who += " (which was killed)";
    }
    holders.push_back(std::move(who));
    if (holders.size() == 4) break;
  }
  const size_t more = wait.holders.size() - holders.size();
  if (more > 0) holders.push_back(absl::StrCat(more, " more"));
  const bool own = wait.holders.size() == 1 && wait.holders[0] == number;
  return absl::StrCat(text, ", which ", AndList(holders),
                      holders.size() > 1 ? " have" : " has",
                      IsBegun(wait.object) ? " begun" : "",
                      own ? " itself" : "", is_shared ? " to read" : "",
                      is_shared ? TellWriter(number, wait.object) : "");
}

std::string Explainer::TellAwaits(const Thread& thread, const Wait& wait) {
  std::string_view doing = words_[thread.step.doing];
  const bool is_named = absl::ConsumeSuffix(&doing, kOneDescriptor) ||
                        absl::ConsumeSuffix(&doing, kDescriptors);
  std::vector<std::string> users;
  for (const int user : wait.holders) users.push_back(Who(user));
  return absl::StrCat("is ", doing, is_named ? " " : ": ", thread.awaits,
                      users.empty() ? "" : ", which ", AndList(users),
                      users.empty() ? "" : " used, too");
}

std::string Explainer::TellWriter(int number, int object) {
  const auto doing = [this](int thread) -> std::string_view {
    return words_[Of(thread).step.doing];
  };
  if (absl::StrContains(doing(number), " to write ")) return "";
  for (const auto& [id, thread] : threads_) {
    if (id == number || !IsAlive(id) ||
        absl::StrContains(doing(id), " to read ")) {
      continue;
    }
    if (WaitOf(id).object == object) {
      return absl::StrCat(" (", Who(id), " waits for it, too)");
    }
  }
  return "";
}

std::string Explainer::TellHeld(int number, int waiting, size_t lines) {
  const int object = WaitOf(waiting).object;
  const Held* const held = object < 0 ? nullptr : Find(number, object);
  if (held == nullptr) return "";
  const std::string_view noun = objects_[object].noun;
  std::string text =
      absl::StrCat("    It has ", IsBegun(object) ? "begun " : "",
                   Name(object, noun.empty() ? "lock" : noun),
                   IsBegun(object) ? ", in\n" : ", taken in\n");
  const size_t before = text.size();
  AppendStack(text, held->stack, lines, "      ");
  if (text.size() == before) text += "      ?\n";
  return text;
}

std::string Explainer::TellOpened(int number, size_t lines) {
  std::string text;
  for (const int descriptor : Of(number).descriptors) {
    const auto opened = opened_.find(descriptor);
    if (opened == opened_.end() || In(opened->second).empty()) continue;
    absl::StrAppend(&text, "    Descriptor ", descriptor, " was opened in\n");
    AppendStack(text, opened->second, lines, "      ");
  }
  return text;
}

std::string Explainer::TellOthers(const std::set<int>& but) {
  // Those that do the same at the same place are told at once.
  std::map<std::tuple<int, int, int>, std::vector<int>> alike;
  for (const auto& [id, thread] : threads_) {
    if (!IsAlive(id) || but.count(id) > 0) continue;
    alike[{thread.process, thread.step.doing, thread.step.stack}].push_back(id);
  }
  std::vector<std::vector<int>> groups;
  for (auto& [key, group] : alike) groups.push_back(std::move(group));
  // Those in the user's own code first.
  std::sort(groups.begin(), groups.end(), [this](const auto& a, const auto& b) {
    const bool own_a = !In(Of(a.front()).step.stack).empty();
    const bool own_b = !In(Of(b.front()).step.stack).empty();
    return own_a != own_b ? own_a : a.front() < b.front();
  });
  std::string text;
  size_t told = 0;
  size_t left_out = 0;
  for (const std::vector<int>& group : groups) {
    if (told++ >= kMostOthers) {
      left_out += group.size();
      continue;
    }
    const Thread& first = Of(group.front());
    if (group.size() == 1) {
      absl::StrAppend(&text, "  ", Who(group.front()), " ",
                      first.step.waits ? TellWait(group.front())
                                       : absl::StrCat("is ", Doing(first.step)),
                      In(first.step.stack), "\n");
      // Where it was called from.
      std::vector<std::string> lines = Lines(first.step.stack, 3);
      for (size_t i = 1; i < lines.size(); ++i) {
        absl::StrAppend(&text, "      ", lines[i], "\n");
      }
      text += TellOpened(group.front(), 1);
      continue;
    }
    std::vector<std::string> numbers;
    for (const int id : group) numbers.push_back(absl::StrCat(id));
    if (numbers.size() > 8) {
      const size_t more = numbers.size() - 7;
      numbers.resize(7);
      numbers.push_back(absl::StrCat(more, " more"));
    }
    absl::StrAppend(&text, "  ", group.size(), " threads (", AndList(numbers),
                    processes_.size() > 1
                        ? absl::StrCat(", of ", ProcessName(first.process))
                        : "",
                    ") ", TellWaitOfAll(group), In(first.step.stack), "\n");
  }
  if (left_out > 0) absl::StrAppend(&text, "  and ", left_out, " more\n");
  return text;
}

std::string Explainer::TellWaitOfAll(const std::vector<int>& group) {
  const Step& step = Of(group.front()).step;
  const auto tell = [this](int thread) {
    const Step& its = Of(thread).step;
    return its.waits ? TellWait(thread) : absl::StrCat("is ", Doing(its));
  };
  const std::string text = tell(group.front());
  // What each of them waits for, or locks, may be another one's.
  const bool is_same = std::all_of(group.begin(), group.end(), [&](int thread) {
    return tell(thread) == text;
  });
  if (!is_same) return absl::StrCat("are ", words_[step.doing]);
  std::string_view rest = text;
  if (absl::ConsumePrefix(&rest, "is ")) return absl::StrCat("are ", rest);
  absl::ConsumePrefix(&rest, "waits ");
  return absl::StrCat("wait ", rest);
}

std::string Explainer::TellStuck() {
  const std::vector<int> circle = FindCircle();
  if (circle.empty()) {
    const std::string others = TellOthers({});
    return absl::StrCat(why_, "\n", others);
  }
  // Of an endless loop it is none: such waits may have deadlines.
  const bool is_deadlock = absl::StartsWith(why_, "deadlock");
  std::string text =
      is_deadlock ? "deadlock: " : absl::StrCat(why_, "\nAt the end ");
  if (circle.size() == 1) {
    absl::StrAppend(&text, Who(circle.front()), " waits for itself\n");
  } else {
    absl::StrAppend(&text, circle.size(), " threads wait for one another\n");
  }
  const size_t shown = std::min(circle.size(), kMostInCircle);
  const size_t lines = shown <= 2 ? kLinesOfStack : shown == 3 ? 3 : 1;
  for (size_t i = 0; i < shown; ++i) {
    const int thread = circle[i];
    const int before = circle[(i + circle.size() - 1) % circle.size()];
    absl::StrAppend(&text, "  ", Who(thread), " ", TellWait(thread), ", in\n");
    const size_t size = text.size();
    AppendStack(text, Of(thread).step.stack, lines, "      ");
    if (text.size() == size) text += "      ?\n";
    text += TellHeld(thread, before, std::max<size_t>(lines - 2, 1));
    text += TellOpened(thread, 1);
  }
  if (shown < circle.size()) {
    absl::StrAppend(&text, "  and ", circle.size() - shown,
                    " more, of which the last waits for the first\n");
  }
  const std::string others =
      TellOthers(std::set<int>(circle.begin(), circle.end()));
  if (!others.empty()) absl::StrAppend(&text, "The others:\n", others);
  // Whatever may have been forgotten here: it is to be read at a glance.
  constexpr ptrdiff_t kMostLines = 39;
  if (std::count(text.begin(), text.end(), '\n') <= kMostLines) return text;
  size_t end = 0;
  for (ptrdiff_t line = 0; line < kMostLines - 1; ++line) {
    end = text.find('\n', end) + 1;
  }
  return absl::StrCat(text.substr(0, end), "  ...\n");
}

// --- the course ---

std::string Explainer::TellDeviations() {
  if (deviations_.empty()) {
    return "Nothing had to be decided otherwise than by default.\n";
  }
  std::string text =
      deviations_.size() == 1
          ? "What was decided otherwise than by default:\n"
          : absl::StrCat("What was decided otherwise than by default, ",
                         deviations_.size(), " times:\n");
  size_t told = 0;
  for (const Deviation& deviation : deviations_) {
    if (told == kMostTold) {
      absl::StrAppend(&text, "  and ", deviations_.size() - told, " more\n");
      break;
    }
    absl::StrAppend(&text, "  ", deviation.text, "\n");
    if (told++ < kMostToldWell) {
      AppendStack(text, deviation.stack, kLinesOfStack, "      ");
    }
  }
  return text;
}

std::string Explainer::TellSteps() {
  std::vector<bool> is_shown(lines_.size());
  size_t messages = 0;
  for (size_t i = lines_.size(); i-- > 0 && messages < kLastMessages;) {
    if (!lines_[i].is_message) continue;
    is_shown[i] = true;
    ++messages;
  }
  size_t deviations = 0;
  size_t failures = 0;
  for (size_t i = 0; i < lines_.size(); ++i) {
    const bool is_last = i + kLastSteps >= lines_.size();
    if (is_last) is_shown[i] = true;
    const bool is_told_well =
        (lines_[i].is_deviation && ++deviations <= kMostToldWell) ||
        (lines_[i].is_failure && ++failures <= kMostToldWell);
    if (!is_told_well) continue;
    const size_t end = std::min(i + kStepsAround + 1, lines_.size());
    for (size_t j = i - std::min(i, kStepsAround); j < end; ++j) {
      is_shown[j] = true;
    }
  }
  std::string text =
      absl::StrCat("Step by step",
                   events_.is_complete() ? "" : ", as far as was kept", ":\n");
  size_t left_out = 0;
  const auto tell_left_out = [&] {
    if (left_out > 0) {
      absl::StrAppend(&text, "   (", left_out,
                      left_out == 1 ? " line)\n" : " lines)\n");
    }
    left_out = 0;
  };
  for (size_t i = 0; i < lines_.size(); ++i) {
    if (!is_shown[i]) {
      ++left_out;
      continue;
    }
    tell_left_out();
    const Line& line = lines_[i];
    if (line.is_deviation) {
      absl::StrAppend(&text, "  >>  ", line.text, "\n");
      continue;
    }
    std::string number = line.number == 0 ? "" : absl::StrCat(line.number);
    number.insert(0, 6 - std::min<size_t>(number.size(), 6), ' ');
    absl::StrAppend(&text, number, "  ", Who(line.thread), ": ",
                    line.number == 0
                        ? line.text
                        : absl::StrCat(Doing(line.step), In(line.step.stack)),
                    "\n");
  }
  tell_left_out();
  return text;
}

std::string Explainer::InWords() {
  Read();
  std::map<std::string, size_t> said;
  std::vector<std::string> says;
  std::vector<size_t> of;
  for (const Line& line : lines_) {
    if (line.number == 0) continue;
    const auto [found, is_new] =
        said.try_emplace(Doing(line.step), says.size());
    if (is_new) says.push_back(JsonString(found->first));
    of.push_back(found->second);
  }
  std::vector<std::string> objects;
  for (const auto& [number, object] : objects_) {
    objects.push_back(absl::StrCat(
        "\"", number, "\":",
        JsonString(Name(number, object.noun.empty() ? "lock" : object.noun))));
  }
  return absl::StrCat(R"("says":[)", absl::StrJoin(says, ",\n"), R"(],"of":[)",
                      absl::StrJoin(of, ","), R"(],"objects":{)",
                      absl::StrJoin(objects, ","), "}");
}

}  // namespace

std::string EventsInWords(const RunEvents& events) {
  std::string json = events.ToJson();
  json.back() = ',';  // What is there ends it.
  return absl::StrCat(json, Explainer(events, std::nullopt).InWords(), "}");
}

Explanation Explain(const RunEvents& events, std::optional<StepMark> mark) {
  return Explainer(events, std::move(mark)).Explain();
}

}  // namespace ward::testing
