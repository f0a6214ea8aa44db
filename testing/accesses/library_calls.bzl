"""The linker's names of the C library's functions that accesses are looked at of."""

_FUNCTIONS = [
    # library_calls.cc
    "memcpy",
    "memmove",
    "memset",
    "memcmp",
    "bcmp",
    "memchr",
    "strlen",
    "strnlen",
    "strcmp",
    "strncmp",
    "strcpy",
    "stpcpy",
    "strncpy",
    "strcat",
    "read",
    "pread",
    "pread64",
    "recv",
    "recvfrom",
    "recvmsg",
    "readv",
    "write",
    "pwrite",
    "pwrite64",
    "send",
    "sendto",
    "sendmsg",
    "writev",
    "fread",
    "fwrite",
    # mappings.cc
    "mmap",
    "mmap64",
    "munmap",
    "mremap",
    "sbrk",
    "brk",
    # exceptions.cc
    "_ZNSt15__exception_ptr13exception_ptr10_M_releaseEv",
    "__cxa_end_catch",
]

# For the linker, which passes over those that it does not meet.
WRAP_LIBRARY_LINKOPTS = ["-Wl,--wrap=" + function for function in _FUNCTIONS]
