// Functions, files and lines in the place of addresses of the program.
//
// What finds something in a run writes addresses, which are the same each time
// and cost nothing; whoever shows it to a user has them looked up, once.

#ifndef WARD_TESTING_REPORT_PLACES_H_
#define WARD_TESTING_REPORT_PLACES_H_

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

}  // namespace ward::testing

#endif  // WARD_TESTING_REPORT_PLACES_H_
