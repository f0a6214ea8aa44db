#include "ward/testing/report/places.h"

#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <regex.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/debugging/symbolize.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"

namespace ward::testing {

// What stands in angle brackets, which may be in others, seven deep.
#define WARD_ARGUMENTS_1 "<[^<>]*>"
#define WARD_ARGUMENTS_2 "<([^<>]|" WARD_ARGUMENTS_1 ")*>"
#define WARD_ARGUMENTS_3 "<([^<>]|" WARD_ARGUMENTS_2 ")*>"
#define WARD_ARGUMENTS_4 "<([^<>]|" WARD_ARGUMENTS_3 ")*>"
#define WARD_ARGUMENTS_5 "<([^<>]|" WARD_ARGUMENTS_4 ")*>"
#define WARD_ARGUMENTS_6 "<([^<>]|" WARD_ARGUMENTS_5 ")*>"
#define WARD_ARGUMENTS "<([^<>]|" WARD_ARGUMENTS_6 ")*>"

const char kInnerFiles[] =
    "^/usr/|/_virtual_includes/[^/]*/ward/|(^|/)(testing/"
    "(simulator|interception|search|report)/"
    "|testing/accesses/(atomics|memory|plain)[.]"
    "|testing/(explore|run_at_once)[.]|external/|nptl/|sysdeps/|c[+][+]/[0-9])";
// Those of templates have their types before their names: a namespace is the
// function's if no space comes before its parameters, or before a long one was
// cut off. Those of C are but a name.
const char kInnerFunctions[] =
    "^[?]$|^(([a-zA-Z0-9_*&:]|" WARD_ARGUMENTS
    ")+ )*"
    "((ward|testing|std|__gnu_cxx|absl)::"
    "([a-zA-Z0-9_~:]|" WARD_ARGUMENTS
    ")*([([{]|operator[^a-zA-Z0-9_]|$"
    "|(<([^<>]|" WARD_ARGUMENTS
    ")*)*[.][.][.]$)"
    "|_|ward_begin_fiber|AbslInternal|PointBeforeLock|pthread_"
    "|sem_(clockwait|destroy|getvalue|init|post|timedwait|trywait|wait)$"
    "|(cnd|mtx|thrd|tss)_[a-z]*$"
    "|(accept4?|call_once|clone3?|close|connect|dup[23]?"
    "|epoll_(create1?|pwait2?|wait)|eventfd|fcntl(64)?|flock|futex|ioctl"
    "|nanosleep|pipe2?|p?poll|p?select|readv?|recv|recvfrom|recvmsg"
    "|sched_yield|send|sendmsg|sendto|signalfd|socket|socketpair|start_thread"
    "|syscall|timerfd_create|wait[34]?|waitid|waitpid|writev?)$"
    "|(RUN_ALL_TESTS|main)([^a-zA-Z0-9_]|$))";

namespace {

constexpr std::string_view kBegin = "<+0x";

struct Place {
  std::string function;
  // file:line, or empty.
  std::string line;
};

// Of one address, the innermost first.
using Places = std::vector<Place>;

// The next addresses of `text` from `from` on, and where they stand.
struct Found {
  size_t begin;
  size_t end;
  std::vector<uint64_t> addresses;
};
std::optional<Found> FindAddresses(std::string_view text, size_t from) {
  while (true) {
    const size_t begin = text.find(kBegin, from);
    if (begin == std::string_view::npos) return std::nullopt;
    const size_t end = text.find_first_not_of("+x0123456789abcdef", begin + 1);
    if (end == std::string_view::npos) return std::nullopt;
    from = end;
    if (text[end] != '>') continue;
    Found found = {begin, end + 1, {}};
    bool are_numbers = true;
    // Without the two at the ends.
    for (const std::string_view number :
         absl::StrSplit(text.substr(begin + 2, end - begin - 2), '+')) {
      are_numbers &=
          absl::SimpleHexAtoi(number, &found.addresses.emplace_back());
    }
    if (are_numbers) return found;
  }
}

// Where the program was loaded to. Not kept in a variable whose first use takes
// a lock: it is asked for in the midst of runs.
uintptr_t Base() {
  uintptr_t base = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* module, size_t, void* found) {
        *static_cast<uintptr_t*>(found) = module->dlpi_addr;
        return 1;  // The first one is the program.
      },
      &base);
  return base;
}

