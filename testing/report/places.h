// Functions, files and lines in the place of addresses of the program.
//
// What finds something in a run writes addresses, which are the same each time
// and cost nothing; whoever shows it to a user has them looked up, once.

#ifndef WARD_TESTING_REPORT_PLACES_H_
#define WARD_TESTING_REPORT_PLACES_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace ward::testing {

// `text` with each <+0x12ab> replaced, an address from where the program was
// loaded on; or several, the innermost first: <+0x12ab+0x34cd>. Where it has
// lines of its own, the functions, files and lines stand there, and those that
// they were inlined into, a line each with the same indent; elsewhere, the
// first file and line of these. Others' headers are left out where there are
// places of the program's own.
//
// Asks addr2line(1), of the linker's package. Without it, and for code that was
// compiled without -g1 or stripped, there are the names of functions alone.
std::string WithPlaces(std::string_view text);

// What stands in such a text for an address of the program's code: +0x12ab.
std::string PlaceOf(uintptr_t address);

// Whether a line of a place, "Function() file.cc:12", is of code that nobody
// looks for: ward's, or another library's. By its file or, where there is none,
// by its function.
bool IsInner(std::string_view line);

// How that is told: regular expressions of which POSIX (extended) and Python
// say the same. tools/gdb/ward.py finds them in the program by their names.
// NOLINTBEGIN(bugprone-dynamic-static-initializers): places.cc has literals.
extern const char kInnerFiles[];
extern const char kInnerFunctions[];
// NOLINTEND(bugprone-dynamic-static-initializers)

// The variable of the program that is where PlaceOf says, as "bank::accounts",
// or "bank::accounts+0x28"; empty if there is none, or the program has no
// symbols.
std::string VariableAt(std::string_view place);

// The same of the program, an ELF file, whose bytes are `program`; be they
// sound or not.
std::string VariableIn(std::string_view program, uint64_t offset);

}  // namespace ward::testing

#endif  // WARD_TESTING_REPORT_PLACES_H_
