# ward_server_test(NAME SRCS FILE... [DEPS TARGET...])
#
# A test of a server in each of the modes of ward/testing/server_test.h: one program, and
# a test of CTest's NAME_MODE for each. DEPS are what its sources include;
# ward::server_test and a main() are added. After enable_testing().
function(ward_server_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SRCS;DEPS")
  add_executable(${name} ${arg_SRCS})
  target_link_libraries(${name} PRIVATE ${arg_DEPS} ward::server_test ward::main)
  foreach(mode simulated threaded forked exec)
    add_test(NAME ${name}_${mode} COMMAND ${name})
    set_tests_properties(${name}_${mode} PROPERTIES ENVIRONMENT WARD_TEST_MODE=${mode})
  endforeach()
endfunction()
