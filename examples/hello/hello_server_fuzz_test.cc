// What clients that mean no good can do to the server: nothing. See
// ward/testing/server_fuzz.h.

#include "ward/examples/hello/hello_server.h"
#include "ward/testing/server_fuzz.h"

WARD_FUZZ_SERVER(HelloServer);