// Bazel compiles in a folder that is gone.
std::string Tidy(std::string_view line) {
  absl::ConsumePrefix(&line, "/proc/self/cwd/");
  absl::ConsumePrefix(&line, "./");
  const size_t more = line.find(" (discriminator");
  if (more != std::string_view::npos) line = line.substr(0, more);
  // Of a local function the file's name is known in any case; that is no place.
  return absl::EndsWith(line, "?") || absl::StrContains(line, "??")
             ? ""
             : std::string(line);
}

// As `addr2line -a -f -i -C -p` writes it: "0x12ab: FUNCTION at FILE:LINE", and
// " (inlined by) FUNCTION at FILE:LINE" for each that it is inlined into.
std::map<uint64_t, Places> AskTool(const std::set<uint64_t>& addresses) {
  std::map<uint64_t, Places> found;
  std::string command = absl::StrCat("addr2line -a -f -i -C -p -e /proc/",
                                     getpid(), "/exe 2>/dev/null");
  for (const uint64_t address : addresses) {
    absl::StrAppend(&command, " 0x", absl::Hex(address));
  }
  FILE* const answer = popen(command.c_str(), "r");
  if (answer == nullptr) return found;
  std::string text;
  std::array<char, 4096> buffer;
  while (const size_t size = fread(buffer.data(), 1, buffer.size(), answer)) {
    text.append(buffer.data(), size);
  }
  pclose(answer);
  Places* places = nullptr;
  for (std::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::ConsumePrefix(&line, "0x")) {
      const size_t colon = line.find(": ");
      if (colon == std::string_view::npos) continue;
      uint64_t address = 0;
      if (!absl::SimpleHexAtoi(line.substr(0, colon), &address)) continue;
      places = &found[address];
      line.remove_prefix(colon + 2);
    } else if (!absl::ConsumePrefix(&line, " (inlined by) ")) {
      continue;
    }
    const size_t at = line.rfind(" at ");
    if (places == nullptr || at == std::string_view::npos) continue;
    if (absl::StartsWith(line, "?? ")) continue;
    places->push_back(
        {std::string(line.substr(0, at)), Tidy(line.substr(at + 4))});
  }
  for (auto& [address, chain] : found) {
    // What it calls the innermost then is the name of the outermost.
    if (chain.size() > 1) chain.front().function = "(inlined)";
  }
  return found;
}

Places AskAbseil(uint64_t address) {
  std::array<char, 256> name;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): of code.
  const auto* const code = reinterpret_cast<const void*>(Base() + address);
  if (!absl::Symbolize(code, name.data(), name.size())) return {};
  return {{name.data(), ""}};
}

class Pattern {
 public:
  explicit Pattern(const char* text) {
    if (regcomp(&compiled_, text, REG_EXTENDED | REG_NOSUB) != 0) std::abort();
  }
  bool Matches(const std::string& text) const {
    return regexec(&compiled_, text.c_str(), 0, nullptr, 0) == 0;
  }

 private:
  regex_t compiled_;
};

bool IsInner(const Place& place) {
  static const auto& files = *new Pattern(kInnerFiles);
  static const auto& functions = *new Pattern(kInnerFunctions);
  // Without debugging information there is but the last part of a file's name,
  // if any.
  return place.line.empty() || absl::EndsWith(place.line, ":?")
             ? functions.Matches(place.function)
             : files.Matches(place.line);
}

// Without the inner ones, unless there are none else.
Places Own(Places places) {
  Places own;
  std::copy_if(places.begin(), places.end(), std::back_inserter(own),
               [](const Place& place) { return !IsInner(place); });
  return own.empty() ? places : own;
}

// Those of templates may fill a page.
constexpr size_t kLongestName = 120;

std::string Whole(const Place& place) {
  std::string name = place.function;
  if (name.size() > kLongestName) name = name.substr(0, kLongestName) + "...";
  return place.line.empty() ? name : absl::StrCat(name, " ", place.line);
}

// The Ts that take `size` bytes of `file` from `offset` on; none if they are
// not all there.
template <typename T>
absl::Span<const T> TableAt(std::string_view file, uint64_t offset,
                            uint64_t size) {
  if (offset > file.size() || size > file.size() - offset ||
      offset % alignof(T) != 0) {
    return {};
  }
  return {reinterpret_cast<const T*>(file.data() + offset), size / sizeof(T)};
}

}  // namespace

std::string PlaceOf(uintptr_t address) {
  return absl::StrCat("+0x", absl::Hex(address - Base()));
}

