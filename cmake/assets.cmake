# Puts files into the binary as read-only data, with the assembler's .incbin: megabytes cost nothing to compile. Writes
# assets.S, which holds the table that src/serve/assets.h reads.
set(asset_paths)
set(asset_files)
set(asset_types)

function(asset_type file result)
  get_filename_component(extension "${file}" LAST_EXT)
  set(type "application/octet-stream")
  if(extension STREQUAL ".html")
    set(type "text/html; charset=utf-8")
  elseif(extension STREQUAL ".js")
    set(type "text/javascript; charset=utf-8")
  elseif(extension STREQUAL ".css")
    set(type "text/css; charset=utf-8")
  elseif(extension STREQUAL ".svg")
    set(type "image/svg+xml")
  endif()
  set(${result} "${type}" PARENT_SCOPE)
endfunction()

# asset(PATH FILE): the file under the path that asset_find knows it by
macro(asset path file)
  asset_type("${path}" type)
  list(APPEND asset_paths "${path}")
  list(APPEND asset_files "${file}")
  string(REPLACE ";" "@SEMICOLON@" type "${type}") # a list would fall apart at it
  list(APPEND asset_types "${type}")
endmacro()

file(GLOB web CONFIGURE_DEPENDS web/*.html web/*.js web/*.css web/*.svg)
if(web AND NOT EXISTS ${CMAKE_SOURCE_DIR}/web/index.html)
  message(WARNING "web/ has no index.html: the dashboard will answer 404")
endif()
foreach(file ${web})
  get_filename_component(name ${file} NAME)
  asset("web/${name}" "${file}")
endforeach()

# Debian 12 and Ubuntu 24.04 have chart.min.js (3.9); later releases may carry the names of Chart.js 4.
find_file(CHART_JS NAMES chart.min.js chart.umd.min.js chart.umd.js Chart.min.js
          PATHS /usr/share/javascript/chart.js /usr/share/javascript/chart.js/dist /usr/share/nodejs/chart.js/dist
          NO_DEFAULT_PATH)
if(NOT CHART_JS)
  message(FATAL_ERROR "Chart.js is missing: apt-get install libjs-chart.js (or make build, which does so)")
endif()
asset("web/chart.js" "${CHART_JS}")

asset("prices.yaml" ${CMAKE_SOURCE_DIR}/src/serve/prices.yaml)

file(GLOB model CONFIGURE_DEPENDS models/storyteller.gguf)
if(model)
  asset("models/storyteller.gguf" "${model}")
endif()

set(data "")
set(table "")
list(LENGTH asset_paths count)
math(EXPR last "${count} - 1")
foreach(i RANGE ${last})
  list(GET asset_paths ${i} path)
  list(GET asset_files ${i} file)
  list(GET asset_types ${i} type)
  string(REPLACE "@SEMICOLON@" ";" type "${type}")
  set(alignment 64)
  if(path MATCHES "^models/")
    set(alignment 4096)
  endif()
  string(APPEND data "    .balign ${alignment}\ndata_${i}:\n    .incbin \"${file}\"\nend_${i}:\n"
                     "path_${i}: .asciz \"${path}\"\ntype_${i}: .asciz \"${type}\"\n")
  string(APPEND table "    .quad path_${i}, type_${i}, data_${i}, end_${i} - data_${i}\n")
endforeach()
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/assets.S CONTENT
"/* Written by cmake/assets.cmake. */
    .section .rodata
@data@
    .balign 8
    .globl asset_count
asset_count: .quad @count@
    .section .data.rel.ro, \"aw\"
    .balign 8
    .globl asset_table
asset_table:
@table@
    .section .note.GNU-stack, \"\", %progbits
" @ONLY)
set_source_files_properties(${CMAKE_BINARY_DIR}/assets.S PROPERTIES OBJECT_DEPENDS "${asset_files}")
target_sources(pare_serve PRIVATE ${CMAKE_BINARY_DIR}/assets.S)
