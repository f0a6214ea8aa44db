# Makes comments that doxygen reads of ward's, which are plain ones.

# Text as it is: outside of `code`, none of doxygen's or HTML's commands.
function plain(text,    part, n, i) {
  n = split(text, part, "`")
  text = ""
  for (i = 1; i <= n; ++i) {
    if (i % 2) gsub(/[\\@<>&#%]|--/, "\\\\&", part[i])
    text = text (i > 1 ? "`" : "") part[i]
  }
  return text
}

function flush() {
  if (NR > 1) print held
}

# A comment of its own line: the file's first one is about the file. What is indented,
# and not part of a list, is code.
match($0, /^ *\/\//) && RLENGTH != after {
  after = 0
  text = substr($0, RLENGTH + 2)
  if (text ~ /^--- .* ---$/) text = "" # The title of a part of the file.
  if (text ~ /^(- |[0-9]+\. )/) {
    list = 1
  } else if (text !~ /^ /) {
    list = 0
  }
  ending = ""
  if (text ~ /^  / && !list) {
    if (!code) held = held " @code{.cpp}"
    code = 1
  } else if (text != "") {
    if (code) ending = "@endcode "
    code = 0
    text = plain(text)
  }
  flush()
  held = (NR == 1 ? "/// @file\n" : "") "/// " ending text
  next
}

{
  if (code) held = held " @endcode"
  code = list = 0
  flush()
  held = $0
  # A comment behind a member, and its next lines.
  if (match($0, /^ *\/\//) || ($0 !~ /^#/ && match($0, /[;,]  \/\/ /))) {
    after = $0 ~ /^ *\/\// ? RLENGTH : RSTART + 4
    held = substr($0, 1, after - 2) "///< " plain(substr($0, after + 2))
  } else {
    after = 0
  }
}

END { print held }
