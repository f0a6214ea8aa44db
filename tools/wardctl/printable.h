// Others' bytes, fit for a terminal and a line.

#ifndef WARD_TOOLS_WARDCTL_PRINTABLE_H_
#define WARD_TOOLS_WARDCTL_PRINTABLE_H_

#include <string>
#include <string_view>

namespace ward::ctl {

// UTF-8 in which whatever is no printable character is escaped as in C, and a
// backslash is two: what `printf %b` turns back into these bytes. A terminal
// obeys nothing of it, and it has no tab and no newline.
std::string Printable(std::string_view bytes);

}  // namespace ward::ctl

#endif  // WARD_TOOLS_WARDCTL_PRINTABLE_H_
