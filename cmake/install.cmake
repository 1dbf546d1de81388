# What `make install` copies, and libpare: the engine and what it stands on, as one static and one shared library. Only
# what libpare calls is linked in, so that it needs no library of the gateway's, and only include/pare.h is visible.
file(GLOB pare_api CONFIGURE_DEPENDS src/engine/libpare*.c)
add_library(libpare_objects OBJECT ${pare_api})
target_link_libraries(libpare_objects PRIVATE pare_engine)

add_library(libpare_shared SHARED $<TARGET_OBJECTS:libpare_objects>)
set_target_properties(libpare_shared PROPERTIES OUTPUT_NAME pare LINKER_LANGUAGE C VERSION ${PROJECT_VERSION}
                                                SOVERSION ${PROJECT_VERSION_MAJOR}
                                                LINK_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/libpare.map)
target_link_options(libpare_shared PRIVATE -Wl,--as-needed
                    -Wl,--version-script=${CMAKE_SOURCE_DIR}/cmake/libpare.map)
target_link_libraries(libpare_shared PRIVATE pare_engine)

# An archive has no version script: it would show every function of the engine, and they would meet the program's own
# names. So its objects are linked into one, in which all names but libpare's are made local.
set(libpare_rooms $<TARGET_FILE:pare_engine> $<TARGET_FILE:pare_model> $<TARGET_FILE:pare_tensor>
                  $<TARGET_FILE:pare_base>)
add_custom_command(
  OUTPUT libpare.a
  COMMAND ${CMAKE_C_COMPILER} -r -nostdlib -o libpare.o $<TARGET_OBJECTS:libpare_objects> ${libpare_rooms}
  COMMAND ${CMAKE_OBJCOPY} --wildcard --keep-global-symbol=pare_* libpare.o
  COMMAND ${CMAKE_COMMAND} -E rm -f libpare.a
  COMMAND ${CMAKE_AR} rcs libpare.a libpare.o
  DEPENDS libpare_objects $<TARGET_OBJECTS:libpare_objects> pare_engine pare_model pare_tensor pare_base
  COMMAND_EXPAND_LISTS VERBATIM)
add_custom_target(libpare_static ALL DEPENDS ${CMAKE_CURRENT_BINARY_DIR}/libpare.a)

# The prefix is known only when installing, so the file finds itself: ${pcfiledir} is lib/pkgconfig.
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/pare.pc CONTENT
"prefix=\${pcfiledir}/../..
libdir=\${prefix}/lib
includedir=\${prefix}/include

Name: pare
Description: Language models in a process: generate, chat, embed
Version: @PROJECT_VERSION@
Requires.private: libcjson libcrypto libutf8proc
Libs: -L\${libdir} -lpare
Libs.private: -lpthread -lm
Cflags: -I\${includedir}
" @ONLY)

if(TARGET pare)
  install(TARGETS pare RUNTIME DESTINATION bin)
endif()
install(TARGETS libpare_shared LIBRARY DESTINATION lib)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/libpare.a DESTINATION lib)
install(FILES ${CMAKE_BINARY_DIR}/pare.pc DESTINATION lib/pkgconfig)
if(EXISTS ${CMAKE_SOURCE_DIR}/include/pare.h)
  install(FILES include/pare.h DESTINATION include)
endif()
install(FILES docs/pare.1 DESTINATION share/man/man1)

if(NOT PARE_ASAN AND NOT PARE_TSAN AND NOT PARE_FUZZ AND NOT CMAKE_CROSSCOMPILING)
  add_test(NAME e2e/abi COMMAND sh tests/e2e/abi.sh ${CMAKE_BINARY_DIR} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(e2e/abi PROPERTIES SKIP_RETURN_CODE 77)
endif()
