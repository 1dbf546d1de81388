# What `make install` copies, and libpare: the rooms that stand without the gateway, as one static and one shared library.
set(pare_rooms base tensor model dialect engine)
set(pare_objects)
foreach(name ${pare_rooms})
  list(APPEND pare_objects $<TARGET_OBJECTS:pare_${name}>)
endforeach()
set(pare_libraries PkgConfig::LIBEVENT PkgConfig::CJSON PkgConfig::YAML PkgConfig::CRYPTO
                   PkgConfig::UTF8PROC Threads::Threads m)

add_library(libpare_static STATIC ${pare_objects})
add_library(libpare_shared SHARED ${pare_objects})
foreach(name libpare_static libpare_shared)
  set_target_properties(${name} PROPERTIES OUTPUT_NAME pare LINKER_LANGUAGE C)
  target_link_libraries(${name} PRIVATE ${pare_libraries})
endforeach()
set_target_properties(libpare_shared PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
                                                LINK_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/libpare.map)
# Only what include/pare.h promises is visible.
target_link_options(libpare_shared PRIVATE -Wl,--version-script=${CMAKE_SOURCE_DIR}/cmake/libpare.map)

# The prefix is known only when installing, so the file finds itself: ${pcfiledir} is lib/pkgconfig.
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/pare.pc CONTENT
"prefix=\${pcfiledir}/../..
libdir=\${prefix}/lib
includedir=\${prefix}/include

Name: pare
Description: Language models in a process: load, generate, embed
Version: @PROJECT_VERSION@
Requires.private: libevent_core libevent_pthreads libcjson yaml-0.1 libcrypto libutf8proc
Libs: -L\${libdir} -lpare
Libs.private: -lpthread -lm
Cflags: -I\${includedir}
" @ONLY)

if(TARGET pare)
  install(TARGETS pare RUNTIME DESTINATION bin)
endif()
install(TARGETS libpare_static libpare_shared LIBRARY DESTINATION lib ARCHIVE DESTINATION lib)
install(FILES ${CMAKE_BINARY_DIR}/pare.pc DESTINATION lib/pkgconfig)
if(EXISTS ${CMAKE_SOURCE_DIR}/include/pare.h)
  install(FILES include/pare.h DESTINATION include)
endif()
install(FILES docs/pare.1 DESTINATION share/man/man1)