bool IsInner(std::string_view line) {
  const size_t space = line.rfind(' ');
  const bool has_file =
      space != std::string_view::npos && line.rfind(':') > space &&
      line.find_first_not_of("0123456789?", line.rfind(':') + 1) ==
          std::string_view::npos;
  return has_file ? IsInner(Place{std::string(line.substr(0, space)),
                                  std::string(line.substr(space + 1))})
                  : IsInner(Place{std::string(line), ""});
}

std::string WithPlaces(std::string_view text) {
  std::set<uint64_t> addresses;
  for (size_t from = 0; const auto found = FindAddresses(text, from);) {
    addresses.insert(found->addresses.begin(), found->addresses.end());
    from = found->end;
  }
  if (addresses.empty()) return std::string(text);
  std::map<uint64_t, Places> known = AskTool(addresses);
  std::string shown;
  size_t from = 0;
  while (const auto found = FindAddresses(text, from)) {
    absl::StrAppend(&shown, text.substr(from, found->begin - from));
    from = found->end;
    Places places;
    for (const uint64_t address : found->addresses) {
      Places& of = known[address];
      if (of.empty()) of = AskAbseil(address);
      places.insert(places.end(), of.begin(), of.end());
    }
    places = Own(std::move(places));
    const std::string indent = shown.substr(shown.rfind('\n') + 1);
    const bool is_alone = indent.find_first_not_of(' ') == std::string::npos &&
                          (from == text.size() || text[from] == '\n');
    if (places.empty()) {
      absl::StrAppend(&shown, "?");
    } else if (is_alone) {
      absl::StrAppend(&shown,
                      absl::StrJoin(places, absl::StrCat("\n", indent),
                                    [](std::string* out, const Place& place) {
                                      out->append(Whole(place));
                                    }));
    } else {
      const Place& first = places.front();
      absl::StrAppend(&shown, first.line.empty() ? first.function : first.line);
    }
  }
  return absl::StrCat(shown, text.substr(from));
}

std::string VariableAt(std::string_view place) {
  uint64_t offset = 0;
  if (!absl::SimpleHexAtoi(absl::StripPrefix(place, "+"), &offset)) return "";
  const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (file < 0) return "";
  struct stat about {};
  const bool is_known = fstat(file, &about) == 0;
  const auto size = static_cast<size_t>(about.st_size);
  void* const memory =
      is_known ? mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0)
               : MAP_FAILED;
  close(file);
  if (memory == MAP_FAILED) return "";
  std::string found =
      VariableIn({static_cast<const char*>(memory), size}, offset);
  munmap(memory, size);
  return found;
}

// elf(5). Whoever loads a program does not look at its sections.
std::string VariableIn(std::string_view program, uint64_t offset) {
  const auto headers = TableAt<ElfW(Ehdr)>(program, 0, sizeof(ElfW(Ehdr)));
  if (headers.empty()) return "";
  const ElfW(Ehdr)& header = headers.front();
  if (header.e_shentsize != sizeof(ElfW(Shdr))) return "";
  const auto sections = TableAt<ElfW(Shdr)>(
      program, header.e_shoff, header.e_shnum * sizeof(ElfW(Shdr)));
  for (const ElfW(Shdr) & section : sections) {
    if (section.sh_type != SHT_SYMTAB || section.sh_link >= sections.size()) {
      continue;
    }
    const ElfW(Shdr)& strings = sections[section.sh_link];
    const auto names =
        TableAt<char>(program, strings.sh_offset, strings.sh_size);
    // So each of them ends.
    if (names.empty() || names.back() != '\0') continue;
    for (const ElfW(Sym) & symbol :
         TableAt<ElfW(Sym)>(program, section.sh_offset, section.sh_size)) {
      if (ELF64_ST_TYPE(symbol.st_info) != STT_OBJECT ||
          offset < symbol.st_value ||
          offset - symbol.st_value >= symbol.st_size ||
          symbol.st_name >= names.size()) {
        continue;
      }
      const char* const mangled = &names[symbol.st_name];
      int status = 0;
      char* const name =
          abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
      std::string found = absl::StrReplaceAll(
          status == 0 ? name : mangled, {{"(anonymous namespace)::", ""}});
      std::free(name);
      if (offset > symbol.st_value) {
        absl::StrAppend(&found, "+0x", absl::Hex(offset - symbol.st_value));
      }
      return found;
    }
  }
  return "";
}

}  // namespace ward::testing
